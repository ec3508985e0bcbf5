"""How actions and observations are scaled and made up, and the limits that a task brings along."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from sb3_q2rl.envs.franka.safety import Limits
from sb3_q2rl.envs.franka.tasks import Task


@dataclass(frozen=True)
class FrankaConfig:
    """
    :param translation_scale_m: an action of 1 moves the target so far along an axis, in one period
    :param rotation_scale_rad: an action of 1 turns it so far about an axis
    :param control_hz: actions a second
    :param observe_wrench: the external force and torque are part of the observation
    :param observe_joints: the joints' positions and velocities are
    :raises ValueError: not a positive number, or steps that the default limits would cut
    """

    translation_scale_m: float = 0.015
    rotation_scale_rad: float = 0.1
    control_hz: float = 10.0
    observe_wrench: bool = False
    observe_joints: bool = False

    def __post_init__(self) -> None:
        for field in fields(self)[:3]:
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"`{field.name}` is {value!r}: expected a positive number.")


def task_limits(task: Task, **changes: Any) -> Limits:
    """
    :param task: whose workspace it is
    :param changes: other fields of :class:`Limits`
    :return: the limits of an episode of this task
    """
    x, y, z, w = (float(value) for value in task.start.quaternion_xyzw)
    limits = Limits(
        task.workspace_low_m,
        task.workspace_high_m,
        max_tilt_rad=task.max_tilt_rad,
        max_yaw_rad=task.max_yaw_rad,
        home_xyzw=(x, y, z, w),
    )
    return replace(limits, **changes)
