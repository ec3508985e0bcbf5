import pickle
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from sb3_q2rl import Demonstrations
from sb3_q2rl.common import buffers
from sb3_q2rl.common.buffers import BCDictReplayBuffer, BCReplayBuffer

OBS = spaces.Box(-np.inf, np.inf, (2,), np.float32)
ACT = spaces.Box(-1, 1, (1,), np.float32)
GAMMA = 0.5


def fill(buffer, n_rows, n_envs, lengths, bc_until=10**9, truncate=False):
    """Every number tells where it came from: obs = (step, env); episodes of `lengths[env]` steps."""
    for t in range(n_rows):
        obs = np.array([[t, e] for e in range(n_envs)], np.float32)
        done = np.array([(t + 1) % lengths[e] == 0 for e in range(n_envs)])
        infos = [
            {
                "bc_step": (t * 0.001 + e, t + 10 * e, -t, t < bc_until),
                "TimeLimit.truncated": bool(done[e] and truncate),
            }
            for e in range(n_envs)
        ]
        wrap = (lambda x: {"a": x, "b": x[:, :1]}) if isinstance(buffer, BCDictReplayBuffer) else (lambda x: x)
        buffer.add(
            wrap(obs),
            wrap(obs + np.array([1, 0])),
            np.full((n_envs, 1), t / 1000),
            np.arange(n_envs) + 1.0,
            done,
            infos,
        )


@pytest.mark.parametrize("kind", ["flat", "dict"])
@pytest.mark.parametrize(("n_rows", "capacity"), [(20, 100), (70, 30)])
def test_columns_stay_aligned_with_3_environments_growth_and_wrap_around(monkeypatch, kind, n_rows, capacity):
    monkeypatch.setattr(buffers, "INITIAL_ROWS", 8)
    buffer: BCReplayBuffer | BCDictReplayBuffer
    if kind == "flat":
        buffer = BCReplayBuffer(capacity * 3, OBS, ACT, n_envs=3, gamma=GAMMA)
    else:
        space = spaces.Dict({"a": OBS, "b": spaces.Box(-np.inf, np.inf, (1,), np.float32)})
        buffer = BCDictReplayBuffer(capacity * 3, space, ACT, n_envs=3, gamma=GAMMA)
    lengths = [4, 5, 7]
    fill(buffer, n_rows, 3, lengths)
    assert buffer.size() == min(n_rows, capacity)
    assert buffer.full == (n_rows >= capacity)
    batch: Any = buffer.sample(500)
    obs = batch.observations if kind == "flat" else batch.observations["a"]
    next_obs = batch.next_observations if kind == "flat" else batch.next_observations["a"]
    t, env = obs.numpy().T
    assert t.min() >= n_rows - buffer.size()
    np.testing.assert_allclose(next_obs.numpy(), np.stack([t + 1, env], axis=1))
    np.testing.assert_allclose(batch.actions[:, 0], t / 1000, rtol=1e-6)
    np.testing.assert_allclose(batch.rewards[:, 0], env + 1)
    np.testing.assert_allclose(batch.bc_actions[:, 0], t * 0.001 + env, rtol=1e-6)
    np.testing.assert_allclose(batch.bc_log_prob, t + 10 * env)
    np.testing.assert_allclose(batch.bc_entropy, -t)
    length = np.array(lengths)[env.astype(int)]
    to_go = length - t % length
    finished = t + to_go <= n_rows
    expected = (env + 1) * (1 - GAMMA**to_go) / (1 - GAMMA)
    np.testing.assert_allclose(batch.mc_returns[finished], expected[finished], rtol=1e-5)
    assert batch.mc_returns[~finished].isnan().all()


def test_time_limits_are_no_terminal_states():
    buffer = BCReplayBuffer(100, OBS, ACT, gamma=GAMMA)
    fill(buffer, 4, 1, [4], truncate=True)
    assert buffer.sample(50).dones.max() == 0
    np.testing.assert_allclose(buffer.mc_returns[:4, 0], 1 / (1 - GAMMA))


def test_memory_grows_with_what_is_stored():
    buffer = BCReplayBuffer(1_000_000, OBS, ACT)
    assert len(pickle.dumps(buffer)) < 400_000
    fill(buffer, buffers.INITIAL_ROWS + 1, 1, [7])
    assert buffer.buffer_size == 2 * buffers.INITIAL_ROWS
    assert buffer.observations[buffers.INITIAL_ROWS, 0, 0] == buffers.INITIAL_ROWS


