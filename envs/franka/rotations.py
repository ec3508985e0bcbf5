"""Orientations of a tool that points down more or less: tilt and yaw, and quaternions (x, y, z, w) in batches."""

from __future__ import annotations

import numpy as np

# The tool points down, its x forward
TOOL_DOWN_XYZW = (1.0, 0.0, 0.0, 0.0)


# Row 4 i + j: what a_i b_j adds to each entry of the product a b of two quaternions (x, y, z, w)
_PRODUCTS = np.zeros((16, 4))
for _i, _j, _k, _sign in (
    *((3, 0, 0, 1), (0, 3, 0, 1), (1, 2, 0, 1), (2, 1, 0, -1)),
    *((3, 1, 1, 1), (1, 3, 1, 1), (2, 0, 1, 1), (0, 2, 1, -1)),
    *((3, 2, 2, 1), (2, 3, 2, 1), (0, 1, 2, 1), (1, 0, 2, -1)),
    *((3, 3, 3, 1), (0, 0, 3, -1), (1, 1, 3, -1), (2, 2, 3, -1)),
):
    _PRODUCTS[4 * _i + _j, _k] = _sign
# Below it a sine is its angle
_TINY = 1e-30
_CONJUGATE = np.array([-1.0, -1.0, -1.0, 1.0])


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    :param a: (..., 4) xyzw
    :param b: (..., 4)
    :return: (..., 4) first b, then a
    """
    outer = np.asarray(a)[..., :, None] * np.asarray(b)[..., None, :]
    return outer.reshape(*outer.shape[:-2], 16) @ _PRODUCTS


def length(vector: np.ndarray) -> np.ndarray:
    """
    :param vector: (..., n)
    :return: (..., 1) Euclidean. np.linalg.norm takes several times as long for so few numbers
    """
    return np.sqrt((vector * vector).sum(axis=-1, keepdims=True))


def inverse(quaternion: np.ndarray) -> np.ndarray:
    """
    :param quaternion: (..., 4) xyzw, unit length
    """
    return np.asarray(quaternion) * _CONJUGATE


def from_rotation_vector(vector: np.ndarray) -> np.ndarray:
    """
    :param vector: (..., 3) axis times angle in rad
    :return: (..., 4) xyzw
    """
    half = 0.5 * np.asarray(vector)
    angle = length(half)
    return np.concatenate([half * (np.sin(angle) / np.maximum(angle, _TINY)), np.cos(angle)], axis=-1)


def to_rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """
    :param quaternion: (..., 4) xyzw; either sign
    :return: (..., 3) axis times angle, which is at most pi
    """
    quaternion = np.asarray(quaternion)
    w = quaternion[..., 3:]
    vector = np.copysign(1.0, w) * quaternion[..., :3]
    sine = length(vector)
    return vector * (2.0 * np.arctan2(sine, np.abs(w)) / np.maximum(sine, _TINY))


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    :param a: (..., 4) xyzw
    :param b: (..., 4)
    :return: (...) the angle of the shortest rotation from one to the other, in [0, pi]
    """
    return length(to_rotation_vector(product(a, inverse(b))))[..., 0]


def to_tilt_and_yaw(quaternion: np.ndarray, home: np.ndarray) -> np.ndarray:
    """
    The rotation away from ``home``, cut in two: first a turn about the vertical (yaw), then one about a horizontal axis
    (tilt). Moving these three numbers by d rotates the tool by at most |d tilt| + |d yaw|: the exponential map of
    rotations does not stretch.

    :param quaternion: (..., 4) xyzw; either sign
    :param home: (4,) a tool that points down
    :return: (..., 3) tilt as a rotation vector's x and y, whose length is the angle between the tool's z and straight
        down, and yaw in [-pi, pi]; rad
    """
    away = product(quaternion, inverse(home))
    z, w = away[..., 2:3], away[..., 3:]
    # Of the two signs of a quaternion the one with w >= 0. A tool that points straight up has no yaw: call it 0
    has_yaw = z * z + w * w > 1e-24
    half_yaw = np.arctan2(np.copysign(1.0, w) * z, np.where(has_yaw, np.abs(w), 1.0))
    zero = np.zeros_like(half_yaw)
    turn_back = np.concatenate([zero, zero, -np.sin(half_yaw), np.cos(half_yaw)], axis=-1)
    tilt = to_rotation_vector(product(away, turn_back))
    return np.concatenate([tilt[..., :2], 2.0 * half_yaw], axis=-1)


def from_tilt_and_yaw(tilt_and_yaw: np.ndarray, home: np.ndarray) -> np.ndarray:
    """
    :param tilt_and_yaw: (..., 3) as :func:`to_tilt_and_yaw` gives them
    :param home: (4,) a tool that points down
    :return: (..., 4) xyzw
    """
    tilt_and_yaw = np.asarray(tilt_and_yaw)
    tilt = from_rotation_vector(tilt_and_yaw * np.array([1.0, 1.0, 0.0]))
    turn = from_rotation_vector(tilt_and_yaw * np.array([0.0, 0.0, 1.0]))
    return product(product(tilt, turn), home)
