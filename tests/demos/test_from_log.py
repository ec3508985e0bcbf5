"""A log of a robot becomes demonstrations that the package's own reader, and robomimic's layout, understand."""

import h5py
import numpy as np
import pytest

from sb3_q2rl.data import Demonstrations
from sb3_q2rl.demos.from_log import log_to_demonstrations
from sb3_q2rl.envs.franka.transition_log import TransitionLog

ABOUT = {"env_name": "x", "type": 2, "reward_scale": 5.0, "reward_bias": -1.0}


def write(path, ends, images: bool = False) -> None:
    """
    :param ends: of each episode: "success", "failure", "fault" or "" for one that is going on
    """

    def observe(episode: int, i: int):
        state = np.array([episode, i, 0.5], np.float32)
        return {"state": state, "wrist_rgb": np.full((84, 84, 3), i, np.uint8)} if images else state

    log = TransitionLog(path, ABOUT)
    for episode, end in enumerate(ends):
        log.append_reset(observe(episode, 0), seed=episode)
        for i in range(1, 5):
            last = i == 4
            success = last and end == "success"
            truncated = last and end in ("failure", "fault")
            info = {"robot_error": "cable"} if last and end == "fault" else {}
            executed = np.full(7, i / 10)
            log.append_step(
                observe(episode, i), np.zeros(7), executed, 4.0 if success else -1.0, success, truncated, info
            )
    log.close()


def test_successes_become_demonstrations(tmp_path):
    write(tmp_path / "run.log", ["success", "failure", "success", "fault", ""])
    recorded = log_to_demonstrations(tmp_path / "run.log", tmp_path / "demos.hdf5")
    assert recorded[1:] == (2, 2, 5, 8)
    demonstrations = Demonstrations.load(tmp_path / "demos.hdf5", reward_scale=5.0, reward_bias=-1.0)
    assert demonstrations.source == "human"
    np.testing.assert_allclose(demonstrations.actions[:, 0], np.tile([0.1, 0.2, 0.3, 0.4], 2))
    np.testing.assert_allclose(demonstrations.rewards, np.tile([-1, -1, -1, 4], 2))
    np.testing.assert_array_equal(demonstrations.observations[:, 0], np.repeat([0, 2], 4))
    np.testing.assert_array_equal(demonstrations.observations[:, 1], np.tile([0, 1, 2, 3], 2))
    np.testing.assert_array_equal(demonstrations.terminated, np.tile([False, False, False, True], 2))


def test_failures_on_request_but_never_faults(tmp_path):
    write(tmp_path / "run.log", ["failure", "fault", "success"])
    recorded = log_to_demonstrations(
        tmp_path / "run.log", tmp_path / "demos.hdf5", "policy-generated", keep_failures=True
    )
    assert recorded.n_episodes == 2
    demonstrations = Demonstrations.load(tmp_path / "demos.hdf5")
    assert demonstrations.source == "policy-generated"
    np.testing.assert_array_equal(np.flatnonzero(demonstrations.terminated), [7])


def test_images_keep_their_names(tmp_path):
    write(tmp_path / "run.log", ["success"], images=True)
    log_to_demonstrations(tmp_path / "run.log", tmp_path / "demos.hdf5")
    demonstrations = Demonstrations.load(tmp_path / "demos.hdf5", obs_keys=("state", "wrist_rgb"), as_dict=True)
    assert demonstrations.observations["wrist_rgb"].shape == (4, 84, 84, 3)
    assert demonstrations.observations["wrist_rgb"].dtype == np.uint8
    np.testing.assert_array_equal(demonstrations.observations["wrist_rgb"][:, 5, 5, 1], [0, 1, 2, 3])
    with h5py.File(tmp_path / "demos.hdf5") as file:
        assert set(file["data/demo_0"]) == {"actions", "dones", "next_obs", "obs", "rewards", "states"}


def test_nothing_to_keep(tmp_path):
    write(tmp_path / "run.log", ["failure"])
    with pytest.raises(ValueError, match="has 1 episodes, and none that succeeded"):
        log_to_demonstrations(tmp_path / "run.log", tmp_path / "demos.hdf5")
    assert [file.name for file in tmp_path.iterdir()] == ["run.log"]
