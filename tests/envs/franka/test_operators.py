"""The person's devices: a terminal of the system's own, a SpaceMouse's reports through its library, sticks."""

import io
import os
import pty
import termios
import threading
import time

import numpy as np
import pytest

from sb3_q2rl.envs.franka.gamepads import GamepadOperator, SpaceMouseOperator, action_of_cap, action_of_sticks
from sb3_q2rl.envs.franka.operators import KeyboardOperator, Signals, action_of_keys


@pytest.fixture
def terminal():
    """The person's end of a terminal, and the program's."""
    person, program = pty.openpty()
    with os.fdopen(program, "r+b", buffering=0) as raw, io.TextIOWrapper(raw, write_through=True) as stream:
        yield person, stream
    os.close(person)


def press(person: int, keys: bytes) -> None:
    os.write(person, keys)
    time.sleep(0.05)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (b"", (False, False, False)),
        (b"\r", (True, False, False)),
        (b"\x7f", (False, True, False)),
        (b" ", (False, False, True)),
        (b"x \r", (True, False, True)),
    ],
)
def test_keys_end_episodes(terminal, keys, expected):
    person, stream = terminal
    keyboard = KeyboardOperator(stream)
    assert keyboard.poll() == Signals()
    press(person, keys)
    signals = keyboard.poll()
    assert (signals.success, signals.failure, signals.stop) == expected
    assert keyboard.poll() == Signals()
    keyboard.close()


def test_keys_act_while_they_are_held(terminal):
    person, stream = terminal
    keyboard = KeyboardOperator(stream)
    keyboard.poll()
    press(person, b"wr")
    np.testing.assert_array_equal(keyboard.poll().action, [1, 0, 1, 0, 0, 0, 0])
    press(person, b"w")  # repeats
    np.testing.assert_array_equal(keyboard.poll().action, [1, 0, 1, 0, 0, 0, 0])
    time.sleep(0.55)
    assert keyboard.poll().action is None
    press(person, b"g")
    np.testing.assert_array_equal(keyboard.poll().action, [0, 0, 0, 0, 0, 0, 1])
    press(person, b"gws")  # opens again, and forward and back cancel
    np.testing.assert_array_equal(keyboard.poll().action, [0, 0, 0, 0, 0, 0, -1])
    keyboard.close()


def test_the_terminal_is_given_back(terminal):
    _, stream = terminal
    before = termios.tcgetattr(stream)
    keyboard = KeyboardOperator(stream)
    assert termios.tcgetattr(stream) == before
    keyboard.poll()
    assert not termios.tcgetattr(stream)[3] & termios.ICANON
    keyboard.close()
    assert termios.tcgetattr(stream) == before
    keyboard.close()


def test_a_question_waits_for_a_fresh_answer(terminal):
    person, stream = terminal
    output = io.StringIO()
    keyboard = KeyboardOperator(stream, output)
    keyboard.poll()
    press(person, b"\r")  # of before
    asked = threading.Thread(target=keyboard.ask, args=("Ready?",))
    asked.start()
    asked.join(0.3)
    assert asked.is_alive()
    press(person, b"\r")
    asked.join(1.0)
    assert not asked.is_alive()
    assert output.getvalue() == "Ready? Press Enter.\n"
    keyboard.close()


def test_no_terminal():
    with pytest.raises(ValueError, match="no terminal"):
        KeyboardOperator(io.StringIO())


def test_keys_and_sticks_and_caps():
    np.testing.assert_array_equal(action_of_keys({"s", "d", "e", "f"}, 0.0), [-1, -1, -1, 0, 0, -1, 0])
    # left stick up: forward; right stick down: down; right stick left: turn left
    six = np.array([0.0, -1.0, -1.0, -1.0, 1.0, -1.0])
    np.testing.assert_array_equal(action_of_sticks(six, 1.0), [1, 0, -1, 0, 0, 1, 1])
    np.testing.assert_array_equal(action_of_sticks(six[[0, 1, 3, 4]], 1.0), [1, 0, -1, 0, 0, 1, 1])
    assert not action_of_sticks(np.full(6, 0.14), 0.0).any()
    half = action_of_sticks(np.array([0.575, 0, 0, 0, 0, 0]), 0.0)
    np.testing.assert_allclose(half[1], -0.5)
    assert not action_of_cap(np.full(6, -0.1)).any()
    np.testing.assert_allclose(action_of_cap(np.array([1.2, 0.55, 0, 0, 0, -1])), [1, 0.5, 0, 0, 0, -1, 0])


def test_no_gamepad():
    pytest.importorskip("pygame", reason="needs the extra `gamepad`")
    with pytest.raises(ValueError, match="99, but .* gamepads were found"):
        GamepadOperator(99)


class Reports:
    """What hidapi gives for a SpaceMouse: one report a read, nothing when there is none."""

    product_string = manufacturer_string = serial_number = "x"
    release_number = 1

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def read(self, size: int) -> bytes:
        return self.waiting.pop(0) if self.waiting else b""

    def cap(self, x: int = 0, y: int = 0, z: int = 0) -> None:
        """Counts of the device: right, towards the person, down."""
        self.waiting.append(bytes([1]) + b"".join(value.to_bytes(2, "little", signed=True) for value in (x, y, z)))

    def buttons(self, bits: int) -> None:
        self.waiting.append(bytes([3, bits, 0]))


@pytest.fixture
def space_mouse():
    library = pytest.importorskip("pyspacemouse", reason="needs the extra `gamepad`")
    convention = library.AxisConvention.ROS
    info = library.apply_axis_convention(library.get_device_specs()["SpaceNavigator"], convention)
    reports = Reports()
    device = library.SpaceMouseDevice(info, reports)
    device.open()
    return reports, SpaceMouseOperator(device)


def test_a_cap_moves_the_tool(space_mouse):
    reports, operator = space_mouse
    assert operator.poll() == Signals()
    for _ in range(50):
        reports.cap(x=100)
    reports.cap(x=0, y=-350, z=-350)  # away from the person, and up: the newest report counts
    np.testing.assert_allclose(operator.poll().action, [1, 0, 1, 0, 0, 0, 0])
    assert not reports.waiting
    reports.cap()
    assert operator.poll() == Signals()


def test_buttons_of_a_space_mouse(space_mouse):
    reports, operator = space_mouse
    operator.poll()
    reports.buttons(1)
    reports.buttons(0)
    assert operator.poll() == Signals(success=True)
    reports.buttons(2)
    assert operator.poll() == Signals(failure=True)
    assert operator.poll() == Signals()  # still held
    reports.buttons(3)
    assert operator.poll() == Signals(stop=True)
    reports.buttons(0)
    assert operator.poll() == Signals()
    operator.close()
