"""From actions in [-1, 1] to targets of the controller, and back."""

from __future__ import annotations

import numpy as np

from sb3_q2rl.envs.franka.config import FrankaConfig
from sb3_q2rl.envs.franka.robot import Command
from sb3_q2rl.envs.franka.rotations import from_rotation_vector, inverse, product, to_rotation_vector

ACTION_DIM = 7
# The gripper's entry: beyond it the fingers close, below its negative they open, between they stay. Noise about 0 does
# not make them flutter
GRIPPER_THRESHOLD = 0.5


def target_of(
    action: np.ndarray, last: Command, open_width_m: float, config: FrankaConfig, fixed_width_m: float | None
) -> Command:
    """
    :param action: (7,) in [-1, 1]
    :param last: the target before
    :param open_width_m: of an open gripper
    :param config: the scales
    :param fixed_width_m: of a task that leaves the gripper no choice
    :return: the target that it asks for
    """
    turn = from_rotation_vector(config.rotation_scale_rad * action[3:6])
    width = last.gripper_width_m
    if fixed_width_m is not None:
        width = fixed_width_m
    elif abs(action[6]) > GRIPPER_THRESHOLD:
        width = 0.0 if action[6] > 0 else open_width_m
    return Command(
        last.position_m + config.translation_scale_m * action[:3], product(turn, last.quaternion_xyzw), width
    )


def action_of(
    action: np.ndarray, last: Command, wanted: Command, executed: Command, config: FrankaConfig
) -> np.ndarray:
    """
    :param action: (7,) that asked for ``wanted``
    :param last: the target before
    :param wanted: what was asked for
    :param executed: what was executed instead
    :param config: the scales
    :return: (7,) in [-1, 1], the action that asks for what was executed
    """
    moved = (executed.position_m - last.position_m) / config.translation_scale_m
    turned = to_rotation_vector(product(executed.quaternion_xyzw, inverse(last.quaternion_xyzw)))
    gripper = action[6] if abs(executed.gripper_width_m - wanted.gripper_width_m) < 1e-4 else 0.0
    return np.clip(np.concatenate([moved, turned / config.rotation_scale_rad, [gripper]]), -1.0, 1.0)
