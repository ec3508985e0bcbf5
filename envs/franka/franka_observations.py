"""What a Franka observes, by name, and where each part lies in the flat vector."""

from __future__ import annotations

import numpy as np

from sb3_q2rl.envs.franka.config import FrankaConfig
from sb3_q2rl.envs.franka.robot import Command, RobotState
from sb3_q2rl.envs.franka.rotations import inverse, product, to_rotation_vector
from sb3_q2rl.envs.franka.tasks import find_task

IMAGE_KEYS = ("workspace_rgb", "wrist_rgb")
IMAGE_SIZE = 84
# m, rad, N. Finite, because checkers object to infinite bounds
OBSERVATION_LIMIT = 1e3


def robot_sizes(config: FrankaConfig) -> dict[str, int]:
    """
    :param config: which parts
    :return: the parts that every robot measures, in the order of the vector:

        - ``robot_pos``: the tool centre point in the base's frame, m
        - ``robot_rot``: the rotation vector from the tool's home to where it points, rad. Within tilt and yaw limits it
          is continuous: it has neither the two signs of a quaternion nor the jump of Euler angles
        - ``gripper``: the width, and the width it was told, m
        - ``target_offset``: how far the controller's target is ahead of the tool, m and rad. The controller pulls with
          this times its stiffness, so it tells what the arm presses against; and without it the next state would depend
          on something that is not observed
        - ``wrench``: external force in N and torque in N m, if asked for
        - ``joints``: positions in rad and velocities in rad/s, if asked for
    """
    sizes = {"robot_pos": 3, "robot_rot": 3, "gripper": 2, "target_offset": 6}
    if config.observe_wrench:
        sizes["wrench"] = 6
    if config.observe_joints:
        sizes["joints"] = 14
    return sizes


def observe_robot(
    state: RobotState, target: Command, home_xyzw: np.ndarray, config: FrankaConfig
) -> dict[str, np.ndarray]:
    """
    :param state: measured
    :param target: what the controller pulls towards
    :param home_xyzw: (4,) from which the rotation counts
    :param config: which parts
    :return: float32 by the names of :func:`robot_sizes`
    """
    ahead = product(target.quaternion_xyzw, inverse(state.quaternion_xyzw))
    values = {
        "robot_pos": state.position_m,
        "robot_rot": to_rotation_vector(product(state.quaternion_xyzw, inverse(home_xyzw))),
        "gripper": [state.gripper_width_m, target.gripper_width_m],
        "target_offset": np.concatenate([target.position_m - state.position_m, to_rotation_vector(ahead)]),
        "wrench": state.wrench,
        "joints": np.concatenate([state.joint_positions_rad, state.joint_velocities_rad_s]),
    }
    return {name: np.asarray(values[name], dtype=np.float32) for name in robot_sizes(config)}


def observation_slices(task: str, config: FrankaConfig | None = None, objects: bool = True) -> dict[str, slice]:
    """
    Where the parts are in the flat observation of a simulated robot: first the objects', then the robot's.

    :param task: its name
    :param config: that of the environment
    :param objects: False for a real robot, and for the ``"state"`` of images: the robot's alone
    :return: e.g. ``{"object": slice(0, 9), "hole_pos": slice(0, 3), ..., "robot_pos": slice(9, 12), ...}``
    """
    object_sizes = dict(find_task(task).object_sizes) if objects else {}
    slices = {"object": slice(0, sum(object_sizes.values()))} if objects else {}
    start = 0
    for name, size in {**object_sizes, **robot_sizes(config or FrankaConfig())}.items():
        slices[name] = slice(start, start + size)
        start += size
    return slices
