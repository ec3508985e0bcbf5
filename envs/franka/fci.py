"""A real Franka over its control interface (FCI), with a gripper and cameras: what runs on the real-time machine."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sb3_q2rl.envs.franka.fci_config import FCIConfig
from sb3_q2rl.envs.franka.fci_errors import robot_error
from sb3_q2rl.envs.franka.robot import Command, RobotError, RobotState

# A request may last this much longer than what it asks for: libfranka itself gives up on a silent arm after 1 s
PATIENCE_S = 2.0
# Until the first answer: starting Python, connecting, reading the robot's model
CONNECT_TIMEOUT_S = 15.0
# The arm comes to rest in about .4 s. Whoever does not answer by then loses the process, which stops the arm too.
STOP_TIMEOUT_S = 0.8


class Gripper(Protocol):
    """Methods raise :class:`RobotError`."""

    def connect(self) -> None:
        """Open the connection and make ready to move."""

    def command(self, width_m: float) -> float:
        """
        Begin to open or close, and return at once. To be told the width that is measured leaves the fingers alone, and
        what they hold.

        :return: the width, within what the gripper can do
        """

    def width_m(self) -> float:
        """:return: the newest measurement"""

    def recover(self) -> None:
        """Clear a fault."""

    def stop(self) -> None:
        """Stand still; what is held stays held. Safe at any time."""

    def close(self) -> None:
        """Close the connection."""


class Cameras(Protocol):
    """Methods raise :class:`RobotError`."""

    def connect(self) -> None:
        """Start both cameras."""

    def images(self) -> Mapping[str, np.ndarray]:
        """:return: as ``FrankaRobot.images``"""

    def close(self) -> None:
        """Stop both cameras."""


class FCIRobot:
    """
    A :class:`~sb3_q2rl.envs.franka.robot.FrankaRobot`. franky runs in a process of its own (see ``fci_process.py``):
    whatever it does, each method here returns or raises within a bound, and killing that process stops the arm.

    :param host: of the control box, e.g. "172.16.0.2"
    :param gripper: None: widths are ignored and reported as 0
    :param cameras: None: no images
    :param config: stiffness, limits and tool
    """

    def __init__(
        self, host: str, gripper: Gripper | None = None, cameras: Cameras | None = None, config: FCIConfig | None = None
    ) -> None:
        self._host = host
        self._gripper = gripper
        self._cameras = cameras
        self._config = FCIConfig() if config is None else config
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: Connection
        self._stops: Connection
        self._request_lock = threading.RLock()
        self._stop_lock = threading.RLock()

    def connect(self) -> None:
        try:
            if self._process is None:
                self._start(clear_errors=False)
            if self._gripper is not None:
                self._gripper.connect()
            if self._cameras is not None:
                self._cameras.connect()
        except (RobotError, ImportError):
            self.close()
            raise

    def state(self) -> RobotState:
        width_m = 0.0 if self._gripper is None else self._gripper.width_m()
        return RobotState(gripper_width_m=width_m, **self._request("state", PATIENCE_S))

    def command(self, command: Command) -> Command:
        width_m = command.gripper_width_m if self._gripper is None else self._gripper.command(command.gripper_width_m)
        period_s = 1.0 / self._config.control_hz
        self._request(
            "command",
            period_s + PATIENCE_S,
            position_m=np.asarray(command.position_m, dtype=float),
            quaternion_xyzw=np.asarray(command.quaternion_xyzw, dtype=float),
            period_s=period_s,
        )
        return Command(command.position_m, command.quaternion_xyzw, width_m)

    def move(self, command: Command, duration_s: float) -> None:
        if self._gripper is not None:
            self._gripper.command(command.gripper_width_m)
        self._request(
            "move",
            duration_s + self._config.arrival_timeout_s + PATIENCE_S,
            position_m=np.asarray(command.position_m, dtype=float),
            quaternion_xyzw=np.asarray(command.quaternion_xyzw, dtype=float),
            duration_s=float(duration_s),
        )

    def images(self) -> Mapping[str, np.ndarray]:
        return {} if self._cameras is None else self._cameras.images()

    def recover(self) -> None:
        # A new process and connection cures what clearing the errors alone does not: a control box that was restarted
        self._end()
        self._start(clear_errors=True)
        if self._gripper is not None:
            self._gripper.recover()
        if self._cameras is not None:
            self._cameras.close()
            self._cameras.connect()

    def stop(self) -> None:
        with self._stop_lock:
            if self._process is not None:
                try:
                    self._stops.send_bytes(b"stop")
                    stopped = self._stops.poll(STOP_TIMEOUT_S) and self._stops.recv_bytes()
                except (OSError, EOFError):
                    stopped = False
                if not stopped:
                    self._kill()
        if self._gripper is not None:
            self._gripper.stop()

    def close(self) -> None:
        self._end()
        if self._gripper is not None:
            self._gripper.close()
        if self._cameras is not None:
            self._cameras.close()

    def _start(self, clear_errors: bool) -> None:
        if importlib.util.find_spec("franky") is None:
            raise ImportError("A Franka over FCI needs franky-control. Install it: pip install sb3_q2rl[franka]")
        with self._request_lock:
            self._requests, child_requests = Pipe()
            self._stops, child_stops = Pipe()
            descriptors = (child_requests.fileno(), child_stops.fileno())
            self._process = subprocess.Popen(
                # -P: the other modules of this folder shall not hide installed ones
                [sys.executable, "-P", str(Path(__file__).with_name("fci_process.py")), *map(str, descriptors)],
                pass_fds=descriptors,
                # Ctrl-C is ours to handle: we stop the arm, then end the process
                start_new_session=True,
            )
            child_requests.close()
            child_stops.close()
            try:
                self._request(
                    "connect",
                    CONNECT_TIMEOUT_S,
                    host=self._host,
                    settings=asdict(self._config),
                    clear_errors=clear_errors,
                )
            except RobotError:
                self._kill()
                raise

    def _request(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        with self._request_lock:
            if self._process is None:
                raise RobotError(f"There is no connection to the arm for `{method}`. Call `connect()` or `recover()`")
            answer: tuple[Any, ...] | None = None
            try:
                self._requests.send((method, arguments))
                if self._requests.poll(timeout_s):
                    answer = self._requests.recv()
            except (OSError, EOFError):
                raise robot_error(method, "Connection", "the process that holds the connection has ended") from None
            finally:
                if answer is None:  # Ctrl-C, too: a late answer would be taken for that of the next request
                    self._kill()
        if answer is None:
            raise robot_error(method, "Timeout", f"no answer within {timeout_s:.1f} s; the connection was cut")
        outcome, *result = answer
        if outcome == "failed":
            raise robot_error(method, *result)
        return result[0]

    def _end(self) -> None:
        """Stop the arm, then let go of it."""
        with self._stop_lock:
            self.stop()
            self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            # the pipes are left to the garbage collector: another thread may be reading
