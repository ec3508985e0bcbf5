"""
The process that holds the connection to a Franka's control box (FCI), through franky.

It is a process of its own because a call of libfranka can block for ever when the control box falls silent, and a
thread in such a call can neither be ended nor made to close its connection. A process can: when it ends the arm stops
by itself. It is run as a file (``python fci_process.py REQUESTS STOPS``, two inherited file descriptors) and imports no
package of ours, nor SciPy, so it is there in half a second. One request is answered at a time; what comes through STOPS
interrupts it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import franky
import numpy as np

# Targets come at 10 Hz. Between them the reference moves in small steps, or the arm would jerk with every one.
REFERENCE_PERIOD_S = 0.01
# Of a period; with less of it left a command has a whole one of its own, or its step would be driven in a moment
LEAST_LEFT = 0.5
# An arm whose fastest joint is slower has arrived
REST_SPEED_RAD_S = 0.02
# Of a move's duration, at each end: the speed rises and falls evenly there
RAMP_FRACTION = 0.1


class Interrupted(Exception):
    """A stop came while a request was carried out."""


def travelled(time_fraction: float) -> float:
    """
    :param time_fraction: of a move, 0 to 1
    :return: fraction of the way, with a trapezoidal speed
    """
    ramp, peak = RAMP_FRACTION, 1 / (1 - RAMP_FRACTION)
    if time_fraction < ramp:
        return peak * time_fraction**2 / (2 * ramp)
    if time_fraction > 1 - ramp:
        return 1 - peak * (1 - time_fraction) ** 2 / (2 * ramp)
    return peak * (time_fraction - ramp / 2)


def turned(start_xyzw: np.ndarray, end_xyzw: np.ndarray, fraction: float) -> np.ndarray:
    """
    :param start_xyzw: (4,) unit length
    :param end_xyzw: (4,) unit length, of either sign
    :param fraction: of the way, 0 to 1
    :return: (4,) on the shortest way between them, evenly (slerp)
    """
    cosine = float(start_xyzw @ end_xyzw)
    end_xyzw, angle = np.copysign(1.0, cosine) * end_xyzw, np.arccos(min(abs(cosine), 1.0))
    if angle < 1e-6:
        return end_xyzw
    return (np.sin((1 - fraction) * angle) * start_xyzw + np.sin(fraction * angle) * end_xyzw) / np.sin(angle)


class Way(NamedTuple):
    """From one pose and time to another."""

    start_m: np.ndarray
    start_xyzw: np.ndarray
    end_m: np.ndarray
    end_xyzw: np.ndarray
    start_s: float
    end_s: float
    travelled: Callable[[float], float] = lambda time_fraction: time_fraction

    def at(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """:return: position and (4,) quaternion"""
        fraction = self.travelled((time_s - self.start_s) / (self.end_s - self.start_s))
        position_m = self.start_m + fraction * (self.end_m - self.start_m)
        return position_m, turned(self.start_xyzw, self.end_xyzw, fraction)


class Arm:
    """
    :param stops: where a request to stop arrives
    """

    def __init__(self, stops: Connection) -> None:
        self._stops = stops
        self._robot: Any = None
        self._tracker: Any = None
        self._settings: dict[str, Any] = {}
        self._target: tuple[np.ndarray, np.ndarray]
        self._period_end_s = 0.0
        self._way: Way | None = None
        self._fault: Exception | None = None
        self._state_stamp: Any = None
        self._state_time_s = 0.0

    def connect(self, host: str, settings: dict[str, Any], clear_errors: bool) -> None:
        self._settings = settings
        realtime = {"enforce": franky.RealtimeConfig.Enforce, "ignore": franky.RealtimeConfig.Ignore}
        self._robot = franky.Robot(host, realtime_config=realtime[settings["realtime"]])
        if clear_errors:
            self._robot.recover_from_errors()
        self._robot.set_collision_behavior(float(settings["max_torque_nm"]), float(settings["max_force_n"]))
        # The tool centre point becomes the robot's end effector: poses, wrench and compliance are all about it
        flange_to_tool = franky.Affine(settings["tool_position_m"], settings["tool_quaternion_xyzw"])
        nominal_to_tool = self._robot.state.F_T_NE.inverse * flange_to_tool
        self._robot.set_ee([float(x) for x in nominal_to_tool.matrix.flatten(order="F")])
        self._robot.set_k([float(x) for x in np.eye(4).flatten()])

    def state(self) -> dict[str, Any]:
        self._raise_fault()
        state = self._robot.state
        if (stamp := state.time.to_msec()) != self._state_stamp:  # the control box's clock moved: a new measurement
            self._state_stamp, self._state_time_s = stamp, time.monotonic()
        pose = state.O_T_EE
        return {
            "time_s": self._state_time_s,
            "position_m": np.array(pose.translation),
            "quaternion_xyzw": np.array(pose.quaternion),
            "wrench": np.array(state.O_F_ext_hat_K),
            "joint_positions_rad": np.array(state.q),
            "joint_velocities_rad_s": np.array(state.dq),
        }

    def command(self, position_m: np.ndarray, quaternion_xyzw: np.ndarray, period_s: float) -> None:
        """
        Move the reference there evenly until the control period is over. It returns while the last of the way is left
        (:meth:`go_on`), so that the next command is there when the period ends.
        """
        self._start_tracker()
        if self._way is not None:
            self._follow(self._way, self._way.end_s)
            self._way = None
        now = time.monotonic()
        self._period_end_s += period_s
        if not LEAST_LEFT * period_s <= self._period_end_s - now <= period_s:  # the first one, or it came too late
            self._period_end_s = now + period_s
        self._way = Way(*self._target, position_m, quaternion_xyzw, now, self._period_end_s)
        self._follow(self._way, self._period_end_s - self._settings["deciding_s"])

    def go_on(self) -> float | None:
        """
        The next step of what is left of a command's way.

        :return: s until the one after it; None: the reference is there
        """
        if self._way is None or self._tracker is None or not self._tracker.is_running:
            return None
        now, end_s = time.monotonic(), self._way.end_s
        step_end_s = min(now + REFERENCE_PERIOD_S, end_s)
        try:
            self._refer_to(*self._way.at(step_end_s))
        except Exception as error:  # the next request is told
            self._fault = error
        if now >= end_s or self._fault is not None:
            self._way = None
            return None
        return step_end_s - now

    def move(self, position_m: np.ndarray, quaternion_xyzw: np.ndarray, duration_s: float) -> None:
        """Move the reference there in a straight line, then wait until the arm has come."""
        self._start_tracker()
        self._way, self._period_end_s, now = None, 0.0, time.monotonic()
        way = Way(*self._target, position_m, quaternion_xyzw, now, now + duration_s, travelled)
        self._follow(way, way.end_s)
        give_up_s = time.monotonic() + self._settings["arrival_timeout_s"]
        while not self._is_at_rest() and time.monotonic() < give_up_s:
            self._sleep(REFERENCE_PERIOD_S)
        distance_m = float(np.linalg.norm(np.array(self._robot.state.O_T_EE.translation) - position_m))
        if distance_m > self._settings["arrival_tolerance_m"]:
            raise TimeoutError(f"did not arrive: {1000 * distance_m:.0f} mm from the goal, {position_m.round(3)} m")

    def halt(self) -> None:
        """Come to rest. What went wrong before does not matter any more."""
        tracker, self._tracker = self._tracker, None
        self._way = self._fault = None
        if tracker is None:
            return
        try:
            tracker.stop()
        except Exception as error:
            print(f"while stopping the arm: {error}", file=sys.stderr)

    def _is_at_rest(self) -> bool:
        return bool(np.abs(self._robot.state.dq).max() < REST_SPEED_RAD_S)

    def _start_tracker(self) -> None:
        self._raise_fault()
        if self._tracker is not None:
            return
        pose = self._robot.state.O_T_EE
        self._target = (np.array(pose.translation), np.array(pose.quaternion))
        clip = self._settings["position_error_clip_m"]
        self._tracker = franky.CartesianImpedanceTracker(
            self._robot,
            translational_stiffness=float(self._settings["translational_stiffness"]),
            rotational_stiffness=float(self._settings["rotational_stiffness"]),
            translational_error_clip=np.full(3, clip, dtype=float),
        )

    def _raise_fault(self) -> None:
        """Raise what ended the control loop, if something did."""
        if self._fault is not None:
            raise self._fault
        if self._tracker is not None and not self._tracker.is_running:
            self._tracker = None
            self._robot.join_motion(timeout=1.0)
            raise RuntimeError("the control loop ended without giving a reason")

    def _follow(self, way: Way, until_s: float) -> None:
        """In small steps, each due when the next one begins; none where that time has passed."""
        step_end_s = time.monotonic()
        while step_end_s < until_s:
            step_end_s = min(time.monotonic() + REFERENCE_PERIOD_S, until_s)
            self._raise_fault()
            self._refer_to(*way.at(step_end_s))
            self._sleep(step_end_s - time.monotonic())

    def _refer_to(self, position_m: np.ndarray, quaternion_xyzw: np.ndarray) -> None:
        self._target = (position_m, quaternion_xyzw)
        self._tracker.set_target(franky.Affine(position_m, quaternion_xyzw))

    def _sleep(self, seconds: float) -> None:
        if self._stops.poll(max(0.0, seconds)):
            raise Interrupted
        self._raise_fault()


def main() -> None:
    requests, stops = Connection(int(sys.argv[1])), Connection(int(sys.argv[2]))
    arm = Arm(stops)
    try:
        while True:
            ready = wait([requests, stops], timeout=arm.go_on())
            if not ready:
                continue
            if stops in ready:
                stops.recv_bytes()
                arm.halt()
                stops.send_bytes(b"stopped")
                continue
            method, arguments = requests.recv()
            try:
                requests.send(("done", getattr(arm, method)(**arguments)))
            except Interrupted:  # the stop itself is answered above
                requests.send(("failed", "Interrupted", "stopped by `stop()`"))
            except Exception as error:
                arm.halt()
                requests.send(("failed", type(error).__name__, str(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # our parent is gone
        arm.halt()


if __name__ == "__main__":
    main()
