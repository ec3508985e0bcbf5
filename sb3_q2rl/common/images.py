"""Images in observations: which they are, and the random shifts without which critics learn single pixels by heart."""

from __future__ import annotations

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space


def image_keys(space: spaces.Space) -> list[str]:
    """
    :param space: an observation space
    :return: the keys of a Dict that hold images; ``["obs"]`` for a space that is an image itself
    """
    parts = space.spaces if isinstance(space, spaces.Dict) else {"obs": space}
    return [key for key, part in parts.items() if isinstance(part, spaces.Box) and is_image_space(part)]


def random_shift(images: th.Tensor, pad: int) -> th.Tensor:
    """
    Move each image by up to ``pad`` pixels in both directions; what enters repeats the edge (DrQ,
    https://arxiv.org/abs/2004.13649, section 3.1).

    :param images: (n, channels, height, width), any dtype
    :param pad: pixels
    :return: the same shape and dtype
    """
    n, _, height, width = images.shape
    rows = th.arange(-pad, height + pad, device=images.device).clamp(0, height - 1)
    columns = th.arange(-pad, width + pad, device=images.device).clamp(0, width - 1)
    padded = images.index_select(2, rows).index_select(3, columns)
    # A view of all crops, then a copy of one for each image: pixels are copied by the line, not one by one
    crops = padded.unfold(2, height, 1).unfold(3, width, 1)
    down, right = th.randint(0, 2 * pad + 1, (2, n), device=images.device)
    return crops[th.arange(n, device=images.device), :, down, right]


def shift_observation(obs: Any, keys: list[str], pad: int) -> Any:
    """
    :param obs: images, or a dict of observations
    :param keys: which entries of the dict are images, see :func:`image_keys`
    :param pad: pixels
    """
    if isinstance(obs, dict):
        return {key: random_shift(value, pad) if key in keys else value for key, value in obs.items()}
    return random_shift(obs, pad)
