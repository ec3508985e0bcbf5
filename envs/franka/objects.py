"""Rigid things of the scenes, made of boxes, because MuJoCo computes where boxes touch exactly and quickly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from sb3_q2rl.envs.franka.arm_model import COLLISION_GROUP, FIXED, MOVING, VISUAL_GROUP
from sb3_q2rl.envs.franka.posture import Pose

# Hard: 20 N on a corner press it in by less than 0.1 mm
SOLREF, SOLIMP = (0.005, 1.0), (0.95, 0.99, 0.0005, 0.5, 2.0)
FRICTION = (0.3, 0.005, 0.0001)  # smooth plastic
FLOOR_M = 0.01
# Turns what points up so that it points down, about its x
DOWN = np.diag([1.0, -1.0, -1.0])


def add_box(
    body: Any,
    half_edges_m: Sequence[float],
    position_m: Sequence[float] = (0.0, 0.0, 0.0),
    quaternion_wxyz: Sequence[float] = (1.0, 0.0, 0.0, 0.0),
    rgba: Sequence[float] = (0.5, 0.5, 0.5, 1.0),
    mass_kg: float | None = None,
    visible: bool = True,
) -> None:
    """
    A box to touch, and to see.

    :param body: mujoco.MjsBody; one with a free joint is given a mass, what is fixed has none
    :param half_edges_m: (3,)
    :param position_m: (3,) of its middle
    :param quaternion_wxyz: (4,)
    :param rgba: its colour
    :param mass_kg: None: it is fixed
    :param visible: False where something rounder is drawn in its place
    """
    shape = {
        "type": mujoco.mjtGeom.mjGEOM_BOX,
        "size": half_edges_m,
        "pos": position_m,
        "quat": quaternion_wxyz,
        "rgba": rgba,
    }
    contype, conaffinity = FIXED if mass_kg is None else MOVING
    body.add_geom(
        **shape,
        group=COLLISION_GROUP,
        contype=contype,
        conaffinity=conaffinity,
        solref=SOLREF,
        solimp=SOLIMP,
        friction=FRICTION,
        mass=mass_kg or 0.0,
    )
    if visible:
        body.add_geom(**shape, group=VISUAL_GROUP, contype=0, conaffinity=0, mass=0.0)


def add_socket(body: Any, width_m: float, depth_m: float, half_edge_m: float, rgba: Sequence[float]) -> None:
    """
    A square block with a square hole from above. The body's frame: in the middle of the hole's mouth, z up.

    :param body: mujoco.MjsBody, fixed
    :param width_m: of the hole
    :param depth_m: of the hole
    :param half_edge_m: of the block, seen from above
    :param rgba: its colour
    """
    hole_m = width_m / 2
    wall_m = (half_edge_m - hole_m) / 2
    middle_m = hole_m + wall_m
    for sign in (-1.0, 1.0):
        add_box(body, (wall_m, half_edge_m, depth_m / 2), (sign * middle_m, 0.0, -depth_m / 2), rgba=rgba)
        add_box(body, (hole_m, wall_m, depth_m / 2), (0.0, sign * middle_m, -depth_m / 2), rgba=rgba)
    add_box(body, (half_edge_m, half_edge_m, FLOOR_M / 2), (0.0, 0.0, -depth_m - FLOOR_M / 2), rgba=rgba)


def about_z(angle_rad: float) -> np.ndarray:
    """
    :param angle_rad: counter-clockwise, seen from above
    :return: (3, 3) rotation
    """
    sine, cosine = np.sin(angle_rad), np.cos(angle_rad)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def in_frame(frame: Pose, point_m: np.ndarray) -> np.ndarray:
    """
    :param frame: of the thing that looks
    :param point_m: (3,) in the base's frame
    :return: (3,) m, where it sees the point
    """
    return frame.rotation.T @ (point_m - frame.position_m)


def turn_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """
    :param start: (3, 3) rotation
    :param end: (3, 3)
    :return: (3,) rad, rotation vector in the frame of ``start``, at most pi long
    """
    quaternion_wxyz, turn_rad = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(quaternion_wxyz, (start.T @ end).ravel())
    mujoco.mju_quat2Vel(turn_rad, quaternion_wxyz, 1.0)
    return turn_rad
