"""The person beside the robot: ends episodes, stops the arm, and may act instead of the policy."""

from __future__ import annotations

import os
import select
import sys
import time
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
        self._held = {key: until_s for key, until_s in self._held.items() if until_s > now_s}
        if "g" in keys and "g" not in self._held:  # held down it repeats itself, too
            self._gripper = -1.0 if self._gripper > 0 else 1.0
        for key in set(keys) & {*_MOVES, "g"}:  # for longer than a poll, whose action may not be asked for
            self._held[key] = now_s + (HOLD_S if key in self._held else FIRST_HOLD_S)
        return Signals(
            success=bool({"\n", "\r"} & set(keys)),
            failure=bool({"\x7f", "\b"} & set(keys)),
            stop=" " in keys,
            action=action_of_keys(set(self._held), self._gripper) if self._held else None,
        )

    def ask(self, message: str) -> None:
        print(f"{message} Press Enter.", file=self.output, flush=True)
        self._held, self._gripper = {}, 0.0  # of the last episode
        self._keys()  # an Enter of before is no answer
        while not {"\n", "\r"} & set(self._keys(wait_s=0.1)):
            pass

    def close(self) -> None:
        if self._kept_settings is not None:
            import termios

            termios.tcsetattr(self.stream, termios.TCSADRAIN, self._kept_settings)
            self._kept_settings = None

    def _keys(self, wait_s: float = 0.0) -> str:
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
    :param held: keys that are down; those that move nothing do not matter
    :param gripper: the action's last entry
    :return: (7,) in [-1, 1]
    """
    action = np.zeros(7)
    for key in held & set(_MOVES):
        entry, sign = _MOVES[key]
        action[entry] += sign
    action[6] = gripper
    return action
