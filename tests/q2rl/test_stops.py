"""Whoever stops a run, wherever, may go on: nothing is lost, and nothing half made acts."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import StopTrainingOnMaxEpisodes
from worlds import HORIZON, gaussian, one_demonstration, reach, small_model

from sb3_q2rl.common.checkpoint import CheckpointCallback, resume
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC
from sb3_q2rl.q2rl import QGatedSAC
from sb3_q2rl.q2rl.q_estimation import QEstimate
from sb3_q2rl.q2rl.q_initialisation import QInitialisation

pytestmark = [
    pytest.mark.usefixtures("quick_fit"),
    pytest.mark.filterwarnings("ignore:learn\\(\\) ended before anything was learnt"),
]


def parameters(model):
    return th.cat([value.flatten() for value in model.policy.state_dict().values() if isinstance(value, th.Tensor)])


@pytest.mark.parametrize("keep_bc_episodes", [True, False])
@pytest.mark.parametrize(
    ("where", "method"),
    [
        (QEstimate, "_held_out_error"),
        (QEstimate, "centre"),
        (QInitialisation, "_clone_along"),
        (OfflineToOnlineSAC, "begin_online_buffer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_stopped_in_the_estimation_it_begins_that_again(monkeypatch, tmp_path, where, method, keep_bc_episodes):
    demonstrations = one_demonstration()
    model = small_model(bc_policy=gaussian(), demonstrations=demonstrations, keep_bc_episodes=keep_bc_episodes)
    done, before = getattr(where, method), parameters(model)

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, method, stop)
    with pytest.raises(KeyboardInterrupt):
        model.learn(80)
    monkeypatch.setattr(where, method, done)
    assert not model.has_started
    assert th.equal(parameters(model), before)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = QGatedSAC.load(tmp_path / "model", env=reach(), device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    for each in (model, loaded):
        each.learn(4 * HORIZON, reset_num_timesteps=False)
        assert each.has_started
        demonstrated = each.replay_buffer.actions[: each.replay_buffer.size(), 0] == np.float32(0.123)
        assert demonstrated.all(axis=1).sum() == len(demonstrations)


def test_a_step_that_was_made_and_not_stored_is_no_seam_in_an_episode():
    model = small_model(bc_policy=gaussian())
    model.learn(60, StopTrainingOnMaxEpisodes(1))
    model.learn(60, reset_num_timesteps=False)
    buffer = model.replay_buffer
    episodes = buffer.bc_episodes()
    assert episodes
    for rows, columns in episodes:
        assert len(rows) <= HORIZON
        following = buffer.next_observations[rows[:-1], columns[:-1]]
        np.testing.assert_allclose(following, buffer.observations[rows[1:], columns[1:]])


def test_ctrl_c_within_a_step_is_no_seam_either(monkeypatch):
    model = small_model(bc_policy=gaussian(), n_bc_episodes=1)
    model.learn(2 * HORIZON)
    env = model.get_env().envs[0].unwrapped
    step = type(env).step

    def interrupted(self, action):
        step(self, action)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(env), "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.learn(20, reset_num_timesteps=False)
    monkeypatch.setattr(type(env), "step", step)
    last = model.replay_buffer.pos - 1
    model.learn(5, reset_num_timesteps=False)
    buffer = model.replay_buffer
    assert buffer.cuts[last, 0] or buffer.dones[last, 0]
    np.testing.assert_allclose(np.linalg.norm(buffer.observations[last + 1, 0]), 1, atol=1e-5)  # where episodes begin


def test_checkpoints_of_many_short_calls_of_learn(tmp_path):
    model = small_model(bc_policy=gaussian())
    checkpoints = CheckpointCallback(tmp_path, save_freq=50, keep=100)
    for _ in range(4):
        model.learn(30, checkpoints, reset_num_timesteps=False)
    # Each call saves at its end: the newest is always what there is
    assert resume(QGatedSAC, tmp_path, reach(), device="cpu").num_timesteps == 120
    saved = {int(path.name.removeprefix("step_")) for path in tmp_path.iterdir()}
    assert {30, 60, 90, 120} <= saved


def test_the_estimate_is_saved_as_soon_as_it_is_made(tmp_path):
    model = small_model(bc_policy=gaussian())

    class Stop(CheckpointCallback):
        def _on_step(self):
            assert not self.model.has_started or list(self.directory.iterdir())
            return True

    model.learn(100, Stop(tmp_path, save_freq=10_000, keep=100))
    first, *_ = sorted(tmp_path.iterdir())
    assert QGatedSAC.load(first / "model.zip", device="cpu").has_started
    assert int(first.name.removeprefix("step_")) < 100
