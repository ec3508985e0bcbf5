"""A robot on paper: says what a real one would be told, and is told nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from sb3_q2rl.envs.franka.policy_images import IMAGE_SIZE
from sb3_q2rl.envs.franka.robot import Command, RobotState


class DryRunRobot:
    """
    A :class:`~sb3_q2rl.envs.franka.robot.FrankaRobot` without a robot. It is always where it was told to be.

    :param start: where it is at first
    :param period_s: of a command, in real time, so that a person can read along
    :param say: takes each line
    """

    def __init__(self, start: Command, period_s: float = 0.1, say: Callable[[str], None] = print) -> None:
        self._pose = start
        self._period_s = period_s
        self._say = say

    def connect(self) -> None:
        self._say("dry run: connect")

    def state(self) -> RobotState:
        pose = self._pose
        nothing = np.zeros(6), np.zeros(7), np.zeros(7)
        return RobotState(time.monotonic(), pose.position_m, pose.quaternion_xyzw, pose.gripper_width_m, *nothing)

    def command(self, command: Command) -> Command:
        self._say(f"dry run: command {_text(command)}")
        time.sleep(self._period_s)
        self._pose = command
        return command

    def move(self, command: Command, duration_s: float) -> None:
        self._say(f"dry run: move {_text(command)} in {duration_s:.1f} s")
        self._pose = command

    def images(self) -> Mapping[str, np.ndarray]:
        black = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
        return {"workspace_rgb": black, "wrist_rgb": black}

    def recover(self) -> None:
        self._say("dry run: recover")

    def stop(self) -> None:
        self._say("dry run: stop")

    def close(self) -> None:
        self._say("dry run: close")


def _text(command: Command) -> str:
    position = ", ".join(f"{value:.4f}" for value in command.position_m)
    quaternion = ", ".join(f"{value:.4f}" for value in command.quaternion_xyzw)
    return f"position ({position}) m, quaternion ({quaternion}), gripper {1000 * command.gripper_width_m:.0f} mm"
