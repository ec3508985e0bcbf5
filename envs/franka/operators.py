"""The person beside the robot: ends episodes, stops the arm, and may act instead of the policy."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

import numpy as np

# A key that is held down repeats itself about thirty times a second, after a pause of up to half a second
HOLD_S, FIRST_HOLD_S = 0.1, 0.5


@dataclass(frozen=True)
class Signals:
    """
    What the person did since the last question.

    :param success: the task is done
    :param failure: it cannot be done any more
    :param stop: the arm shall stand still
    :param action: (7,) in [-1, 1], instead of the policy's; None: the policy acts
    """

    success: bool = False
    failure: bool = False
    stop: bool = False
    action: np.ndarray | None = None

    def and_then(self, later: Signals) -> Signals:
        """:return: what either of them says; the action is the first one's, which was executed"""
        return Signals(
            self.success or later.success, self.failure or later.failure, self.stop or later.stop, self.action
        )


class Operator(Protocol):
    """Neither method raises for what the person does."""

    def poll(self) -> Signals:
        """:return: what was done since the last call; it never waits"""

    def ask(self, message: str) -> None:
        """Show it, and return when the person agrees."""

    def close(self) -> None:
        """Give back what was opened."""


class KeyboardOperator:
    """
    The terminal's keyboard, read key by key without root. Enter: success, Backspace: failure, Space: stop. Held down,
    ``w s a d`` move forward, back, left and right, ``r f`` up and down, ``q e`` turn; ``g`` closes and opens the
    gripper. Nothing is changed in the terminal before the first question, and all is put back by ``close``.

    :param stream: a terminal; None: standard input
    :param output: where questions are written; None: standard output
    :raises ValueError: no terminal
    """

    def __init__(self, stream: TextIO | None = None, output: TextIO | None = None) -> None:
        self.stream = sys.stdin if stream is None else stream
        self.output = sys.stdout if output is None else output
        if not self.stream.isatty():
            raise ValueError(
                "`operator` is the keyboard, but standard input is no terminal. Start the program in one (not from a "
                "pipe, a notebook or a service), or use a gamepad."
            )
        self._kept_settings: Any = None
        self._held: dict[str, float] = {}
        self._gripper = 0.0

    def poll(self) -> Signals:
        keys, now_s = self._keys(), time.monotonic()
        for key in set(keys) & set(_MOVES):
            self._held[key] = now_s + (HOLD_S if key in self._held else FIRST_HOLD_S)
        self._held = {key: until_s for key, until_s in self._held.items() if until_s > now_s}
        if "g" in keys:
            self._gripper = -1.0 if self._gripper > 0 else 1.0
        acts = bool(self._held) or "g" in keys
        return Signals(
            success=bool({"\n", "\r"} & set(keys)),
            failure=bool({"\x7f", "\b"} & set(keys)),
            stop=" " in keys,
            action=action_of_keys(set(self._held), self._gripper) if acts else None,
        )

    def ask(self, message: str) -> None:
        print(f"{message} Press Enter.", file=self.output, flush=True)
        self._keys()  # an Enter of before is no answer
        while not {"\n", "\r"} & set(self._keys(wait_s=0.1)):
            pass

    def close(self) -> None:
        if self._kept_settings is not None:
            import termios

            termios.tcsetattr(self.stream, termios.TCSADRAIN, self._kept_settings)
            self._kept_settings = None

    def _keys(self, wait_s: float = 0.0) -> str:
        import os
        import termios
        import tty

        if self._kept_settings is None:
            self._kept_settings = termios.tcgetattr(self.stream)
            tty.setcbreak(self.stream)
        file = self.stream.fileno()
        keys = b""
        while select.select([file], [], [], 0.0 if keys else wait_s)[0]:
            some = os.read(file, 1024)
            if not some:  # the terminal was closed
                break
            keys += some
        return keys.decode(errors="ignore")


# key: entry of the action, and its sign
_MOVES = {
    **{"w": (0, 1.0), "s": (0, -1.0), "a": (1, 1.0), "d": (1, -1.0)},
    **{"r": (2, 1.0), "f": (2, -1.0), "q": (5, 1.0), "e": (5, -1.0)},
}


def action_of_keys(held: set[str], gripper: float) -> np.ndarray:
    """
    :param held: keys that are down
    :param gripper: the action's last entry
    :return: (7,) in [-1, 1]
    """
    action = np.zeros(7)
    for key in held:
        entry, sign = _MOVES[key]
        action[entry] += sign
    action[6] = gripper
    return action


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
        self._gripper = 0.0

    def poll(self) -> Signals:
        pressed, pygame = set(), self._pygame
        for event in pygame.event.get(pygame.JOYBUTTONDOWN):
            pressed.add(event.button)
        pygame.event.pump()
        if 3 in pressed:
            self._gripper = -1.0 if self._gripper > 0 else 1.0
        axes = np.array([self._joystick.get_axis(i) for i in range(self._joystick.get_numaxes())])
        action = action_of_sticks(axes, self._gripper)
        acts = bool(action[:6].any()) or 3 in pressed
        return Signals(0 in pressed, 1 in pressed, 2 in pressed, action if acts else None)

    def ask(self, message: str) -> None:
        print(f"{message} Press Start.", flush=True)
        pygame = self._pygame
        pygame.event.clear()
        while not any(event.button == 7 for event in pygame.event.get(pygame.JOYBUTTONDOWN)):
            time.sleep(0.02)

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
    stop. Either agrees to a question. The gripper stays as it is.

    :raises ImportError: pyspacemouse is not installed
    :raises ValueError: no SpaceMouse found
    """

    def __init__(self) -> None:
        try:
            import pyspacemouse
        except ImportError as error:
            raise ImportError(
                "A SpaceMouse is read through pyspacemouse, which is not installed (or lacks the library hidapi): "
                f"pip install 'sb3_q2rl[gamepad]'. {error}"
            ) from error
        try:
            self._device = pyspacemouse.open()
        except Exception as error:  # of the device library, which has no class of its own for it
            raise ValueError(
                f"No SpaceMouse could be opened ({error}). Connect it, and see that you may read /dev/hidraw* (a udev "
                "rule)."
            ) from error
        self._was = (False, False)

    def poll(self) -> Signals:
        state = self._device.read()
        now = (bool(state.buttons[0]), bool(state.buttons[1]))
        fresh = [n and not w for n, w in zip(now, self._was, strict=True)]
        self._was = now
        both = all(now)
        action = action_of_cap(np.array([state.y, -state.x, state.z, state.roll, state.pitch, -state.yaw]))
        return Signals(fresh[0] and not both, fresh[1] and not both, both, action if action.any() else None)

    def ask(self, message: str) -> None:
        print(f"{message} Press a button of the SpaceMouse.", flush=True)
        while not any(self._device.read().buttons[:2]):
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
    import os

    kept = dict(os.environ)
    os.environ |= {"PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
