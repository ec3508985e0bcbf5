"""The simulated arm among a task's things: one control period at a time, and what only a simulator can do."""

from __future__ import annotations

import mujoco
import numpy as np

from sb3_q2rl.envs.franka.arm_model import (
    ARM_JOINTS,
    DRIVEN_JOINT,
    FINGER_CLOSED_RAD,
    HAND,
    LINKAGE,
    PADS,
    TOOL_SITE,
    arm_spec,
)
from sb3_q2rl.envs.franka.impedance import Impedance
from sb3_q2rl.envs.franka.posture import HOME_RAD, Pose, find_posture, quaternion_wxyz
from sb3_q2rl.envs.franka.robot import Command
from sb3_q2rl.envs.franka.tasks import Scene

# Contact forces are read so often in a control period
N_WRENCHES = 4
STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class Simulator:
    """
    :param scene: what surrounds the arm; it serves this simulator alone
    :param control_hz: how often a command is given
    :raises ImportError: robosuite, whose models these are, is not installed
    :raises ValueError: a rate that the simulator's time step does not divide
    """

    def __init__(self, scene: Scene, control_hz: float = 10.0) -> None:
        spec = arm_spec()
        scene.build(spec)
        self.scene = scene
        self.model: mujoco.MjModel = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.n_steps = round(1 / (control_hz * self.model.opt.timestep))
        if not np.isclose(self.n_steps * self.model.opt.timestep * control_hz, 1.0):
            raise ValueError(
                f"`control_hz` {control_hz} is no whole number of simulator steps of {self.model.opt.timestep} s. "
                "Take 10, or another divisor of 400."
            )
        model = self.model
        self._joints, self._dofs = (
            slice(model.joint(ARM_JOINTS[0]).qposadr[0], model.joint(ARM_JOINTS[-1]).qposadr[0] + 1),
            slice(model.joint(ARM_JOINTS[0]).dofadr[0], model.joint(ARM_JOINTS[-1]).dofadr[0] + 1),
        )
        self._tool = model.site(TOOL_SITE).id
        self._fingers = [
            (model.joint(name).qposadr[0], model.joint(name).dofadr[0], ratio)
            for name, ratio in {DRIVEN_JOINT: 1.0, **LINKAGE}.items()
        ]
        self._finger_motor = model.actuator(DRIVEN_JOINT).id
        self._angles_rad = np.linspace(FINGER_CLOSED_RAD, 0.0, 33)
        self._widths_m = np.array([self._width_at(angle) for angle in self._angles_rad])
        hand = model.body(HAND).id
        self._is_hand = np.array([_is_within(model, body, hand) for body in model.geom_bodyid])
        self._parts = np.diff(np.linspace(0, self.n_steps, N_WRENCHES + 1).round()).astype(int).tolist()
        self._wrench = np.zeros(6)
        self._impedance = Impedance(model, self.data, TOOL_SITE, ARM_JOINTS, HOME_RAD)

    # What a Franka can do, too

    @property
    def time_s(self) -> float:
        """:return: simulated"""
        return float(self.data.time)

    @property
    def tool(self) -> Pose:
        """:return: of the tool centre point"""
        return Pose(self.data.site_xpos[self._tool].copy(), self.data.site_xmat[self._tool].reshape(3, 3).copy())

    @property
    def tool_xyzw(self) -> np.ndarray:
        """:return: (4,) quaternion of the tool"""
        return quaternion_wxyz(self.tool.rotation)[[1, 2, 3, 0]]

    @property
    def width_m(self) -> float:
        """:return: between the fingertips"""
        angle = self.data.qpos[self._fingers[0][0]]
        return float(np.interp(-angle, -self._angles_rad, self._widths_m))

    @property
    def joint_positions_rad(self) -> np.ndarray:
        """:return: (7,)"""
        return self.data.qpos[self._joints].copy()

    @property
    def joint_velocities_rad_s(self) -> np.ndarray:
        """:return: (7,)"""
        return self.data.qvel[self._dofs].copy()

    @property
    def wrench(self) -> np.ndarray:
        """
        :return: (6,) force in N on the hand and what it grasps, and torque in N m about the tool centre point; mean
            over the last control period, as the Franka's own estimate is filtered
        """
        return self._wrench.copy()

    def step(self, command: Command) -> None:
        """
        Pull for one control period.

        :param command: where to, and how far the fingers shall be
        """
        self._impedance.pull(command.position_m, np.asarray(command.quaternion_xyzw)[[3, 0, 1, 2]])
        self.data.ctrl[self._finger_motor] = self._angle_for(command.gripper_width_m)
        self._wrench[:] = 0.0
        for n_steps in self._parts:
            mujoco.mj_step(self.model, self.data, n_steps)
            self._wrench += self._contact_wrench() / len(self._parts)
        self.refresh()

    # What only a simulator can do

    def refresh(self) -> None:
        """Poses as they are after the last simulator step, or after something was put somewhere."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)

    def refresh_cameras(self) -> None:
        """Where cameras and lights are; only pictures need it."""
        mujoco.mj_camlight(self.model, self.data)

    def pose(self, body: str) -> Pose:
        """
        :param body: of the model
        :return: its pose
        """
        index = self.model.body(body).id
        return Pose(self.data.xpos[index].copy(), self.data.xmat[index].reshape(3, 3).copy())

    def put(self, body: str, pose: Pose) -> None:
        """
        Put it there, at rest. ``refresh`` shows it.

        :param body: one that moves freely
        :param pose: of the body's frame
        """
        joint = self.model.body(body).jntadr[0]
        start, velocity = self.model.jnt_qposadr[joint], self.model.jnt_dofadr[joint]
        self.data.qpos[start : start + 7] = np.concatenate([pose.position_m, quaternion_wxyz(pose.rotation)])
        self.data.qvel[velocity : velocity + 6] = 0.0

    def fix(self, body: str, pose: Pose) -> None:
        """
        Fasten it there.

        :param body: one that nothing but this moves (MuJoCo's "mocap"), so that its place is part of the state
        :param pose: of the body's frame
        """
        index = self.model.body(body).mocapid[0]
        self.data.mocap_pos[index] = pose.position_m
        self.data.mocap_quat[index] = quaternion_wxyz(pose.rotation)

    def restart(self) -> None:
        """Time 0, everything at rest."""
        mujoco.mj_resetData(self.model, self.data)
        self._wrench[:] = 0.0

    def teleport(self, command: Command) -> None:
        """
        The arm and the fingers are there at once, at rest, and the null space holds this posture.

        :param command: the pose
        :raises ValueError: the arm does not reach it
        """
        data = self.data
        goal = np.empty(9)
        mujoco.mju_quat2Mat(goal, np.asarray(command.quaternion_xyzw, dtype=np.float64)[[3, 0, 1, 2]])
        pose = Pose(np.asarray(command.position_m), goal.reshape(3, 3))
        data.qpos[self._joints] = find_posture(self.model, data, self._joints, self._dofs, self._tool, pose)
        data.qvel[self._dofs] = 0.0
        self._impedance.rest_posture_rad[:] = data.qpos[self._joints]
        self._set_fingers(self._angle_for(command.gripper_width_m))
        self.refresh()

    def get_state(self) -> np.ndarray:
        """:return: float64: time, qpos, qvel, and whatever else is measured, or decides what happens next"""
        physics = np.empty(mujoco.mj_stateSize(self.model, STATE))
        mujoco.mj_getState(self.model, self.data, physics, STATE)
        return np.concatenate([physics, self._impedance.rest_posture_rad, self._wrench])

    def set_state(self, state: np.ndarray) -> None:
        """
        :param state: of :meth:`get_state`
        :raises ValueError: it is of another length
        """
        n_physics, n_joints = mujoco.mj_stateSize(self.model, STATE), len(ARM_JOINTS)
        expected = (n_physics + n_joints + len(self._wrench),)
        if np.shape(state) != expected:
            raise ValueError(f"`state` has shape {np.shape(state)}, this task's is {expected}: it is another task's.")
        physics, rest_posture_rad, wrench = np.split(np.asarray(state, np.float64), [n_physics, n_physics + n_joints])
        mujoco.mj_setState(self.model, self.data, physics, STATE)
        self._impedance.rest_posture_rad[:], self._wrench[:] = rest_posture_rad, wrench
        self.refresh()

    def _contact_wrench(self) -> np.ndarray:
        data, pushed, turned = self.data, np.zeros(3), np.zeros(3)
        touching, wrench = self._is_hand[data.contact.geom], np.empty(6)
        for index in np.flatnonzero(touching[:, 0] != touching[:, 1]):
            mujoco.mj_contactForce(self.model, data, int(index), wrench)
            # rows of the frame are the contact's axes; the force is that of the first geometry on the second
            axes = data.contact.frame[index].reshape(3, 3) * (-1.0 if touching[index, 0] else 1.0)
            force = wrench[:3] @ axes
            x, y, z = data.contact.pos[index] - data.site_xpos[self._tool]
            pushed += force
            turned += wrench[3:] @ axes
            turned += y * force[2] - z * force[1], z * force[0] - x * force[2], x * force[1] - y * force[0]
        return np.concatenate([pushed, turned])

    def _angle_for(self, width_m: float) -> float:
        # Closed means: as far as it goes, also onto what is thinner than the pads are exact
        return float(np.interp(width_m, self._widths_m, self._angles_rad))

    def _set_fingers(self, angle_rad: float) -> None:
        for position, velocity, ratio in self._fingers:
            self.data.qpos[position], self.data.qvel[velocity] = ratio * angle_rad, 0.0

    def _width_at(self, angle_rad: float) -> float:
        self._set_fingers(angle_rad)
        self.refresh()
        left, right = (self.model.geom(name).id for name in PADS)
        thickness_m = 2 * self.model.geom_size[left][1]
        return float(np.linalg.norm(self.data.geom_xpos[left] - self.data.geom_xpos[right]) - thickness_m)


def _is_within(model: mujoco.MjModel, body: int, ancestor: int) -> bool:
    while body not in (0, ancestor):
        body = model.body_parentid[body]
    return body == ancestor
