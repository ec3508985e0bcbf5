"""What the environment asks of a Franka, simulated or real: one protocol, and what passes through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class RobotState:
    """
    The arm as it was at ``time_s``. Everything is in the base's frame.

    :param time_s: of the measurement, on the clock of ``time.monotonic`` (a simulator's: simulated seconds)
    :param position_m: (3,) of the point between the fingertips (the tool centre point)
    :param quaternion_xyzw: (4,) of the tool, whose z points out of the hand; unit length
    :param gripper_width_m: between the fingertips
    :param wrench: (6,) external force in N and torque in N m at the tool; zeros where nothing measures it
    :param joint_positions_rad: (7,)
    :param joint_velocities_rad_s: (7,)
    """

    time_s: float
    position_m: np.ndarray
    quaternion_xyzw: np.ndarray
    gripper_width_m: float
    wrench: np.ndarray
    joint_positions_rad: np.ndarray
    joint_velocities_rad_s: np.ndarray


@dataclass(frozen=True)
class Command:
    """
    Where the impedance controller shall pull the tool, and how far the fingers shall open.

    :param position_m: (3,)
    :param quaternion_xyzw: (4,) unit length
    :param gripper_width_m: 0: close and hold
    """

    position_m: np.ndarray
    quaternion_xyzw: np.ndarray
    gripper_width_m: float


class RobotError(Exception):
    """
    The arm, the gripper or a camera failed, or a safety check stopped them. The arm stands when this is raised.

    :param message: what happened, and what a person should do
    :param recoverable: another attempt, after ``recover()``, may succeed without a person
    """

    def __init__(self, message: str, recoverable: bool = True) -> None:
        super().__init__(message)
        self.recoverable = recoverable


class FrankaRobot(Protocol):
    """
    A Franka with a gripper. Nothing is opened by the constructor; ``connect`` does it, and may be called again after
    ``close``. Every method but the constructor raises :class:`RobotError`.
    """

    def connect(self) -> None:
        """Open the connections and make ready to move. Does nothing where they are open."""

    def state(self) -> RobotState:
        """:return: the newest measurement"""

    def command(self, command: Command) -> Command:
        """
        Pull the tool there until the control period is over. Return by then, or a little earlier, so that the caller
        can have the next command ready: periods follow each other without drift. A simulator steps through one.

        :param command: an absolute target, one control period's way off at most
        :return: what was executed, where the robot cut it down
        """

    def move(self, command: Command, duration_s: float) -> None:
        """
        Go there along a straight line, and return on arrival (for resets).

        :param command: the goal
        :param duration_s: of the whole way
        """

    def images(self) -> Mapping[str, np.ndarray]:
        """:return: "workspace_rgb" and "wrist_rgb", (84, 84, 3) uint8, of the newest frames; empty without cameras"""

    def recover(self) -> None:
        """Clear an error, so that ``move`` and ``command`` may be tried again."""

    def stop(self) -> None:
        """Stand still now. Safe to call at any time, also twice and without a connection."""

    def close(self) -> None:
        """Stop, and close the connections."""
