"""Image demonstrations: files keep pictures, models want the channels first; from the recorder's file to a batch."""

import dataclasses

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces
from worlds import small_model

from sb3_q2rl import Demonstrations
from sb3_q2rl.bc import GaussianBCPolicy
from sb3_q2rl.common.images import with_channels_first
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

H, W = 40, 44
KEYS = ("camera", "state")


class Camera(gym.Env):
    """The picture's red value counts the steps; five make an episode."""

    observation_space = spaces.Dict(
        {"camera": spaces.Box(0, 255, (H, W, 3), np.uint8), "state": spaces.Box(-1, 1, (2,), np.float32)}
    )
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    reward_scale, reward_bias = 5.0, -1.0

    def _observe(self):
        picture = np.zeros((H, W, 3), np.uint8)
        picture[..., 0] = self.t
        return {"camera": picture, "state": np.zeros(2, np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action):
        self.t += 1
        return self._observe(), -1.0, self.t == 5, False, {"is_success": self.t == 5}


def write(path, n=4):
    """Pixel (row, column, channel) of step t is t + 10 * channel, but one corner is 200: nothing may be mixed up."""
    pictures = np.zeros((n + 1, H, W, 3), np.uint8)
    pictures += np.arange(n + 1, dtype=np.uint8)[:, None, None, None]
    pictures += 10 * np.arange(3, dtype=np.uint8)
    pictures[:, 0, -1, 2] = 200
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = np.zeros((n, 1), np.float32)
        demo["rewards"] = np.eye(n)[-1]
        demo["dones"] = np.eye(n, dtype=int)[-1]
        for group, images in (("obs", pictures[:-1]), ("next_obs", pictures[1:])):
            demo[f"{group}/camera"] = images
            demo[f"{group}/state"] = np.zeros((n, 2), np.float32)
            demo[f"{group}/object"] = np.zeros((n, 5), np.float32)  # which the environment does not show
    return path


def model(env, demonstrations):
    policy = GaussianBCPolicy(2, 1, net_arch=(8,), obs_keys=("state",)).eval().requires_grad_(False)
    extractor = {"channels": [4, 4], "bottleneck": 8}
    kwargs = {"features_extractor_kwargs": extractor}
    return small_model(env, policy, kwargs, demonstrations=demonstrations, n_bc_episodes=2, buffer_size=100)


@pytest.mark.parametrize("as_object", [False, True])
def test_a_file_of_pictures_reaches_the_batch(tmp_path, as_object):
    source = write(tmp_path / "demos.hdf5")
    if as_object:
        source = Demonstrations.load(source, as_dict=True, obs_keys=KEYS, reward_scale=5.0, reward_bias=-1.0)
    learner = model(Camera(), source)
    buffer = learner.replay_buffer
    buffer.add_demonstrations(learner.demonstrations)
    place = slice(0, 4)
    for t, (images, rewards) in enumerate(
        zip(buffer.observations["camera"][place, 0], buffer.rewards[place, 0], strict=True)
    ):
        assert images.shape == (3, H, W)
        assert images[:, 1, 1].tolist() == [t, t + 10, t + 20]
        assert images[2, 0, -1] == 200  # row, column
        assert rewards == (4 if t == 3 else -1)
    after = buffer.next_observations["camera"][np.arange(4), np.zeros(4, int)]
    assert after[:, 0, 1, 1].tolist() == [1, 2, 3, 4]


def test_what_is_right_already_is_left_alone(tmp_path):
    demonstrations = Demonstrations.load(write(tmp_path / "demos.hdf5"), as_dict=True, obs_keys=KEYS)
    turned_space = spaces.Dict(
        {"camera": spaces.Box(0, 255, (3, H, W), np.uint8), "state": Camera.observation_space["state"]}
    )
    once = with_channels_first(demonstrations, turned_space)
    assert once.observations["camera"].shape == (4, 3, H, W)
    assert np.shares_memory(once.observations["camera"], demonstrations.observations["camera"])
    twice = with_channels_first(once, turned_space)
    np.testing.assert_array_equal(once.observations["camera"], twice.observations["camera"])
    flat = spaces.Box(-1, 1, (2,), np.float32)
    assert with_channels_first(demonstrations, flat) is demonstrations


def test_pictures_of_another_size_are_refused(tmp_path):
    demonstrations = Demonstrations.load(write(tmp_path / "demos.hdf5"), as_dict=True, obs_keys=KEYS)
    env = gym.wrappers.TransformObservation(
        Camera(),
        lambda obs: obs | {"camera": np.zeros((48, 48, 3), np.uint8)},
        spaces.Dict({**Camera.observation_space.spaces, "camera": spaces.Box(0, 255, (48, 48, 3), np.uint8)}),
    )
    with pytest.raises(ValueError, match=r"`demonstrations` have observations of shape .*48, 48"):
        model(env, demonstrations)


@pytest.mark.parametrize("where", ["observations", "next_observations"])
def test_images_of_floats_are_refused(tmp_path, where):
    demonstrations = Demonstrations.load(write(tmp_path / "demos.hdf5"), as_dict=True, obs_keys=KEYS)
    shown = getattr(demonstrations, where)
    floats = {**shown, "camera": shown["camera"].astype(np.float32) / 255}
    told = r"images of float32 in `{}`, but the environment's are uint8.* Multiply by 255 and cast to uint8"
    with pytest.raises(ValueError, match=told.format(rf"{where}\['camera'\]")):
        model(Camera(), dataclasses.replace(demonstrations, **{where: floats}))
    images = {name: getattr(demonstrations, name)["camera"] for name in ("observations", "next_observations")}
    camera_alone = gym.wrappers.TransformObservation(
        Camera(), lambda obs: obs["camera"], Camera.observation_space["camera"]
    )
    alone = dataclasses.replace(demonstrations, **{**images, where: floats["camera"]})
    with pytest.raises(ValueError, match=told.format(where)):
        OfflineToOnlineSAC(camera_alone, demonstrations=alone, buffer_size=100, device="cpu")
