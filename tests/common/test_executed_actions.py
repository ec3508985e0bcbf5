"""What was executed is what is learnt from, whether limits cut an action or a person took over."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from worlds import HORIZON, ReachEnv, WalkHome, small_model


class Interfering(gym.Wrapper):
    """
    Executes what the function makes of an action, and tells. Its action space is [-2, 2], the buffer's [-1, 1].

    :param key: "executed_action" or "intervene_action"
    :param when: steps of an episode in which it interferes
    """

    def __init__(self, env: gym.Env, key: str, when: range) -> None:
        super().__init__(env)
        self.key, self.when, self.t = key, when, 0

    def reset(self, **kwargs):
        self.t = 0
        return self.env.reset(**kwargs)

    def step(self, action):
        executed = np.array([0.5, -1.5], np.float32) if self.t in self.when else action
        *result, info = self.env.step(executed)
        if self.t in self.when:
            info[self.key] = executed
        self.t += 1
        return *result, info


class Recorder(BaseCallback):
    """Who acted according to the decision, after the step was stored."""

    def __init__(self) -> None:
        super().__init__()
        self.rl_acts: list[np.ndarray] = []

    def _on_step(self) -> bool:
        store = self.model._on_step

        def after() -> None:
            self.rl_acts.append(self.model.decision.rl_acts.numpy())
            store()

        if "_on_step" not in vars(self.model):
            self.model._on_step = after
        return True


def learn(key: str, when: range, n_steps: int, others: int = 1):
    """The first environment interferes, the others do not."""
    makers = [lambda: Interfering(ReachEnv(radius=0.0), key, when), *[lambda: ReachEnv(radius=0.0)] * others]
    model = small_model(DummyVecEnv(makers), WalkHome(sigma=0.1), rl_deterministic=True)
    recorder = Recorder()
    model.learn(n_steps, callback=recorder)
    return model, np.array(recorder.rl_acts)


@pytest.mark.parametrize("key", ["executed_action", "intervene_action"])
def test_the_buffer_holds_what_was_executed(key, quick_fit):
    model, _ = learn(key, range(3, 5), 4 * HORIZON)
    buffer = model.replay_buffer
    n_rows = buffer.size()
    interfered = np.isin(np.arange(n_rows) % HORIZON, [3, 4])
    np.testing.assert_allclose(buffer.actions[:n_rows][interfered, 0], np.tile([0.25, -0.75], (interfered.sum(), 1)))
    # every stored action, in the environment's scale, leads where the environment went
    moved = buffer.next_observations[:n_rows] - buffer.observations[:n_rows]
    np.testing.assert_allclose(moved, 0.25 * buffer.actions[:n_rows], atol=1e-5)
    assert not np.allclose(buffer.actions[:n_rows][interfered, 1], [0.25, -0.75])


def test_limits_do_not_take_an_episode_from_the_bc_policy(quick_fit):
    model, _ = learn("executed_action", range(3, 5), 2 * 2 * HORIZON)
    assert model.replay_buffer.n_bc_episodes >= 3
    assert model.replay_buffer.bc_acted[:HORIZON].all()


def test_a_person_takes_an_episode_from_the_bc_policy(quick_fit):
    model, _ = learn("intervene_action", range(3, 5), 2 * 2 * HORIZON)
    buffer = model.replay_buffer
    expected = ~np.isin(np.arange(HORIZON), [3, 4])
    np.testing.assert_array_equal(buffer.bc_acted[:HORIZON, 0], expected)
    assert buffer.bc_acted[:HORIZON, 1].all()
    assert all(column[0] == 1 for _, column in buffer.bc_episodes())


def test_a_persons_steps_are_not_the_actors(quick_fit, monkeypatch):
    """Once the gate is open, here for the actor alone, and in the environment where the person is."""
    monkeypatch.setattr("sb3_q2rl.q2rl.q_gated_sac.max_gate", lambda q_rl, q_bc: q_rl > -np.inf)
    model, rl_acts = learn("intervene_action", range(0, HORIZON, 2), 2 * 6 * HORIZON)
    assert model.has_started
    interfered = np.arange(len(rl_acts)) % HORIZON % 2 == 0
    gated = rl_acts[:, 1]
    np.testing.assert_array_equal(rl_acts[:, 0], gated & ~interfered)
    assert (gated & interfered).sum() > 5
    assert not gated[: 2 * HORIZON].any()
