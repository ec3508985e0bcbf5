"""Who acts: the rule, and that what it decides is what is executed, stored and logged."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize
from worlds import WalkHome, Witness, reach, small_model

from sb3_q2rl.q2rl import QGatedSAC, q_gated_sac
from sb3_q2rl.q2rl.gating import max_gate

pytestmark = pytest.mark.usefixtures("quick_fit")


def test_truth_table():
    q_rl = th.tensor([1.0, 0.0, -1.0, 0.0, float("nan"), float("-inf")])
    q_bc = th.tensor([0.0, 1.0, -2.0, 0.0, 0.0, float("-inf")])
    # higher, lower, both negative, tie, a broken critic, tie: only the strictly higher value takes over from BC
    assert max_gate(q_rl, q_bc).tolist() == [True, False, True, False, False, False]


def by_lot(q_rl: th.Tensor, q_bc: th.Tensor) -> th.Tensor:
    """A gate that takes both sides often, whatever the values."""
    return th.rand(len(q_rl)) < 0.5


class Diary(BaseCallback):
    """One entry a step: the decision, the actions that were sent, which episodes ended."""

    model: QGatedSAC

    def __init__(self):
        super().__init__()
        self.decisions: list[Any] = []
        self.sent: list[np.ndarray] = []
        self.dones: list[np.ndarray] = []

    def _on_step(self) -> bool:
        self.decisions.append(self.model.decision)
        self.sent.append(self.locals["actions"].copy())
        self.dones.append(self.locals["dones"].copy())
        return True


@pytest.mark.parametrize("options", [{}, {"rl_deterministic": True, "bc_deterministic": False}])
def test_executed_stored_and_decided_action_agree(monkeypatch, options):
    monkeypatch.setattr(q_gated_sac, "max_gate", by_lot)
    model = small_model(reach(n_envs=3), **options)
    diary = Diary()
    model.learn(240, diary)
    buffer = model.replay_buffer
    assert buffer.size() == 80
    n_rl = 0
    for t, (decision, sent) in enumerate(zip(diary.decisions, diary.sent, strict=True)):
        bc_acts = np.ones(3, bool) if decision.rl_acts is None else ~decision.rl_acts.numpy()
        expected = decision.bc.actions.numpy()
        if decision.rl is not None:
            expected = np.where(bc_acts[:, None], expected, decision.rl.numpy())
            assert not np.allclose(decision.rl, decision.bc.actions)
        n_rl += (~bc_acts).sum()
        np.testing.assert_array_equal(buffer.bc_acted[t], bc_acts)
        np.testing.assert_allclose(buffer.actions[t], expected, atol=1e-6)
        np.testing.assert_allclose(buffer.bc_actions[t], decision.bc.actions, atol=1e-6)
        np.testing.assert_allclose(buffer.bc_log_prob[t], decision.bc.log_prob, rtol=1e-5)
        np.testing.assert_allclose(buffer.bc_entropy[t], decision.bc.entropy, rtol=1e-5)
        np.testing.assert_allclose(sent, 2 * expected, atol=1e-6)  # this world's actions reach from -2 to 2
    assert 30 < n_rl < 210
    # The world itself says what was executed: x' = x + 0.25 a
    moved = buffer.next_observations[:80] - buffer.observations[:80]
    inside = (np.abs(buffer.next_observations[:80]) < 2).all(axis=-1)
    np.testing.assert_allclose(moved[inside], 0.25 * buffer.actions[:80][inside], atol=1e-5)


def test_bc_alone_acts_until_the_estimate_exists():
    model = small_model(reach(n_envs=3), n_bc_episodes=6)
    diary = Diary()
    model.learn(200, diary)
    finished = np.cumsum(np.sum(diary.dones, axis=1))
    first_gated = int(np.argmax(finished >= 6)) + 1
    assert [decision.q_bc is None for decision in diary.decisions] == [t < first_gated for t in range(len(finished))]
    assert model.replay_buffer.bc_acted[:first_gated].all()


def test_gate_compares_the_least_critic_with_the_estimate():
    model = small_model()
    model.learn(60)
    obs = th.tensor([[1.0, 0.0], [0.0, -1.0], [0.5, 0.5]])
    with th.no_grad():
        decision = model.decide(obs.numpy(), deterministic=True)
        q_values = model.critic(obs, model.actor(obs, deterministic=True))
        bc = WalkHome().step(obs, None, None, deterministic=True)
        # log pi + H at the mode of a Gaussian in two dimensions is 1, in all of the BC episodes: centred, nothing
        expected = model.policy.q_estimate.value(obs)
        th.testing.assert_close(bc.log_prob + bc.entropy, th.ones(3))
    th.testing.assert_close(decision.q_rl, q_values.min(dim=0).values)
    th.testing.assert_close(decision.q_bc, expected)
    assert decision.rl_acts.tolist() == (decision.q_rl > decision.q_bc).tolist()
    # ... and predict() follows it, in the environment's own scale
    actions, _ = model.predict(obs.numpy(), deterministic=True)
    np.testing.assert_allclose(actions, 2 * decision.actions, atol=1e-6)
    for who, own in (("rl", decision.rl), ("bc", decision.bc.actions)):
        np.testing.assert_allclose(model.predict(obs.numpy(), deterministic=True, who=who)[0], 2 * own, atol=1e-6)


@pytest.mark.parametrize(
    ("rl_deterministic", "is_mode"), [(True, [True, True]), (False, [False, False]), (None, [True, False])]
)
def test_how_the_rl_action_is_chosen(rl_deterministic, is_mode):
    """Always the mode, always a sample, or as `predict` is asked."""
    model = small_model(rl_deterministic=rl_deterministic)
    model.learn(60)
    obs = np.full((50, 2), 0.5, np.float32)
    for asked, expected in zip((True, False), is_mode, strict=True):
        actions, _ = model.predict(obs, deterministic=asked, who="rl")
        assert (np.abs(actions - actions[0]).max() < 1e-6) == expected


def test_a_bc_policy_that_acts_by_samples_does_so_in_evaluation_too():
    obs = np.full((200, 2), 0.5, np.float32)
    for bc_deterministic in (True, False):
        model = small_model(bc_policy=WalkHome(sigma=0.3), bc_deterministic=bc_deterministic)
        model.learn(60)
        actions = model.decide(obs, deterministic=True).bc.actions
        assert float(actions.std(dim=0).mean()) == pytest.approx(0.0 if bc_deterministic else 0.3, abs=0.08)


def test_the_end_of_one_episode_leaves_the_other_states_alone():
    """The recurrent state of this BC policy counts the steps of each environment's own episode."""
    model = small_model(reach(n_envs=3), WalkHome(is_recurrent=True, sigma=0.8), bc_deterministic=False)
    diary = Diary()
    model.learn(400, diary)
    steps = np.zeros(3)
    ends = 0
    for decision, dones in zip(diary.decisions, diary.dones, strict=True):
        steps += 1
        np.testing.assert_array_equal(decision.bc.state, steps)
        ends += int(dones.any() and not dones.all())
        steps[dones] = 0
    assert ends > 5  # episodes did end one by one


