"""Images: kept once, shifted, encoded."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_q2rl import Demonstrations
from sb3_q2rl.common import buffers
from sb3_q2rl.common.buffers import BCDictReplayBuffer, BCReplayBuffer
from sb3_q2rl.common.cameras import CamerasExtractor
from sb3_q2rl.common.frames import NextFrames
from sb3_q2rl.common.images import image_keys, random_shift
from sb3_q2rl.common.policies import EnsembleSACMultiInputPolicy

CAMERA = spaces.Box(0, 255, (3, 40, 48), np.uint8)
SPACE = spaces.Dict({"camera": CAMERA, "state": spaces.Box(-1, 1, (2,), np.float32)})
ACT = spaces.Box(-1, 1, (1,), np.float32)


def frame(number: int, env: int) -> np.ndarray:
    """An image that tells which it is; after an episode's end comes a number above 100."""
    image = np.zeros(CAMERA.shape, np.uint8)
    image[0], image[1] = number % 256, env
    return image


def record(buffer: Any, n_rows: int, lengths: list[int], interrupt_at: int | None = None) -> dict[tuple[int, int], int]:
    """:return: (step, env) -> number of the frame that followed"""
    followed = {}
    for t in range(n_rows):
        done = np.array([(t + 1) % length == 0 for length in lengths])
        cut = t + 1 == interrupt_at
        after = [t + 101 if done[e] or cut else t + 1 for e in range(len(lengths))]
        obs = np.stack([frame(t, e) for e in range(len(lengths))])
        next_obs = np.stack([frame(number, e) for e, number in enumerate(after)])
        if isinstance(buffer, BCDictReplayBuffer):
            state = np.full((len(lengths), 2), t, np.float32)
            obs, next_obs = {"camera": obs, "state": state}, {"camera": next_obs, "state": state + 1}
        buffer.add(obs, next_obs, np.zeros((len(lengths), 1)), np.zeros(len(lengths)), done, [{} for _ in lengths])
        followed.update({(t, e): number for e, number in enumerate(after)})
        if cut:
            buffer.forget_open_episodes()
    return followed


@pytest.mark.parametrize("kind", ["image", "dict"])
@pytest.mark.parametrize(("n_rows", "capacity"), [(20, 100), (70, 30), (61, 30)])
def test_next_images_are_right_though_stored_once(monkeypatch, kind, n_rows, capacity):
    monkeypatch.setattr(buffers, "INITIAL_ROWS", 8)
    buffer: Any
    if kind == "image":
        buffer = BCReplayBuffer(capacity * 2, CAMERA, ACT, n_envs=2)
        assert isinstance(buffer.next_observations, NextFrames)
    else:
        buffer = BCDictReplayBuffer(capacity * 2, SPACE, ACT, n_envs=2)
        assert isinstance(buffer.next_observations["camera"], NextFrames)
    followed = record(buffer, n_rows, [4, 7], interrupt_at=17)
    batch = buffer.sample(400)
    images, next_images = batch.observations, batch.next_observations
    if kind == "dict":
        images, next_images = images["camera"], next_images["camera"]
        th.testing.assert_close(batch.next_observations["state"], batch.observations["state"] + 1)
    assert next_images.dtype == th.uint8
    steps = set()
    for image, following in zip(images, next_images, strict=True):
        place = (int(image[0, 0, 0]), int(image[1, 0, 0]))
        assert int(following[0, 0, 0]) == followed[place]
        assert int(following[1, 0, 0]) == place[1]
        steps.add(place[0])
    assert steps == set(range(max(0, n_rows - capacity), n_rows))  # the newest and the oldest, too


def test_kept_frames_leave_with_their_row(monkeypatch):
    monkeypatch.setattr(buffers, "INITIAL_ROWS", 8)
    buffer = BCReplayBuffer(30, CAMERA, ACT)
    record(buffer, 200, [3])
    assert len(buffer.next_observations.kept) <= 11


def test_demonstrations_with_images():
    n, ends = 9, [3, 8]
    images = np.stack([frame(t, 0) for t in range(n)])
    following = np.stack([frame(t + 101 if t in ends else t + 1, 0) for t in range(n)])
    state = np.zeros((n, 2), np.float32)
    done = np.isin(np.arange(n), ends)
    demonstrations = Demonstrations(
        observations={"camera": images, "state": state},
        next_observations={"camera": following, "state": state},
        actions=np.zeros((n, 1), np.float32),
        rewards=np.zeros(n, np.float32),
        terminated=done,
        truncated=np.zeros(n, bool),
        episode_ends=np.array(ends) + 1,
        source="scripted",
    )
    buffer = BCDictReplayBuffer(100, SPACE, ACT, n_envs=2)
    buffer.add_demonstrations(demonstrations)
    batch = buffer.sample(200)
    for image, after in zip(batch.observations["camera"], batch.next_observations["camera"], strict=True):
        t = int(image[0, 0, 0])
        assert int(after[0, 0, 0]) == following[t][0, 0, 0]


