"""n-step returns: every sample against a slow walk along the transitions as they were written down."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from worlds import ReachEnv, WalkHome, reach, small_model

from sb3_q2rl import Demonstrations
from sb3_q2rl.common.buffers import BCDictReplayBuffer, BCReplayBuffer, BCSamples
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

GAMMA, N_ENVS = 0.9, 3
ACTION_SPACE = spaces.Box(-1, 1, (1,), np.float32)
FLAT = spaces.Box(-np.inf, np.inf, (1,), np.float32)
IMAGE = spaces.Box(0, 255, (1, 8, 8), np.uint8)


class Step(NamedTuple):
    """One transition of one environment, as it happened. Observations are numbers that occur once."""

    obs: int
    next_obs: int
    reward: float
    terminated: bool
    truncated: bool
    bc_action: float


def shown(number: int, kind: str) -> np.ndarray:
    if kind == "image":  # two digits to the base of 200
        image = np.zeros((1, 8, 8), np.uint8)
        image[0, 0, :2] = number // 200, number % 200
        return image
    return np.array([number], np.float32)


def read(obs: Any, kind: str) -> list[int]:
    if kind == "image":
        return (obs[:, 0, 0, 0].long() * 200 + obs[:, 0, 0, 1].long()).tolist()
    return (obs["x"] if kind == "dict" else obs)[:, 0].long().tolist()


def filled(kind: str, n_steps: int, n_rows: int, capacity: int, seed: int = 0) -> tuple[Any, list[list[list[Step]]]]:
    """A buffer of three environments, and each one's episodes; all are reset in mid-episode once."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, spaces.Space] = {"flat": FLAT, "image": IMAGE, "dict": spaces.Dict({"x": FLAT})}
    space = kinds[kind]
    cls = BCDictReplayBuffer if kind == "dict" else BCReplayBuffer
    options = {"gamma": GAMMA, "n_steps": n_steps, "with_next_bc_actions": True}
    buffer: Any = cls(capacity * N_ENVS, space, ACTION_SPACE, "cpu", N_ENVS, **options)
    numbers = iter(range(10**6))
    episodes: list[list[list[Step]]] = [[[]] for _ in range(N_ENVS)]
    current = [next(numbers) for _ in range(N_ENVS)]

    def batch(values: list[int]) -> Any:
        stacked = np.stack([shown(value, kind) for value in values])
        return {"x": stacked} if kind == "dict" else stacked

    for row in range(n_rows):
        if row == n_rows - 5:
            buffer.forget_open_episodes()
            current = [next(numbers) for _ in range(N_ENVS)]
            for column in episodes:
                column.append([])
        steps = []
        for env_idx in range(N_ENVS):
            end = rng.choice(["no", "terminated", "truncated"], p=[0.7, 0.15, 0.15])
            steps.append(
                Step(
                    current[env_idx], next(numbers), rng.normal(), end == "terminated", end == "truncated", rng.normal()
                )
            )
        buffer.add(
            batch([step.obs for step in steps]),
            batch([step.next_obs for step in steps]),
            np.zeros((N_ENVS, 1), np.float32),
            np.array([step.reward for step in steps]),
            np.array([step.terminated or step.truncated for step in steps]),
            [
                {"TimeLimit.truncated": step.truncated, "bc_step": (np.array([step.bc_action]), 0.0, 0.0, False)}
                for step in steps
            ],
        )
        for env_idx, step in enumerate(steps):
            episodes[env_idx][-1].append(step)
            done = step.terminated or step.truncated
            current[env_idx] = next(numbers) if done else step.next_obs
            if done:
                episodes[env_idx].append([])
    return buffer, episodes


@pytest.mark.parametrize("kind", ["flat", "dict", "image"])
@pytest.mark.parametrize("n_steps", [1, 3, 5])
@pytest.mark.parametrize(("n_rows", "capacity"), [(13, 40), (57, 20), (40, 20)], ids=["part", "wrapped", "at the edge"])
def test_every_sample_is_what_a_walk_along_its_episode_gives(kind, n_steps, n_rows, capacity):
    buffer, episodes = filled(kind, n_steps, n_rows, capacity)
    expected = {}
    for column in episodes:
        for episode in column:
            for t, step in enumerate(episode):
                window = episode[t : t + n_steps]
                total = sum(GAMMA**k * later.reward for k, later in enumerate(window))
                following = episode[t + len(window)].bc_action if t + len(window) < len(episode) else np.nan
                last = window[-1]
                expected[step.obs] = (total, GAMMA ** len(window), last.next_obs, last.terminated, following)
    rows, columns = (index.ravel() for index in np.indices((buffer.size(), N_ENVS)))
    batch: BCSamples = buffer.gather(rows, columns)
    assert batch.discounts is not None
    assert batch.next_bc_actions is not None
    ids = read(batch.observations, kind)
    assert len(set(ids)) == len(rows)
    want = [np.array(values, dtype=np.float64) for values in zip(*(expected[i] for i in ids), strict=True)]
    np.testing.assert_allclose(batch.rewards[:, 0], want[0], atol=1e-5)
    np.testing.assert_allclose(batch.discounts[:, 0], want[1], rtol=1e-6)
    np.testing.assert_array_equal(read(batch.next_observations, kind), want[2])
    np.testing.assert_array_equal(batch.dones[:, 0], want[3])
    np.testing.assert_allclose(batch.next_bc_actions[:, 0], want[4], rtol=1e-6)
    buffer.with_next_bc_actions = False
    assert buffer.gather(rows, columns).next_bc_actions is None, "not asked for"


