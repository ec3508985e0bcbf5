"""
One control period of robosuite's arm, with operational space control in one compiled function. The order of the
operations is robosuite's, because the trajectories shall be the same.

numba caches what it compiles by module, so this module imports robosuite at its top; it is itself imported only when a
simulator is made.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numba
import numpy as np
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error


@numba.jit(nopython=True, cache=True)
def arm_torques(
    goal_position: np.ndarray,
    goal_rotation: np.ndarray,
    position: np.ndarray,
    rotation: np.ndarray,
    jacobian_pos: np.ndarray,
    jacobian_rot: np.ndarray,
    qpos: np.ndarray,
    qvel: np.ndarray,
    full_mass: np.ndarray,
    bias: np.ndarray,
    joints: np.ndarray,
    dofs: np.ndarray,
    rest_posture: np.ndarray,
    kp: np.ndarray,
    kd: np.ndarray,
) -> np.ndarray:
    """
    torque = J' [Lambda_p F_p; Lambda_r F_r] + gravity + N' M (k (q0 - q) - 2 sqrt(k) q'), F = kp error - kd velocity
    (Khatib 1987, position and rotation uncoupled).

    :param goal_position: (3,) in the world, as everything here
    :param goal_rotation: (3, 3)
    :param position: (3,) of the controlled site
    :param rotation: (3, 3)
    :param jacobian_pos: (3, nv)
    :param jacobian_rot: (3, nv)
    :param qpos: (nq,)
    :param qvel: (nv,)
    :param full_mass: (nv, nv) mass matrix
    :param bias: (nv,) gravity, centrifugal and Coriolis forces
    :param joints: (7,) the arm's entries of qpos
    :param dofs: (7,) its entries of qvel
    :param rest_posture: (7,) q0
    :param kp: (6,) stiffness
    :param kd: (6,) damping
    :return: (7,) N m
    """
    n = len(dofs)
    jacobian = np.empty((6, n))
    mass = np.empty((n, n)).T  # column-major, as robosuite's indexing leaves it
    joint_pos, joint_vel, gravity = np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        joint_pos[i], joint_vel[i], gravity[i] = qpos[joints[i]], qvel[dofs[i]], bias[dofs[i]]
        jacobian[:3, i] = jacobian_pos[:, dofs[i]]
        jacobian[3:, i] = jacobian_rot[:, dofs[i]]
        for k in range(n):
            mass[i, k] = full_mass[dofs[i], dofs[k]]
    force = (goal_position - position) * kp[:3] - np.dot(jacobian_pos, qvel) * kd[:3]
    moment = orientation_error(goal_rotation, rotation) * kp[3:] - np.dot(jacobian_rot, qvel) * kd[3:]
    _, lambda_pos, lambda_rot, null_space = opspace_matrices(mass, jacobian, jacobian[:3], jacobian[3:])
    wrench = np.concatenate((np.dot(lambda_pos, force), np.dot(lambda_rot, moment)))
    torques = np.dot(jacobian.T, wrench) + gravity
    return torques + nullspace_torques(mass, null_space, rest_posture, joint_pos, joint_vel)


class ControlPeriod:
    """
    The 25 simulator steps under one action, as ``robosuite_env.step`` makes them: operational space control of the
    arm, a ramped gripper command, and MuJoCo.

    It must be built anew after every reset, because robosuite then builds its controllers anew.

    :param robosuite_env: made with one Panda and its default controller
    """

    def __init__(self, robosuite_env: Any) -> None:
        self._model, self._data = model, data = robosuite_env.sim.model._model, robosuite_env.sim.data._data
        self._controller = robosuite_env.robots[0].composite_controller
        self._arm = arm = self._controller.part_controllers["right"]
        self._gripper = self._controller.part_controllers["right_gripper"]
        self._n_steps = int(robosuite_env.control_timestep / robosuite_env.model_timestep)
        actuators = robosuite_env.robots[0]._ref_actuators_indexes_dict
        self._arm_actuators, self._gripper_actuators = (
            np.array(actuators[part]) for part in ("right", "right_gripper")
        )
        self._torque_range = model.actuator_ctrlrange[self._arm_actuators].T.copy()
        self._gripper_range = model.actuator_ctrlrange[self._gripper_actuators].T.copy()
        self._site = model.site(arm.ref_name).id
        self._jacobian_pos, self._jacobian_rot = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        self._mass = np.zeros((model.nv, model.nv))
        # Views into the simulator's memory, which stays where it is
        site_pose = data.site_xpos[self._site], data.site_xmat[self._site].reshape(3, 3)
        jacobians_and_state = self._jacobian_pos, self._jacobian_rot, data.qpos, data.qvel, self._mass, data.qfrc_bias
        indices = np.array(arm.qpos_index), np.array(arm.qvel_index)
        self._arm_state = *site_pose, *jacobians_and_state, *indices, arm.initial_joint, arm.kp, arm.kd

    def run(self, action: np.ndarray) -> None:
        """
        :param action: (7,) float64 in [-1, 1]: translation, rotation, and closing (> 0) or opening of the gripper
        """
        model, data, arm = self._model, self._data, self._arm
        mujoco.mj_step1(model, data)
        self._controller.set_goal(action)
        goal_position = arm.origin_pos + np.dot(arm.origin_ori, arm.goal_pos)
        goal_rotation = np.dot(arm.origin_ori, arm.goal_ori)
        data.ctrl[self._gripper_actuators] = self._gripper.run_controller().clip(*self._gripper_range)
        # The first step through robosuite: after a reset it acts on what it read during the reset
        self._apply(arm.run_controller())
        for _ in range(self._n_steps - 1):
            mujoco.mj_step1(model, data)
            mujoco.mj_jacSite(model, data, self._jacobian_pos, self._jacobian_rot, self._site)
            mujoco.mj_fullM(model, self._mass, data.qM)
            self._apply(arm_torques(goal_position, goal_rotation, *self._arm_state))

    def _apply(self, torques: np.ndarray) -> None:
        self._data.ctrl[self._arm_actuators] = torques.clip(*self._torque_range)
        mujoco.mj_step2(self._model, self._data)
