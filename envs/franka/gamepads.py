"""A person with a gamepad or a SpaceMouse in the hand."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from sb3_q2rl.envs.franka.operators import FIRST_HOLD_S, Signals

# Two buttons of which the second comes within this time are pressed at once
AT_ONCE_S = 0.15


class GamepadOperator:
    """
    A gamepad. Left stick: forward, back, left, right; right stick: up, down, turn; A: success, B: failure, X: stop,
    Y: closes and opens the gripper. Start agrees to a question. The person acts while a stick is moved.

    :param index: which gamepad
    :raises ImportError: pygame is not installed
    :raises ValueError: no such gamepad
    """

    def __init__(self, index: int = 0) -> None:
        try:
            with _quiet_pygame():
                import pygame
        except ImportError as error:
            raise ImportError(
                "A gamepad is read through pygame, which is not installed: pip install 'sb3_q2rl[gamepad]'"
            ) from error
        self._pygame = pygame
        pygame.joystick.init()
        if index >= pygame.joystick.get_count():
            found = pygame.joystick.get_count()
            pygame.joystick.quit()
            raise ValueError(
                f"`index` is {index}, but {found} gamepads were found. Connect it, and see that you may read "
                "/dev/input (group `input`)."
            )
        pygame.display.init()
        self._joystick = pygame.joystick.Joystick(index)
        self._gripper = self._gripper_until_s = 0.0

    def poll(self) -> Signals:
        pressed, now_s = self._presses(), time.monotonic()
        if 3 in pressed:
            self._gripper = -1.0 if self._gripper > 0 else 1.0
            self._gripper_until_s = now_s + FIRST_HOLD_S
        axes = np.array([self._joystick.get_axis(i) for i in range(self._joystick.get_numaxes())])
        action = action_of_sticks(axes, self._gripper)
        acts = bool(action[:6].any()) or now_s < self._gripper_until_s
        return Signals(0 in pressed, 1 in pressed, 2 in pressed, action if acts else None)

    def ask(self, message: str) -> None:
        print(f"{message} Press Start.", flush=True)
        self._gripper = self._gripper_until_s = 0.0  # of the last episode
        self._presses()  # a Start of before is no answer
        while 7 not in self._presses():
            time.sleep(0.02)

    def _presses(self) -> set[int]:
        """Of buttons, since the last time. The sticks' events go, too: in a full queue no press finds room."""
        return {event.button for event in self._pygame.event.get() if event.type == self._pygame.JOYBUTTONDOWN}

    def close(self) -> None:
        self._pygame.joystick.quit()
        self._pygame.display.quit()


def action_of_sticks(axes: np.ndarray, gripper: float, dead: float = 0.15) -> np.ndarray:
    """
    :param axes: left x, left y, (left trigger,) right x, right y; down and right are positive
    :param gripper: the action's last entry
    :param dead: so far a stick at rest may be from 0
    :return: (7,) in [-1, 1]
    """
    axes = np.sign(axes) * np.clip((np.abs(axes) - dead) / (1 - dead), 0.0, 1.0)
    right_x, right_y = axes[-2:] if len(axes) < 6 else axes[3:5]
    return np.array([-axes[1], -axes[0], -right_y, 0.0, 0.0, -right_x, gripper])


class SpaceMouseOperator:
    """
    A SpaceMouse: its cap moves and turns the tool. Its left button: success, its right one: failure, both at once:
    stop. Either alone agrees to a question. One button counts when it is let go, or when the other could have joined
    it. The gripper stays as it is.

    :param device: of ``pyspacemouse.open(axis_convention=AxisConvention.ROS)``; None: the first one found
    :raises ImportError: pyspacemouse is not installed
    :raises ValueError: no SpaceMouse found
    """

    def __init__(self, device: Any = None) -> None:
        self._device = self._open() if device is None else device
        self._held = (False, False)
        # A button that is down and has not counted yet, and since when
        self._waiting: int | None = None
        self._since_s = 0.0

    def _open(self) -> Any:
        try:
            import pyspacemouse
        except ImportError as error:
            raise ImportError(
                "A SpaceMouse is read through pyspacemouse, which is not installed: pip install 'sb3_q2rl[gamepad]'"
            ) from error
        try:
            return pyspacemouse.open(axis_convention=pyspacemouse.AxisConvention.ROS)
        except Exception as error:  # of the device library, which has no class of its own for it
            raise ValueError(
                f"No SpaceMouse could be opened ({error}). Connect it, install the system's hidapi (Debian: "
                "libhidapi-dev), and see that you may read /dev/hidraw* (a udev rule)."
            ) from error

    def poll(self) -> Signals:
        counted, both = [False, False], False
        for state in self._reports():
            held = (bool(state.buttons[0]), bool(state.buttons[1]))
            if self._waiting is not None and not held[self._waiting]:
                counted[self._waiting], self._waiting = True, None
            for button in range(2):
                if held[button] and not self._held[button]:
                    self._waiting, self._since_s = button, time.monotonic()
            if all(held):
                both, self._waiting = True, None
            self._held = held
        if self._waiting is not None and time.monotonic() - self._since_s > AT_ONCE_S:
            counted[self._waiting], self._waiting = True, None
        action = action_of_cap(np.array([state.x, state.y, state.z, state.roll, state.pitch, state.yaw]))
        return Signals(counted[0] and not both, counted[1] and not both, both, action if action.any() else None)

    def _reports(self) -> Iterator[Any]:
        """All that has come since the last time: a hundred a second, of which each tells a part."""
        last_s = -1.0
        for _ in range(1000):
            state = self._device.read()
            yield state
            if state.t == last_s:
                return
            last_s = state.t

    def ask(self, message: str) -> None:
        print(f"{message} Press a button of the SpaceMouse.", flush=True)
        self.poll()
        while any(self._held):  # the press that ended the episode is no answer
            time.sleep(0.02)
            self.poll()
        while not ((signals := self.poll()).success or signals.failure):
            time.sleep(0.02)

    def close(self) -> None:
        self._device.close()


def action_of_cap(cap: np.ndarray, dead: float = 0.1) -> np.ndarray:
    """
    :param cap: (6,) forward, left, up and the turns about them, in [-1, 1]
    :param dead: so far a cap at rest may be from 0
    :return: (7,) in [-1, 1]
    """
    return np.append(np.sign(cap) * np.clip((np.abs(cap) - dead) / (1 - dead), 0.0, 1.0), 0.0)


@contextlib.contextmanager
def _quiet_pygame() -> Iterator[None]:
    """pygame greets on standard output, and wants a screen, which a robot's computer may lack."""
    kept = dict(os.environ)
    os.environ |= {"PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
