"""
Inverse kinematics of one step: from an error of the hand's pose to joint displacements, by damped least squares.

Rotations are (3, 3) matrices. Errors and Jacobians stack position (m) over rotation (rad, axis times angle), both in
world coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def site_jacobian(data: Any, site: int, n_joints: int) -> np.ndarray:
    """
    The geometric Jacobian of a site for the first joints of a MuJoCo model, all of them hinges of the arm that carries
    the site: column i is [axis_i x (site - anchor_i); axis_i].

    :param data: MuJoCo's data, after a step
    :param site: index of the site
    :param n_joints: how many joints the arm has
    :return: (6, n_joints)
    """
    axes = data.xaxis[:n_joints]
    levers = data.site_xpos[site] - data.xanchor[:n_joints]
    return np.concatenate([np.cross(axes, levers), axes], axis=1).T


def look_along(approach: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """
    The orientation of a gripper whose third axis points out of the palm and whose second axis joins the fingers.

    :param approach: (3,) where the fingers point to, of any length
    :param opening: (3,) where the second axis points to as far as it is perpendicular to ``approach``
    :return: (3, 3), columns: first, second and third axis in world coordinates
    """
    third = np.asarray(approach) / np.linalg.norm(approach)
    second = opening - third * np.dot(opening, third)
    second = second / np.linalg.norm(second)
    return np.stack([np.cross(second, third), second, third], axis=1)


def shortened(vector: np.ndarray, longest: float) -> np.ndarray:
    """:return: ``vector`` itself, or a parallel one of length ``longest`` where it is longer"""
    return vector * min(1.0, longest / max(float(np.linalg.norm(vector)), 1e-9))


def damped_least_squares(
    jacobian: np.ndarray, error: np.ndarray, damping: float, weights: np.ndarray, posture: np.ndarray
) -> np.ndarray:
    """
    Joint displacements that take an error away: dq = J# e + (1 - J# J) dq_posture with
    J# = J^T W (W J J^T W + damping^2)^-1 W, which stays bounded where the arm is singular.

    :param jacobian: (k, n)
    :param error: (k,) target - present
    :param damping: in units of the weighted Jacobian's singular values
    :param weights: (k,) how much each component of the error matters
    :param posture: (n,) displacements wanted where they don't disturb the task, rad
    :return: (n,) displacements, rad
    """
    weighted = weights[:, None] * jacobian
    gram = weighted @ weighted.T + damping**2 * np.eye(len(error))
    return posture + weighted.T @ np.linalg.solve(gram, weights * error - weighted @ posture)


def within_limits(
    solve: Callable[[np.ndarray], np.ndarray], positions: np.ndarray, lowest: np.ndarray, highest: np.ndarray
) -> np.ndarray:
    """
    Keep joints within their limits: one that would leave them is held, and the others solve the task without it.

    :param solve: displacements (n,) that the joints marked in a mask (n,) of bool can contribute, 0 for the others
    :param positions: (n,) now, rad
    :param lowest: (n,) rad
    :param highest: (n,) rad
    :return: (n,) displacements, rad
    """
    free = np.ones(len(positions), dtype=bool)
    for _ in range(len(positions)):
        displacement = solve(free)
        after = positions + displacement
        leaving = free & (((after < lowest) & (displacement < 0)) | ((after > highest) & (displacement > 0)))
        if not leaving.any():
            break
        free &= ~leaving
    return np.where(free, displacement, 0.0)