def test_predict_carries_and_resets_the_state_row_by_row():
    model = small_model(reach(n_envs=3), WalkHome(is_recurrent=True))
    model.learn(60)
    obs = np.full((3, 2), 0.5, np.float32)
    _, state = model.predict(obs)
    _, state = model.predict(obs, state, np.array([False, True, False]))
    _, state = model.predict(obs, state, np.array([False, False, False]))
    assert state.tolist() == [3, 2, 3]
    # One observation alone starts anew without a state, and goes on with one
    _, single = model.predict(obs[0])
    _, single = model.predict(obs[0], single)
    assert single.tolist() == [2]


def test_learning_again_from_a_reset_starts_with_fresh_states():
    model = small_model(reach(n_envs=2), WalkHome(is_recurrent=True))
    model.learn(60)
    diary = Diary()
    model.learn(2, diary)
    assert diary.decisions[0].bc.state.tolist() == [1, 1]


def test_evaluating_in_between_does_not_touch_the_states_of_the_run():
    def run(peek):
        model = small_model(reach(n_envs=2), WalkHome(is_recurrent=True))
        for _ in range(4):
            model.learn(30, reset_num_timesteps=False)
            if peek:
                model.predict(np.zeros((5, 2), np.float32), deterministic=True)
        return model

    quiet, watched = run(False), run(True)
    for a, b in zip(quiet.policy.parameters(), watched.policy.parameters(), strict=True):
        th.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_bc_policy_sees_the_observations_as_the_environment_gave_them():
    env = VecNormalize(reach(n_envs=3), norm_reward=False)
    witness = Witness()
    model = small_model(env, witness)
    witness.seen.clear()
    model.learn(150)
    assert len(witness.seen) == 50
    raw = model.replay_buffer.observations[:50]
    np.testing.assert_array_equal(th.stack(witness.seen), raw)
    assert np.abs(env.normalize_obs(raw) - raw).max() > 0.3  # normalising does change them
    witness.seen.clear()
    model.predict(env.normalize_obs(raw[7]), deterministic=True)
    np.testing.assert_allclose(witness.seen[0], raw[7], atol=1e-4)
    witness.seen.clear()
    model.predict(env.normalize_obs(raw[7][0]), deterministic=True)
    np.testing.assert_allclose(witness.seen[0][0], raw[7][0], atol=1e-4)
