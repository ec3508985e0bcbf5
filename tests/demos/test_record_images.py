"""Recorded images, all the way: from the expert's file to a clone of it and to the buffer of an algorithm."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("robosuite", reason="needs the extra `robosuite`")

from sb3_q2rl import Demonstrations, QGatedSAC
from sb3_q2rl.bc import train_bc
from sb3_q2rl.demos.record import record_demonstrations

ENV_ID = "RobomimicLiftImage-v0"


def test_two_recorded_episodes_reach_the_buffer_of_an_algorithm(tmp_path):
    try:
        env = gym.make(ENV_ID)
    except RuntimeError as error:
        pytest.skip(f"no OpenGL here: {error}")
    path = record_demonstrations(ENV_ID, tmp_path / "lift.hdf5", 2, noise=0.1, seed=0, progress_bar=False).path
    demonstrations = Demonstrations.load(path, as_dict=True, obs_keys=list(env.observation_space.spaces))
    policy = train_bc(demonstrations, net_arch=(16,), n_epochs=1, eval_interval=1, progress_bar=False)
    assert set(policy.image_shapes) == {"agentview_image", "robot0_eye_in_hand_image"}
    assert policy.obs_dim == 9

    small = {"net_arch": [16], "n_critics": 2, "features_extractor_kwargs": {"channels": [4, 4], "bottleneck": 8}}
    model = QGatedSAC(env=env, bc_policy=policy, demonstrations=path, buffer_size=300, policy_kwargs=small)
    buffer = model.replay_buffer
    buffer.add_demonstrations(model.demonstrations)
    n = len(demonstrations)
    for key, frames in demonstrations.observations.items():
        stored = buffer.observations[key][:n, 0]
        np.testing.assert_array_equal(stored, np.moveaxis(frames, -1, 1) if frames.ndim == 4 else frames)
    assert buffer.rewards[:n, 0].tolist() == np.where(demonstrations.terminated, 4.0, -1.0).tolist()
    batch = buffer.sample(8)
    assert batch.observations["agentview_image"].shape == (8, 3, 84, 84)
    env.close()
