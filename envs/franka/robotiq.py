"""A Robotiq 2F-85 over Modbus RTU: on a serial port (USB adapter), or over TCP through the robot's tool connector."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from sb3_q2rl.envs.franka.robot import RobotError
from sb3_q2rl.envs.franka.robotiq_registers import (
    ACTIVATE,
    BAUD_RATE,
    DEVICE_ID,
    FORCE_RANGE_N,
    GO,
    HOLDING,
    INPUT_REGISTER,
    MOVING,
    OPEN_WIDTH_M,
    OUTPUT_REGISTER,
    SPEED_RANGE_M_S,
    GripperStatus,
    byte_of,
    fault_error,
    parse_status,
    position_of,
    width_of,
)

POLL_PERIOD_S = 0.02
ANSWER_TIMEOUT_S = 0.2
STALE_S = 0.5
# Fingers whose position differs by so many counts are where they are asked to be
STANDS_WITHIN = 1
# It opens and closes fully once
ACTIVATION_TIMEOUT_S = 6.0


class Robotiq2F85:
    """
    A :class:`~sb3_q2rl.envs.franka.fci.Gripper`. A thread exchanges messages at 50 Hz, so no method but ``connect`` and
    ``recover`` waits. When the gripper falls silent the thread connects anew until it answers.

    :param address: "/dev/ttyUSB0", or "tcp://HOST:PORT" for RTU over TCP
    :param speed_m_s: of the fingers, .02 to .15
    :param force_n: of the grasp, 20 to 235
    :raises ValueError: address, speed or force is none of these
    """

    def __init__(self, address: str, speed_m_s: float = 0.1, force_n: float = 40.0) -> None:
        self._address = address
        self._make_client = _client_maker(address)
        speed, force = byte_of("speed_m_s", speed_m_s, *SPEED_RANGE_M_S), byte_of("force_n", force_n, *FORCE_RANGE_N)
        self._speed_and_force = speed << 8 | force
        self._client: Any = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._pending: list[int] | None = None
        # What was written last; whether no status has come since
        self._in_force: list[int] | None = None
        self._is_beginning = False
        self._status: GripperStatus

    def connect(self) -> None:
        if self._thread is None:
            self._open(activate_anew=False)

    def command(self, width_m: float) -> float:
        width_m = min(max(width_m, 0.0), OPEN_WIDTH_M)
        position = position_of(width_m)
        request = [(ACTIVATE | GO) << 8, position, self._speed_and_force]
        with self._lock:
            status = self._checked_status()
            moves = self._is_beginning or status.motion == MOVING
            # Sent to where they stand, fingers that press upon something would loosen
            stands = not moves and abs(position - status.position) <= STANDS_WITHIN
            if self._pending is not None or not (stands or request == self._in_force):
                self._pending = request
        return width_m

    def width_m(self) -> float:
        return width_of(self._checked_status().position)

    def holds_object(self) -> bool:
        """:return: something stopped the fingers before they were where they should be"""
        return self._checked_status().motion in HOLDING

    def recover(self) -> None:
        needs_activation = self._thread is None or self._status.fault != 0 or not self._status.is_active
        self.close()
        self._open(activate_anew=needs_activation)

    def stop(self) -> None:
        with self._lock:
            self._pending = None
            if self._thread is not None and (self._is_beginning or self._status.motion == MOVING):
                self._pending = [ACTIVATE << 8, 0, self._speed_and_force]

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._closing.set()
            thread.join()
            self._client.close()

    def _open(self, activate_anew: bool) -> None:
        self._client = self._make_client()
        try:
            if not self._client.connect():
                raise RobotError(
                    f"There is no gripper at {self._address}. Check the cable, the port and its permissions"
                )
            self._status = self._read()
            if activate_anew or not self._status.is_active:  # an active one may hold something: it is left alone
                self._activate()
        except Exception as error:
            self._client.close()
            raise self._as_robot_error(error) from error
        self._pending = self._in_force = None
        self._is_beginning = False
        self._closing.clear()
        self._thread = threading.Thread(target=self._exchange, name="robotiq", daemon=True)
        self._thread.start()

    def _activate(self) -> None:
        self._write([0, 0, 0])
        self._write([ACTIVATE << 8, 0, 0])
        give_up_s = time.monotonic() + ACTIVATION_TIMEOUT_S
        while not (status := self._read()).is_active:
            if time.monotonic() > give_up_s:
                raise fault_error(status.fault or 0x0D)
            time.sleep(POLL_PERIOD_S)
        self._status = status

    def _exchange(self) -> None:
        """The thread: write what is to be written, read the status, connect anew when that fails."""
        while not self._closing.wait(POLL_PERIOD_S):
            with self._lock:
                pending, self._pending = self._pending, None
                if pending is not None:
                    self._in_force, self._is_beginning = pending, True
            try:
                if pending is not None:
                    self._write(pending)
                status = self._read()
                with self._lock:
                    self._status, self._is_beginning = status, False
            except Exception:  # whatever it was: `_checked_status` reports the silence
                self._in_force = None
                self._client.close()
                self._client.connect()

    def _read(self) -> GripperStatus:
        answer = self._client.read_holding_registers(INPUT_REGISTER, count=3, device_id=DEVICE_ID)
        if answer.isError():
            raise ConnectionError(f"the gripper answered with {answer}")
        return parse_status(answer.registers, time.monotonic())

    def _write(self, registers: list[int]) -> None:
        answer = self._client.write_registers(OUTPUT_REGISTER, registers, device_id=DEVICE_ID)
        if answer.isError():
            raise ConnectionError(f"the gripper answered with {answer}")

    def _checked_status(self) -> GripperStatus:
        if self._thread is None:
            raise RobotError("There is no connection to the gripper. Call `connect()` or `recover()`")
        status = self._status
        age_s = time.monotonic() - status.time_s
        if age_s > STALE_S:
            raise RobotError(
                f"The gripper at {self._address} has not answered for {age_s:.1f} s. Check its cable and supply; "
                "`recover()` tries again."
            )
        if status.fault:
            raise fault_error(status.fault)
        if not status.is_active:
            raise RobotError(
                "The gripper lost its activation, as after a loss of power. `recover()` activates it anew."
            )
        return status

    def _as_robot_error(self, error: Exception) -> RobotError:
        if isinstance(error, RobotError):
            return error
        return RobotError(f"The gripper at {self._address} does not answer: {error}. Check its cable and supply.")


def _client_maker(address: str) -> Callable[[], Any]:
    """The import is here so that a robot without this gripper needs no pymodbus."""
    url = urlsplit(address)
    host, port = url.hostname, url.port
    if url.scheme not in ("", "tcp") or (url.scheme == "tcp") != (host is not None and port is not None):
        raise ValueError(f"`address` is {address!r}; it must be a serial port, '/dev/ttyUSB0', or 'tcp://HOST:PORT'")
    try:
        from pymodbus import FramerType
        from pymodbus.client import ModbusSerialClient, ModbusTcpClient
    except ImportError as error:
        raise ImportError("A Robotiq gripper needs pymodbus. Install it: pip install sb3_q2rl[franka]") from error
    patience: dict[str, Any] = {"framer": FramerType.RTU, "timeout": ANSWER_TIMEOUT_S, "retries": 1}
    if host is not None and port is not None:
        return lambda: ModbusTcpClient(host, port=port, **patience)
    return lambda: ModbusSerialClient(address, baudrate=BAUD_RATE, **patience)
