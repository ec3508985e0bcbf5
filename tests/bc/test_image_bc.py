"""Our trainable policy with images: what it sees, how it is stored, and that it learns what only an image tells."""

import numpy as np
import pytest
import torch as th

from sb3_q2rl.bc import BCPolicyAdapter, GaussianBCPolicy, train_bc
from sb3_q2rl.bc.images import channels_first
from sb3_q2rl.data import Demonstrations

SIZE = 16
START = np.array([True])


def make_policy():
    th.manual_seed(0)
    policy = GaussianBCPolicy(2, 1, net_arch=(16,), obs_keys=("state",), image_shapes={"camera": (3, SIZE, SIZE)})
    return policy.eval().requires_grad_(False)


def pictures(n, height=SIZE):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, height, SIZE, 3), dtype=np.uint8)


def test_pictures_may_come_as_environments_or_as_sb3_have_them():
    policy, images, state = make_policy(), th.as_tensor(pictures(4)), th.randn(4, 2)
    as_environment = policy.distribution({"camera": images.float(), "state": state}).mean
    as_sb3 = policy.distribution({"camera": images.movedim(-1, 1), "state": state}).mean
    th.testing.assert_close(as_environment, as_sb3)
    other = policy.distribution({"camera": 255 - images, "state": state}).mean
    assert (other - as_sb3).abs().max() > 1e-3  # it looks at them


def test_it_is_stored_and_opened_with_its_cameras(tmp_path):
    policy = make_policy()
    opened = BCPolicyAdapter.from_checkpoint(policy.save(tmp_path / "image.pt"))
    obs = {"camera": th.as_tensor(pictures(3)), "state": th.randn(3, 2)}
    ours, theirs = (p.step(obs, None, START, deterministic=True) for p in (policy, opened))
    th.testing.assert_close(ours.actions, theirs.actions, rtol=0, atol=0)
    th.testing.assert_close(ours.log_prob, theirs.log_prob, rtol=0, atol=0)


def test_a_missing_camera_and_another_size_are_told():
    policy, state = make_policy(), th.zeros(2, 2)
    with pytest.raises(ValueError, match=r"images \['camera'\], which the observation lacks; it has \['state'\]"):
        policy.distribution({"state": state})
    with pytest.raises(ValueError, match=r"lacks; which is one array of \(2, 2\)"):
        policy.distribution(state)
    with pytest.raises(ValueError, match=r"\(3, 16, 16\), but a batch of shape \(2, 20, 16, 3\) came"):
        policy.distribution({"camera": th.as_tensor(pictures(2, height=20)), "state": state})


def test_channels_move_as_numpy_moves_them():
    images = pictures(2)
    np.testing.assert_array_equal(channels_first(th.as_tensor(images), (3, SIZE, SIZE)), np.moveaxis(images, 3, 1))


def make_demonstrations(n=300, keys=("camera", "state")):
    """The action tells which half of the picture is bright; the state tells nothing."""
    rng = np.random.default_rng(1)
    left = rng.random(n) < 0.5
    images = np.zeros((n, SIZE, SIZE, 3), np.uint8)
    images[left, :, : SIZE // 2] = 200
    images[~left, :, SIZE // 2 :] = 200
    actions = np.where(left, -0.5, 0.5)[:, None] + 0.1 * rng.standard_normal((n, 1))
    observations = {"camera": images, "state": rng.standard_normal((n, 2)).astype(np.float32)}
    truncated = np.arange(n) % 30 == 29
    observations = {key: observations[key] for key in keys}
    return Demonstrations(
        observations=observations,
        next_observations=observations,
        actions=actions.astype(np.float32).clip(-1, 1),
        rewards=np.zeros(n, np.float32),
        terminated=np.zeros(n, bool),
        truncated=truncated,
        episode_ends=np.flatnonzero(truncated) + 1,
        source="scripted",
    )


def test_it_learns_what_only_the_image_tells():
    demonstrations = make_demonstrations()
    policy = train_bc(demonstrations, net_arch=(16,), n_epochs=15, batch_size=30, eval_interval=5, progress_bar=False)
    assert policy.obs_keys == ("state",)
    assert policy.image_shapes == {"camera": (3, SIZE, SIZE)}
    obs = {key: th.as_tensor(values) for key, values in demonstrations.observations.items()}
    actions = policy.step(obs, None, START, deterministic=True).actions.numpy()
    assert np.abs(actions - np.sign(demonstrations.actions) * 0.5).mean() < 0.1


def test_images_alone_are_refused():
    with pytest.raises(ValueError, match=r"show only images \(camera\).*`obs_keys`"):
        train_bc(make_demonstrations(keys=("camera",)), progress_bar=False)
