"""robomimic's files hold raw rewards; a buffer must hold the environment's."""

import gymnasium as gym
import h5py
import numpy as np
from worlds import ReachEnv, WalkHome

from sb3_q2rl import Demonstrations, QGatedSAC


class ScaledReach(ReachEnv):
    """Tells its rewards as our robosuite environments do."""

    reward_scale, reward_bias = 5.0, -1.0


def write(path):
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = np.zeros((3, 2), np.float32)
        demo["rewards"] = np.array([0.0, 0.0, 1.0])
        demo["dones"] = np.array([0, 0, 1])
        for group in ("obs", "next_obs"):
            demo[f"{group}/flat"] = np.zeros((3, 2), np.float32)
    return path


def test_a_path_is_read_with_the_rewards_of_the_environment(tmp_path):
    path = write(tmp_path / "demos.hdf5")
    model = QGatedSAC(env=gym.wrappers.TimeLimit(ScaledReach(), 12), bc_policy=WalkHome(), demonstrations=path)
    np.testing.assert_array_equal(model.demonstrations.rewards, [-1, -1, 4])
    model = QGatedSAC(env=ReachEnv(), bc_policy=WalkHome(), demonstrations=path)  # it tells nothing
    np.testing.assert_array_equal(model.demonstrations.rewards, [0, 0, 1])
    np.testing.assert_array_equal(Demonstrations.load(path, reward_scale=2.0).rewards, [0, 0, 2])
