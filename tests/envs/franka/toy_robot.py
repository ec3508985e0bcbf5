"""A robot without dynamics: it is where it was told to be, remembers what it was told, and fails on request."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from sb3_q2rl.envs.franka.robot import Command, RobotState


class ToyRobot:
    """
    :param follows: how much of the way to its target it makes in a period
    :param period_s: how long a command takes
    """

    def __init__(self, position_m=(0.5, 0.0, 0.2), follows: float = 1.0, period_s: float = 0.0) -> None:
        self.pose = Command(np.array(position_m, float), np.array([1.0, 0, 0, 0]), 0.04)
        self.follows, self.period_s = follows, period_s
        self.sent: list[Command] = []
        self.calls: list[str] = []
        self.changes: dict[str, object] = {}
        # what a call does instead of what it should
        self.instead: dict[str, Callable[[], object]] = {}
        self.standing = threading.Event()

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.instead:
            self.instead[name]()

    def connect(self) -> None:
        self._called("connect")

    def state(self) -> RobotState:
        self._called("state")
        place = self.pose.position_m.copy(), self.pose.quaternion_xyzw.copy(), self.pose.gripper_width_m
        state = RobotState(time.monotonic(), *place, np.zeros(6), np.zeros(7), np.zeros(7))
        return replace(state, **self.changes)

    def command(self, command: Command) -> Command:
        self.standing.clear()
        self._called("command")
        time.sleep(self.period_s)
        self.sent.append(command)
        position = self.pose.position_m + self.follows * (command.position_m - self.pose.position_m)
        self.pose = Command(position, command.quaternion_xyzw, command.gripper_width_m)
        return command

    def move(self, command: Command, duration_s: float) -> None:
        raise AssertionError("the guard moves by commands")

    def images(self) -> Mapping[str, np.ndarray]:
        self._called("images")
        image = np.full((84, 84, 3), 7, np.uint8)
        return {"workspace_rgb": image, "wrist_rgb": image}

    def recover(self) -> None:
        self._called("recover")

    def stop(self) -> None:
        self._called("stop")
        self.standing.set()

    def close(self) -> None:
        self._called("close")