@pytest.mark.parametrize("kind", ["flat", "dict", "image"])
def test_a_buffer_read_from_a_file_grows_on(monkeypatch, kind):
    monkeypatch.setattr(buffers, "INITIAL_ROWS", 8)
    image = spaces.Box(0, 255, (1, 2, 2), np.uint8)
    space = {"flat": OBS, "dict": spaces.Dict(a=OBS), "image": spaces.Dict(a=OBS, rgb=image)}[kind]
    whole = (BCReplayBuffer if kind == "flat" else BCDictReplayBuffer)(1_000, space, ACT)

    def add(buffer, steps):
        for t in steps:
            now, then = ({"a": np.full((1, 2), i), "rgb": np.full((1, 1, 2, 2), i)} for i in (t, t + 1))
            pick = (lambda x: x["a"]) if kind == "flat" else (lambda x: {key: x[key] for key in space})
            buffer.add(pick(now), pick(then), np.zeros((1, 1)), np.ones(1), np.array([t % 5 == 4]), [{}])

    add(whole, range(6))
    read = pickle.loads(pickle.dumps(whole, pickle.HIGHEST_PROTOCOL))
    for buffer in (whole, read):
        add(buffer, range(6, 40))
    rows, columns = np.arange(40), np.zeros(40, int)
    a, b = (each.gather(rows, columns) for each in (whole, read))
    for part in ("observations", "next_observations"):
        x, y = getattr(a, part), getattr(b, part)
        for key in space if kind != "flat" else [...]:
            np.testing.assert_array_equal(x[key], y[key])
            assert x[key][-1].max() == (39 if part == "observations" else 40)


def test_only_whole_episodes_of_the_bc_policy_are_used_for_estimation():
    buffer = BCReplayBuffer(90, OBS, ACT, n_envs=3)
    fill(buffer, 12, 3, [4, 5, 7], bc_until=9)
    episodes = buffer.bc_episodes()
    assert buffer.n_bc_episodes == len(episodes) == 2 + 1 + 1
    assert [(rows.tolist(), set(envs)) for rows, envs in episodes] == [
        ([0, 1, 2, 3], {0}), ([4, 5, 6, 7], {0}), ([0, 1, 2, 3, 4], {1}), ([0, 1, 2, 3, 4, 5, 6], {2}),
    ]  # fmt: skip
    buffer.forget_bc_policy()
    assert buffer.n_bc_episodes == len(buffer.bc_episodes()) == 0


def test_an_episode_cut_by_a_reset_is_not_continued_by_the_next():
    buffer = BCReplayBuffer(90, OBS, ACT)
    fill(buffer, 3, 1, [100])
    buffer.forget_open_episodes()
    fill(buffer, 4, 1, [4])
    ((rows, _),) = buffer.bc_episodes()
    assert rows.tolist() == [3, 4, 5, 6]
    assert np.isnan(buffer.mc_returns[:3, 0]).all()


def demonstrations(lengths):
    n = sum(lengths)
    ends = np.cumsum(lengths)
    terminated = np.zeros(n, bool)
    terminated[ends - 1] = True
    steps = np.arange(n, dtype=np.float32)
    return Demonstrations(
        observations=np.stack([steps, steps], 1),
        next_observations=np.stack([steps + 1, steps], 1),
        actions=np.linspace(-1, 1, n, dtype=np.float32)[:, None],
        rewards=np.ones(n, np.float32),
        terminated=terminated,
        truncated=np.zeros(n, bool),
        episode_ends=ends,
        source="scripted",
    )


@pytest.mark.parametrize("n_envs", [1, 3])
def test_demonstrations_keep_their_order_and_returns(n_envs):
    demos = demonstrations([5, 4, 6])
    buffer = BCReplayBuffer(300, OBS, ACT, n_envs=n_envs, gamma=GAMMA)
    fill(buffer, 2, n_envs, [100] * n_envs)
    buffer.add_demonstrations(demos)
    assert buffer.size() == 2 + -(-15 // n_envs)
    stored = buffer.observations[2 : buffer.pos].transpose(1, 0, 2).reshape(-1, 2)[:15, 0]
    np.testing.assert_array_equal(np.sort(stored), np.arange(15))
    batch: Any = buffer.gather(np.repeat(np.arange(2, buffer.pos), n_envs), np.tile(np.arange(n_envs), buffer.pos - 2))
    step = batch.observations[:, 0].numpy().astype(int)
    np.testing.assert_allclose(batch.actions, batch.bc_actions)
    np.testing.assert_allclose(batch.actions[:, 0], demos.actions[step, 0])
    to_go = np.array([5, 4, 3, 2, 1, 4, 3, 2, 1, 6, 5, 4, 3, 2, 1])[step]
    np.testing.assert_allclose(batch.mc_returns, 2 * (1 - GAMMA**to_go), rtol=1e-6)
    assert buffer.n_bc_episodes == 0


def test_too_many_demonstrations():
    with pytest.raises(ValueError, match="Raise `buffer_size`"):
        BCReplayBuffer(10, OBS, ACT).add_demonstrations(demonstrations([5, 4, 6]))
