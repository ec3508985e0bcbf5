"""From a camera's picture to the one that a policy sees."""

from __future__ import annotations

import functools

import numpy as np

IMAGE_SIZE = 84


def centre_square(image: np.ndarray) -> np.ndarray:
    """
    :param image: (height, width, channels)
    :return: the largest square about its centre, a view
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


@functools.lru_cache(maxsize=8)
def _area_weights(old: int, new: int) -> np.ndarray:
    """(new, old): how much of each old pixel lies in each new one. Rows add up to 1."""
    edges = np.linspace(0, old, new + 1)
    low = np.maximum(edges[:-1, None], np.arange(old))
    high = np.minimum(edges[1:, None], np.arange(1, old + 1))
    return (np.maximum(high - low, 0) * new / old).astype(np.float32)


def resize_by_area(image: np.ndarray, size: int = IMAGE_SIZE) -> np.ndarray:
    """
    Each new pixel is the mean of what it covers, so that nothing thin disappears or flickers.

    :param image: (n, n, channels) uint8, n >= size
    :param size: of the result
    :return: (size, size, channels) uint8
    :raises ValueError: the image is smaller than that
    """
    if min(image.shape[:2]) < size:
        raise ValueError(f"`image` is {image.shape[1]}x{image.shape[0]}; it must be at least {size}x{size}")
    rows, columns = (_area_weights(old, size) for old in image.shape[:2])
    means = np.einsum("ij,jkc,lk->ilc", rows, image.astype(np.float32), columns, optimize=True)
    return np.round(means).astype(np.uint8)


def to_policy_image(image: np.ndarray) -> np.ndarray:
    """
    :param image: (height, width, 3) uint8 of a camera
    :return: (84, 84, 3) uint8
    """
    return resize_by_area(centre_square(image))
