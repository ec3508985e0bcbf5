"""An environment seen through a BC policy's encoders: the same policy, the same actions, and an algorithm on top."""

import dataclasses

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from worlds import CameraReachEnv, ReachEnv, camera_gaussian, gaussian, one_demonstration, small_model

from sb3_q2rl import QGatedSAC
from sb3_q2rl.bc import GaussianBCPolicy
from sb3_q2rl.bc.features import BCFeatures, as_features
from sb3_q2rl.common.evaluation import evaluate


def test_the_policy_acts_on_features_as_on_images():
    policy = camera_gaussian()
    plain, seen = CameraReachEnv(), BCFeatures(CameraReachEnv(), policy)
    images, features = plain.reset(seed=3)[0], seen.reset(seed=3)[0]
    assert features["camera"].shape == (64,)
    np.testing.assert_array_equal(features["state"], images["state"])
    assert seen.observation_space.contains(features)
    given, expected = (
        policy.distribution({key: th.as_tensor(value)[None] for key, value in obs.items()})
        for obs in (features, images)
    )
    th.testing.assert_close(given.mean, expected.mean, rtol=0, atol=0)
    th.testing.assert_close(given.stddev, expected.stddev, rtol=0, atol=0)


@pytest.mark.usefixtures("quick_fit")
def test_the_gate_learns_from_features_and_needs_no_image(tmp_path):
    path = camera_gaussian().save(tmp_path / "image.pt")
    wrapped = {"wrapper_class": BCFeatures, "wrapper_kwargs": {"bc_policy": path}}
    env = make_vec_env(CameraReachEnv, n_envs=2, **wrapped)
    model = small_model(env, str(path))
    model.learn(200)
    assert model.has_started
    assert model.replay_buffer.observations["camera"].dtype == np.float32
    # Standardised vectors, 64 of the camera and 2 beside them
    assert model.critic.features_extractor.features_dim == 66
    model.save(tmp_path / "model.zip")
    loaded = QGatedSAC.load(tmp_path / "model.zip", env=env)
    obs = env.reset()
    actions = [played.predict(obs, deterministic=True)[0] for played in (model, loaded)]
    np.testing.assert_array_equal(*actions)
    images = make_vec_env(CameraReachEnv, n_envs=2, seed=4).reset()
    features = as_features(images, loaded._bc, env.observation_space)
    assert features["camera"].shape == (2, 64)
    of_images, of_features = (loaded.predict(seen, deterministic=True)[0] for seen in (images, features))
    np.testing.assert_array_equal(of_images, of_features)
    one = {key: value[0] for key, value in images.items()}
    np.testing.assert_allclose(loaded.predict(one, deterministic=True)[0], of_images[0], atol=1e-6)
    assert evaluate(loaded, CameraReachEnv(), 2).n_episodes == 2  # as `robot evaluate` and `pictures` play it


@pytest.mark.parametrize(
    ("policy", "env", "message"),
    [
        (gaussian, CameraReachEnv, "GaussianBCPolicy without encoders of images"),
        (camera_gaussian, ReachEnv, r"reads the images \['camera'\], which the environment's observations lack"),
    ],
)
def test_what_does_not_fit_is_told(policy, env, message):
    with pytest.raises(ValueError, match=message):
        BCFeatures(env(), policy())


def test_another_size_of_image_is_told():
    policy = GaussianBCPolicy(2, 2, net_arch=(8,), obs_keys=["state"], image_shapes={"camera": (3, 20, 20)})
    with pytest.raises(ValueError, match=r"\(3, 20, 20\), but a batch of shape \(1, 3, 36, 36\) came"):
        BCFeatures(CameraReachEnv(), policy)


def test_demonstrations_are_seen_as_the_environment_is():
    policy, n = camera_gaussian(), 9
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n + 1, 3, 36, 36), dtype=np.uint8)
    plain = one_demonstration(n)
    pictured = dataclasses.replace(
        plain,
        observations={"camera": images[:-1], "state": plain.observations},
        next_observations={"camera": images[1:], "state": plain.next_observations},
    )
    model = small_model(BCFeatures(CameraReachEnv(), policy), policy, demonstrations=pictured)
    expected = policy.cameras["camera"](th.as_tensor(images).float() / 255 - 0.5).numpy()
    np.testing.assert_allclose(model.demonstrations.observations["camera"], expected[:-1], atol=1e-5)
    np.testing.assert_allclose(model.demonstrations.next_observations["camera"], expected[1:], atol=1e-5)
    np.testing.assert_array_equal(model.demonstrations.observations["state"], plain.observations)
    from_images = small_model(CameraReachEnv(), policy, demonstrations=pictured)
    assert np.shares_memory(from_images.demonstrations.observations["camera"], images)
