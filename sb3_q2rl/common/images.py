"""Images in observations: which they are, and random shifts, without which critics learn single pixels by heart."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_q2rl.bc.images import random_shift
from sb3_q2rl.data import Demonstrations


def image_keys(space: spaces.Space) -> list[str]:
    """
    :param space: an observation space
    :return: the keys of a Dict that hold images; ``["obs"]`` for a space that is an image itself
    """
    parts = space.spaces if isinstance(space, spaces.Dict) else {"obs": space}
    return [key for key, part in parts.items() if isinstance(part, spaces.Box) and is_image_space(part)]


def shift_observation(obs: Any, keys: list[str], pad: int) -> Any:
    """
    :param obs: images, or a dict of observations
    :param keys: which entries of the dict are images, see :func:`image_keys`
    :param pad: pixels
    """
    if isinstance(obs, dict):
        return {key: random_shift(value, pad) if key in keys else value for key, value in obs.items()}
    return random_shift(obs, pad)


def with_channels_first(demonstrations: Demonstrations, space: spaces.Space) -> Demonstrations:
    """
    Files keep images as pictures; SB3 shows them to its networks, and keeps them in its buffers, channels first.

    :param demonstrations: images (n, height, width, channels), or as the space has them already
    :param space: the observation space of a model
    :return: the same where nothing is to be done; else its images are views, not copies
    """
    parts = space.spaces if isinstance(space, spaces.Dict) else {"obs": space}

    def turned(key: str, values: np.ndarray) -> np.ndarray:
        wanted = parts[key].shape if key in parts else None
        if key not in image_keys(space) or values.ndim != 4 or values.shape[1:] == wanted:
            return values
        channels_first = np.moveaxis(values, -1, 1)
        return channels_first if channels_first.shape[1:] == wanted else values

    def all_turned(observations: Any) -> Any:
        if isinstance(observations, dict):
            return {key: turned(key, values) for key, values in observations.items()}
        return turned("obs", observations)

    if not image_keys(space):
        return demonstrations
    return dataclasses.replace(
        demonstrations,
        observations=all_turned(demonstrations.observations),
        next_observations=all_turned(demonstrations.next_observations),
    )
