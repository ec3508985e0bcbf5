"""Orientations of a tool that points down more or less: tilt and yaw, and quaternions (x, y, z, w) in batches."""

from __future__ import annotations

import numpy as np

# The tool points down, its x forward
TOOL_DOWN_XYZW = (1.0, 0.0, 0.0, 0.0)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    :param a: (..., 4) xyzw
    :param b: (..., 4)
    :return: (..., 4) first b, then a
    """
    ax, ay, az, aw = np.moveaxis(np.asarray(a, dtype=np.float64), -1, 0)
    bx, by, bz, bw = np.moveaxis(np.asarray(b, dtype=np.float64), -1, 0)
    return np.stack(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ],
        axis=-1,
    )


def inverse(quaternion: np.ndarray) -> np.ndarray:
    """
    :param quaternion: (..., 4) xyzw, unit length
    """
    return np.asarray(quaternion, dtype=np.float64) * np.array([-1.0, -1.0, -1.0, 1.0])


def from_rotation_vector(vector: np.ndarray) -> np.ndarray:
    """
    :param vector: (..., 3) axis times angle in rad
    :return: (..., 4) xyzw
    """
    half = 0.5 * np.asarray(vector, dtype=np.float64)
    angle = np.linalg.norm(half, axis=-1, keepdims=True)
    # np.sinc(x) is sin(pi x) / (pi x), and 1 at 0
    return np.concatenate([half * np.sinc(angle / np.pi), np.cos(angle)], axis=-1)


def to_rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """
    :param quaternion: (..., 4) xyzw; either sign
    :return: (..., 3) axis times angle, which is at most pi
    """
    quaternion = np.asarray(quaternion, dtype=np.float64)
    quaternion = np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    sine = np.linalg.norm(quaternion[..., :3], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, quaternion[..., 3:])
    return quaternion[..., :3] * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 2.0)


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    :param a: (..., 4) xyzw
    :param b: (..., 4)
    :return: (...) the angle of the shortest rotation from one to the other, in [0, pi]
    """
    return np.linalg.norm(to_rotation_vector(product(a, inverse(b))), axis=-1)


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
    away = np.where(away[..., 3:] < 0, -away, away)
    z, w = away[..., 2], away[..., 3]
    # A tool that points straight up has no yaw: call it 0
    yaw = 2.0 * np.arctan2(z, np.where(np.hypot(z, w) > 1e-12, w, 1.0))
    zero = np.zeros_like(yaw)
    turn = np.stack([zero, zero, np.sin(yaw / 2), np.cos(yaw / 2)], axis=-1)
    tilt = to_rotation_vector(product(away, inverse(turn)))
    return np.concatenate([tilt[..., :2], yaw[..., None]], axis=-1)


def from_tilt_and_yaw(tilt_and_yaw: np.ndarray, home: np.ndarray) -> np.ndarray:
    """
    :param tilt_and_yaw: (..., 3) as :func:`to_tilt_and_yaw` gives them
    :param home: (4,) a tool that points down
    :return: (..., 4) xyzw
    """
    tilt_and_yaw = np.asarray(tilt_and_yaw, dtype=np.float64)
    zero = np.zeros_like(tilt_and_yaw[..., :1])
    tilt = from_rotation_vector(np.concatenate([tilt_and_yaw[..., :2], zero], axis=-1))
    turn = from_rotation_vector(np.concatenate([zero, zero, tilt_and_yaw[..., 2:]], axis=-1))
    return product(product(tilt, turn), home)