def test_columns_of_demonstrations_end_within_an_episode():
    """Ten steps in three columns of four: the second column begins in mid-episode, and nothing runs on past a share."""
    numbers = np.arange(10, dtype=np.float32)[:, None]
    ends = np.isin(np.arange(10), [5, 9])
    demonstrations = Demonstrations(
        numbers,
        numbers + 1,
        np.zeros((10, 1), np.float32),
        np.ones(10, np.float32),
        ends,
        np.zeros(10, bool),
        np.array([6, 10]),
    )
    buffer = BCReplayBuffer(60, FLAT, ACTION_SPACE, "cpu", N_ENVS, gamma=GAMMA, n_steps=3)
    buffer.add_demonstrations(demonstrations)
    for _ in range(3):  # what follows is another episode
        obs = np.full((N_ENVS, 1), 100, np.float32)
        buffer.add(obs, obs, np.zeros((N_ENVS, 1)), np.full(N_ENVS, 50.0), np.zeros(N_ENVS), [{}] * N_ENVS)
    batch = buffer.gather(np.arange(4), np.full(4, 0))  # steps 0, 1, 2, 3; the share ends there
    assert batch.discounts is not None
    np.testing.assert_allclose(batch.discounts[:, 0], [GAMMA**3, GAMMA**3, GAMMA**2, GAMMA], rtol=1e-6)
    np.testing.assert_array_equal(batch.next_observations[:, 0], [3, 4, 4, 4])
    batch = buffer.gather(np.arange(4), np.full(4, 1))  # steps 4, 5 (the end), 6, 7
    np.testing.assert_array_equal(batch.dones[:, 0], [1, 1, 0, 0])
    np.testing.assert_array_equal(batch.next_observations[:, 0], [6, 6, 8, 8])
    np.testing.assert_allclose(batch.rewards[:, 0], [1 + GAMMA, 1, 1 + GAMMA, 1], rtol=1e-6)


def test_td_target_is_the_n_step_one():
    """Constant target critics of value 2, no entropy: y = R + gamma^m (1 - d) 2."""
    model: Any = OfflineToOnlineSAC(
        reach(n_envs=3), n_steps=3, gamma=GAMMA, ent_coef=0.0, batch_size=32, device="cpu", seed=0,
        bc_policy=WalkHome(), policy_kwargs={"net_arch": [8], "n_critics": 2},
    )  # fmt: skip
    model.learn(90)
    assert model.replay_buffer.n_steps == 3
    with th.no_grad():
        for weights in model.critic_target.q_networks.output.parameters():
            weights.zero_()
    model.critic_target.set_scale(th.tensor(2.0), th.tensor(1.0))
    batch = model._sample_batch(200)
    m = (batch.discounts[:, 0].log() / np.log(GAMMA)).round()
    assert set(m.tolist()) == {1.0, 2.0, 3.0}
    expected = batch.rewards[:, 0] + GAMMA**m * (1 - batch.dones[:, 0]) * 2
    th.testing.assert_close(model._td_target(batch), expected)


@pytest.mark.usefixtures("quick_fit")
def test_of_q2rl_they_change_the_td_target_and_not_the_estimate():
    """Q̂_BC and Q-initialisation know nothing of `n_steps`: the same networks as with 1 when the gate opens."""
    states, models = [], []
    for n_steps in (1, 4):
        model = small_model(bc_policy=WalkHome(), n_steps=n_steps, gamma=GAMMA)
        initialise = model._initialise

        def note(*args: Any, model: Any = model, initialise: Any = initialise) -> None:
            initialise(*args)
            states.append({k: v.clone() for k, v in model.policy.state_dict().items() if isinstance(v, th.Tensor)})

        model._initialise = note
        model.learn(70)
        models.append(model)
    assert len(states) == 2
    for name, value in states[0].items():
        th.testing.assert_close(states[1][name], value, rtol=0, atol=0, msg=name)
    rows = np.arange(10)
    for model, longest in zip(models, (1, 4), strict=True):
        discounts = model.replay_buffer.gather(rows, np.zeros(10, int)).discounts
        assert discounts.min().item() == pytest.approx(GAMMA**longest)


def test_hindsight_and_nonsense_are_refused():
    for make in (OfflineToOnlineSAC, small_model):
        with pytest.raises(ValueError, match="`n_steps`=3 with a `replay_buffer_class` that relabels"):
            make(reach("goal"), n_steps=3, replay_buffer_class=HerReplayBuffer)
        with pytest.raises(ValueError, match="`n_steps`=0"):
            make(ReachEnv(), n_steps=0)