def test_two_cameras_of_100k_transitions_take_less_than_four_and_a_half_gigabytes():
    camera = spaces.Box(0, 255, (3, 84, 84), np.uint8)
    space = spaces.Dict({"agentview": camera, "wrist": camera, "state": spaces.Box(-1, 1, (9,), np.float32)})
    buffer = BCDictReplayBuffer(100_000, space, spaces.Box(-1, 1, (7,), np.float32))
    assert 100_000 * 2 * 3 * 84 * 84 < buffer.bytes_when_full() < 4.5e9


def test_random_shift_moves_whole_images_and_repeats_the_edge():
    th.manual_seed(0)
    image = th.arange(5 * 7, dtype=th.uint8).view(1, 1, 5, 7).expand(300, 2, 5, 7)
    shifted = random_shift(image, 2)
    assert shifted.shape == image.shape
    assert shifted.dtype == th.uint8
    padded = th.nn.functional.pad(image[:1].float(), (2, 2, 2, 2), mode="replicate")[0]
    crops = [padded[:, i : i + 5, j : j + 7] for i in range(5) for j in range(5)]
    found = [next(k for k, crop in enumerate(crops) if th.equal(crop, one.float())) for one in shifted]
    counts = np.bincount(found, minlength=25)
    assert (counts > 0).all(), "every shift comes"
    assert counts.max() < 35, "none comes too often"  # 12 expected


def test_every_camera_has_an_encoder_and_vectors_pass():
    th.manual_seed(0)
    two = spaces.Dict({"b": CAMERA, "a": spaces.Box(-1, 1, (2,), np.float32), "c": CAMERA})
    assert image_keys(two) == ["b", "c"]
    extractor = CamerasExtractor(two, channels=(8, 8), bottleneck=16)
    obs = {"a": th.randn(5, 2), "b": th.rand(5, 3, 40, 48), "c": th.rand(5, 3, 40, 48)}
    features = extractor(obs)
    assert features.shape == (5, extractor.features_dim) == (5, 34)
    th.testing.assert_close(features[:, 32:], obs["a"])
    changed = extractor({**obs, "c": th.rand(5, 3, 40, 48)})
    th.testing.assert_close(changed[:, :16], features[:, :16])
    assert (changed[:, 16:32] - features[:, 16:32]).abs().max() > 0.01


def test_what_is_encoded_once_counts_as_the_observation():
    """Actor and critics say the same, the critics' gradient reaches the encoder, and the actor's does not."""
    policy = EnsembleSACMultiInputPolicy(SPACE, ACT, lambda _: 1e-3, net_arch=[16], n_critics=3)
    obs = {"camera": th.randint(0, 256, (5, *CAMERA.shape), dtype=th.uint8), "state": th.randn(5, 2)}
    actions = th.rand(5, 1)
    seen = policy.critic.encode(obs)
    assert th.equal(policy.critic(seen, actions), policy.critic(obs, actions))
    assert th.equal(policy.critic.lowest(seen, actions), policy.critic.lowest(obs, actions))
    assert th.equal(policy.actor(seen, deterministic=True), policy.actor(obs, deterministic=True))
    encoder = next(policy.critic.features_extractor.parameters())
    policy.actor(seen, deterministic=True).sum().backward()
    assert encoder.grad is None
    policy.critic(seen, actions).sum().backward()
    assert encoder.grad.abs().sum() > 0


def test_told_to_the_actor_shapes_the_encoder_too():
    policy = EnsembleSACMultiInputPolicy(SPACE, ACT, lambda _: 1e-3, net_arch=[16], n_critics=3)
    obs = {"camera": th.randint(0, 256, (5, *CAMERA.shape), dtype=th.uint8), "state": th.randn(5, 2)}
    seen = dataclasses.replace(policy.critic.encode(obs), actor_shapes_encoder=True)
    policy.actor(seen, deterministic=True).sum().backward()
    assert next(policy.critic.features_extractor.parameters()).grad.abs().sum() > 0
