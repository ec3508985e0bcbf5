"""Inverse kinematics: how the simulated arm stands when its tool is somewhere."""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

# Elbow up, hand down, all joints far from their limits: where Frankas usually start
HOME_RAD = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])
# The search: damping, where it ends, how long it may last, how long it is drawn towards home, and its longest step
DAMPING, TOLERANCE, MAX_STEPS, HOMING_STEPS, LONGEST_RAD = 1e-4, 1e-6, 60, 10, 0.3
HOMING = 0.3


class Pose(NamedTuple):
    """
    :param position_m: (3,) in the base's frame
    :param rotation: (3, 3) columns are its axes
    """

    position_m: np.ndarray
    rotation: np.ndarray


def quaternion_wxyz(rotation: np.ndarray) -> np.ndarray:
    """
    :param rotation: (3, 3)
    :return: (4,) in MuJoCo's order
    """
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion


def find_posture(
    model: mujoco.MjModel, data: mujoco.MjData, joints: slice, dofs: slice, site: int, goal: Pose
) -> np.ndarray:
    """
    Damped least squares, from home and near to it.

    :param model: of the arm
    :param data: its joint positions are left at what is returned
    :param joints: of the arm in ``qpos``
    :param dofs: of the arm in ``qvel``
    :param site: of the tool
    :param goal: where it shall be
    :return: (7,) rad
    :raises ValueError: the arm does not reach it
    """
    jacobian, turn_rad = np.zeros((6, model.nv)), np.empty(3)
    data.qpos[joints] = HOME_RAD
    for i in range(MAX_STEPS):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        rotation = goal.rotation @ data.site_xmat[site].reshape(3, 3).T
        mujoco.mju_quat2Vel(turn_rad, quaternion_wxyz(rotation), 1.0)
        error = np.concatenate([goal.position_m - data.site_xpos[site], turn_rad])
        if np.abs(error).max() < TOLERANCE:
            return data.qpos[joints].copy()
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site)
        arm = jacobian[:, dofs]
        inverse = arm.T @ np.linalg.inv(arm @ arm.T + DAMPING * np.eye(6))
        homing = (i < HOMING_STEPS) * HOMING * (HOME_RAD - data.qpos[joints])
        step_rad = inverse @ error + homing - inverse @ (arm @ homing)
        data.qpos[joints] += step_rad.clip(-LONGEST_RAD, LONGEST_RAD)
    raise ValueError(
        f"The arm does not reach position {goal.position_m} m with rotation {goal.rotation.tolist()}: take a start "
        "within 0.3 to 0.7 m of the base."
    )
