"""The person's devices: a terminal of the system's own, a SpaceMouse's reports through its library, sticks."""

import io
import os
import pty
import termios
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from sb3_q2rl.envs.franka.gamepads import (
    AT_ONCE_S,
    GamepadOperator,
    SpaceMouseOperator,
    action_of_cap,
    action_of_sticks,
)
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
    press(person, b"g")  # held down it repeats itself, and goes on closing
    np.testing.assert_array_equal(keyboard.poll().action, [0, 0, 0, 0, 0, 0, 1])
    time.sleep(0.55)
    keyboard.poll()
    press(person, b"gws")  # opens again, and forward and back cancel
    np.testing.assert_array_equal(keyboard.poll().action, [0, 0, 0, 0, 0, 0, -1])
    keyboard.close()


def test_the_gripper_key_is_heard_whichever_poll_it_meets_and_forgotten_by_a_question(terminal):
    person, stream = terminal
    keyboard = KeyboardOperator(stream, io.StringIO())
    keyboard.poll()
    press(person, b"g")
    assert Signals().and_then(keyboard.poll()).action is None  # the poll after a step, whose action nobody asks for
    np.testing.assert_array_equal(keyboard.poll().action, [0, 0, 0, 0, 0, 0, 1])
    agreed = threading.Timer(0.1, press, (person, b"\r"))
    agreed.start()
    keyboard.ask("Ready?")
    agreed.join()
    assert keyboard.poll() == Signals()
    press(person, b"w")
    np.testing.assert_array_equal(keyboard.poll().action, [1, 0, 0, 0, 0, 0, 0])
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


class Pygame:
    """Of pygame, the events and a joystick whose axes rest. Its queue holds as much as SDL's."""

    JOYBUTTONDOWN, JOYAXISMOTION = 1, 2

    def __init__(self) -> None:
        self.queue: list[SimpleNamespace] = []
        self.event = self

    def post(self, kind: int, button: int = 0) -> None:
        if len(self.queue) < 65_535:
            self.queue.append(SimpleNamespace(type=kind, button=button))

    def get(self, kind: int | None = None) -> list[SimpleNamespace]:
        taken = [event for event in self.queue if kind in (None, event.type)]
        self.queue = [event for event in self.queue if kind not in (None, event.type)]
        return taken

    def get_numaxes(self) -> int:
        return 4

    def get_axis(self, _: int) -> float:
        return 0.0


@pytest.fixture
def gamepad():
    operator = GamepadOperator.__new__(GamepadOperator)
    operator._pygame = operator._joystick = Pygame()
    operator._gripper = operator._gripper_until_s = 0.0
    return operator._pygame, operator


def test_a_stick_that_never_rests_leaves_room_for_the_stop_button(gamepad):
    pygame, operator = gamepad
    for _ in range(70):
        for _ in range(1000):
            pygame.post(pygame.JOYAXISMOTION)
        assert operator.poll() == Signals()
    pygame.post(pygame.JOYBUTTONDOWN, button=2)
    assert operator.poll() == Signals(stop=True)
    assert operator.poll() == Signals()


def test_the_gripper_button_is_heard_whichever_poll_it_meets_and_forgotten_by_a_question(gamepad, monkeypatch):
    pygame, operator = gamepad
    pygame.post(pygame.JOYBUTTONDOWN, button=3)
    operator.poll()
    np.testing.assert_array_equal(operator.poll().action, [0, 0, 0, 0, 0, 0, 1])
    monkeypatch.setattr(time, "sleep", lambda seconds: pygame.post(pygame.JOYBUTTONDOWN, button=7))
    operator.ask("Ready?")
    assert operator.poll() == Signals()


class Buttons:
    """A SpaceMouse whose cap rests and whose buttons are what the test says."""

    def __init__(self) -> None:
        self.buttons = [0, 0]

    def read(self) -> SimpleNamespace:
        return SimpleNamespace(t=0.0, x=0, y=0, z=0, roll=0, pitch=0, yaw=0, buttons=self.buttons)


def test_of_two_buttons_the_first_is_no_success():
    device = Buttons()
    operator = SpaceMouseOperator(device)
    device.buttons = [1, 0]
    assert operator.poll() == Signals()
    time.sleep(0.04)
    device.buttons = [1, 1]
    assert operator.poll() == Signals(stop=True)
    device.buttons = [0, 1]
    time.sleep(1.2 * AT_ONCE_S)
    assert operator.poll() == Signals()
    device.buttons = [0, 0]
    assert operator.poll() == Signals()


def test_a_button_counts_when_it_is_let_go_or_has_stayed_alone():
    device = Buttons()
    operator = SpaceMouseOperator(device)
    for buttons, expected in (([1, 0], Signals(success=True)), ([0, 1], Signals(failure=True))):
        for hold_s in (0.0, 1.2 * AT_ONCE_S):
            device.buttons = buttons
            assert operator.poll() == Signals()
            time.sleep(hold_s)
            if not hold_s:
                device.buttons = [0, 0]
            assert operator.poll() == expected
            device.buttons = [0, 0]
            assert operator.poll() == Signals()
    device.buttons = [1, 0]
    operator.poll()
    device.buttons = [0, 1]  # let go, and the other one pressed, between two looks
    assert operator.poll() == Signals(success=True)
    device.buttons = [0, 0]
    assert operator.poll() == Signals(failure=True)


@pytest.mark.parametrize("ended_by", [[1, 0], [1, 1]])
def test_the_press_that_ended_an_episode_agrees_to_nothing(ended_by):
    device = Buttons()
    operator = SpaceMouseOperator(device)
    device.buttons = ended_by
    operator.poll()
    asked = threading.Thread(target=operator.ask, args=("Ready?",))
    asked.start()
    for buttons in (ended_by, [0, 0], [1, 1], [0, 0]):  # neither does a stop
        device.buttons = buttons
        asked.join(2 * AT_ONCE_S)
        assert asked.is_alive()
    device.buttons = [0, 1]
    asked.join(1.0)
    assert not asked.is_alive()
    assert operator.poll() == Signals()  # still held: it says nothing about the episode


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
    assert operator.poll() == Signals()  # the other one may come
    time.sleep(1.2 * AT_ONCE_S)
    assert operator.poll() == Signals(failure=True)
    assert operator.poll() == Signals()  # still held
    reports.buttons(3)
    assert operator.poll() == Signals(stop=True)
    reports.buttons(0)
    assert operator.poll() == Signals()
    operator.close()
