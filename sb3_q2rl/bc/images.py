"""What networks do with images, wherever they are: a small convolutional encoder, and random shifts in training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch as th
from torch import nn


class CameraEncoder(nn.Sequential):
    """
    3x3 convolutions that each halve the image, then a normalised bottleneck.

    :param shape: (channels, height, width) of the image
    :param channels: Of the convolutions
    :param bottleneck: Size of the output
    """

    def __init__(self, shape: Sequence[int], channels: Sequence[int], bottleneck: int) -> None:
        widths = [shape[0], *channels]
        convolutions = [
            layer
            for i, o in itertools.pairwise(widths)
            for layer in (nn.Conv2d(i, o, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        ]
        height, width = shape[1:]
        for _ in channels:
            height, width = (height + 1) // 2, (width + 1) // 2
        super().__init__(
            *convolutions,
            nn.Flatten(),
            nn.Linear(channels[-1] * height * width, bottleneck),
            nn.LayerNorm(bottleneck),
            nn.Tanh(),
        )
        # Convolutions of pixels that hold their channels side by side are faster; the outputs are the same
        self.to(memory_format=th.channels_last)  # type: ignore[call-overload]


def random_shift(images: th.Tensor, pad: int) -> th.Tensor:
    """
    Move each image by up to ``pad`` pixels in both directions; what enters repeats the edge (DrQ,
    https://arxiv.org/abs/2004.13649, section 3.1).

    :param images: (n, channels, height, width), any dtype
    :param pad: pixels
    :return: the same shape and dtype
    """
    n, _, height, width = images.shape
    for axis in (2, 3):  # torch's own padding repeats edges of floating-point images only
        border = [pad if i == axis else size for i, size in enumerate(images.shape)]
        first, last = images.narrow(axis, 0, 1).expand(border), images.narrow(axis, -1, 1).expand(border)
        images = th.cat([first, images, last], dim=axis)
    # A view of all crops, then a copy of one for each image: pixels are copied by the line, not one by one
    crops = images.unfold(2, height, 1).unfold(3, width, 1)
    down, right = th.randint(0, 2 * pad + 1, (2, n), device=images.device)
    return crops[th.arange(n, device=images.device), :, down, right]


def channels_first(images: th.Tensor, shape: Sequence[int]) -> th.Tensor:
    """
    :param images: (n, height, width, channels) as environments and files have them, or (n, channels, height, width) as
        Stable-Baselines3 hands them on
    :param shape: (channels, height, width) that is wanted
    :return: (n, channels, height, width), a view
    :raises ValueError: neither of the two
    """
    if tuple(images.shape[1:]) == tuple(shape):
        return images
    if images.ndim == 4 and tuple(images.movedim(-1, 1).shape[1:]) == tuple(shape):
        return images.movedim(-1, 1)
    raise ValueError(
        f"The BC policy was trained on images of (channels, height, width) = {tuple(shape)}, but a batch of shape "
        f"{tuple(images.shape)} came. Use the camera's size of its training."
    )
