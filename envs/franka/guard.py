"""Nothing reaches the arm but through here: limits, stops, bounds on calls that hang, and recovery that ends."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TypeVar

import numpy as np

from sb3_q2rl.envs.franka.bounded import BoundedCalls, CallHangsError
from sb3_q2rl.envs.franka.reset_path import Waypoint, reset_path
from sb3_q2rl.envs.franka.robot import Command, FrankaRobot, RobotError, RobotState
from sb3_q2rl.envs.franka.rotations import angle_between, from_rotation_vector, inverse, product, to_rotation_vector
from sb3_q2rl.envs.franka.safety import Limits, fault_of, limit_command, nearest_inside, outside

Result = TypeVar("Result")

# Grippers need seconds to activate
CONNECT_S = 30.0
# So near is there; an impedance controller gives way under friction and gravity
ARRIVED_M, ARRIVED_RAD = 0.02, 0.1
# A reset that takes so many times its time is blocked; fingers need so many periods
PATIENCE, GRIPPER_PERIODS = 3.0, 10
WATCH_EVERY_S = 0.02


class GuardedRobot:
    """
    A robot that keeps the limits. It is a :class:`FrankaRobot` itself, so whoever drives one can drive this.

    - Commands are limited (:func:`limit_command`), measurements checked before and after each (:func:`fault_of`).
    - ``move`` goes up, over and down by commands at the control rate: what guards an episode guards a reset.
    - A watchdog thread stops the arm when an episode's next command does not come.
    - No call waits for ever: one that hangs raises :class:`RobotError`, and a second thread stops the arm.
    - After a fault nothing moves until ``recover``, which may be called ``max_recoveries`` times in
      ``recovery_window_s``. Then only a person helps: ``person_checked``.

    :param robot: what to guard
    :param limits: the limits
    :param period_s: the robot's control period
    :param real_time: False for a simulator, which waits for its caller: no thread, no watchdog, no stale data
    """

    def __init__(self, robot: FrankaRobot, limits: Limits, period_s: float = 0.1, real_time: bool = True) -> None:
        self.robot = robot
        self.limits = limits
        self.period_s = period_s
        self.real_time = real_time
        self.target: Command | None = None
        self._fault: RobotError | None = None
        self._state: RobotState | None = None
        self._recoveries: deque[float] = deque()
        self._calls, self._stops = BoundedCalls(), BoundedCalls()
        self._deadline_s: float | None = None
        self._watching: threading.Event | None = None

    # ------------------------------------------------------------------ the robot, guarded

    def connect(self) -> None:
        """Open the connections. What the arm does first is left to ``begin`` or ``move``."""
        self._call("connect", self.robot.connect, CONNECT_S)
        if self.real_time and self._watching is None:
            self._watching = threading.Event()
            threading.Thread(target=self._watch, args=(self._watching,), name="watchdog", daemon=True).start()

    def state(self) -> RobotState:
        """
        :return: the newest measurement, which is sound
        :raises RobotError: it is not: the arm was stopped
        """
        self._refuse_if_faulty()
        if self._state is None or self.real_time:
            self._state = self._measure()
        return self._state

    def images(self) -> Mapping[str, np.ndarray]:
        """:return: see :class:`FrankaRobot`"""
        self._refuse_if_faulty()
        return self._call("images", self.robot.images)

    def begin(self, target: Command) -> None:
        """
        Steps and the spring's limit count from here.

        :param target: where the robot is pulled already
        """
        self.target = target
        self._state = None

    def command(self, command: Command) -> Command:
        """
        :param command: an absolute target, of any size
        :return: what was executed
        :raises RobotError: a fault: the arm was stopped
        """
        self._deadline_s = None
        state = self.state()
        numbers = np.concatenate([command.position_m, command.quaternion_xyzw, [command.gripper_width_m]])
        if not np.isfinite(numbers).all():
            raise self._stop_for("a command held numbers that are not finite. Check the policy that gave it.")
        off_m, off_rad = outside(state, self.limits)
        if off_m > self.limits.max_outside_m or off_rad > self.limits.max_outside_rad:
            raise self._stop_for(
                f"the tool is {100 * off_m:.1f} cm out of the workspace, and {off_rad:.2f} rad beyond tilt and yaw. "
                "Was it pushed? A reset leads it back."
            )
        last = self._here(state) if self.target is None else self.target
        sent = self._send(limit_command(state, last, command, self.limits))
        self._deadline_s = time.monotonic() + self.limits.watchdog_s
        return sent

    def move(self, command: Command, duration_s: float = 0.0) -> None:
        """
        Fingers first, then up, over and down. No faster than ``travel_speed_m_s`` and ``travel_speed_rad_s``.

        :param command: the goal; it is limited, too
        :param duration_s: of the whole way, if that is slower
        :raises RobotError: a fault, or something in the way: the arm was stopped
        """
        state = self._come_inside(self.state())
        here = self._here(state)
        if self.target is not None:
            here = Command(here.position_m, here.quaternion_xyzw, self.target.gripper_width_m)
        self.begin(here)
        if here.gripper_width_m != command.gripper_width_m:
            fingers = Command(here.position_m, here.quaternion_xyzw, command.gripper_width_m)
            for _ in range(GRIPPER_PERIODS):
                self.command(fingers)
        corners = reset_path(state, command, self.limits)
        places = [Waypoint(here.position_m, here.quaternion_xyzw), *corners]
        whole_s = sum(self._travel_s(a, b) for a, b in pairwise(places))
        slower = max(1.0, duration_s / max(whole_s, self.period_s))
        for corner in corners:
            self._travel(corner, command.gripper_width_m, slower)
        self._arrive(corners[-1], command.gripper_width_m)
        self._deadline_s = None

    def recover(self) -> None:
        """
        Make ready to move again, after a fault.

        :raises RobotError: it does not work, or a person must look first
        """
        if self._fault is not None and not self._fault.recoverable:
            raise self._fault
        now_s, window_s = time.monotonic(), self.limits.recovery_window_s
        while self._recoveries and now_s - self._recoveries[0] > window_s:
            self._recoveries.popleft()
        if len(self._recoveries) >= self.limits.max_recoveries:
            self._fault = RobotError(
                f"{len(self._recoveries)} faults within {window_s:.0f} s, the last one: {self._fault}. Look for their "
                "cause, then go on with reset(options={'person_checked': True}).",
                recoverable=False,
            )
            raise self._fault
        if self.real_time:  # faults of a simulator harm nobody
            self._recoveries.append(now_s)
        self._call("recover", self.robot.recover, CONNECT_S)
        self._fault = self._state = self.target = None

    def stopped_by_person(self) -> RobotError:
        """:return: what to raise, after the arm has stopped"""
        return self._stop_for("a person stopped the arm.", recoverable=False)

    def person_checked(self) -> None:
        """A person has looked: recoveries count from nought again."""
        self._recoveries.clear()
        if self._fault is not None:
            self._fault = RobotError(str(self._fault), recoverable=True)

    def stop(self) -> None:
        """
        Stand still now, even if another call hangs.

        :raises RobotError: the robot does not answer
        """
        self._deadline_s = None
        try:
            if self.real_time:
                self._stops.run(self.robot.stop, self.limits.call_limit_s)
            else:
                self.robot.stop()
        except CallHangsError as error:
            self._fault = RobotError(
                "the robot did not answer when it was to stop. Press the emergency stop, then see to its connection.",
                recoverable=False,
            )
            raise self._fault from error

    def close(self) -> None:
        """Stop, and close the connections, also after a fault."""
        if self._watching is not None:
            self._watching.set()
            self._watching = None
        try:
            self.stop()
        finally:
            try:
                if self.real_time:
                    self._calls.run(self.robot.close, CONNECT_S)
                else:
                    self.robot.close()
            except CallHangsError as error:
                raise RobotError("the robot's connections would not close; it was stopped before.") from error
            finally:
                self._calls.close()
                self._stops.close()
                self._state = self.target = None

    # ------------------------------------------------------------------ what it is made of

    def _measure(self) -> RobotState:
        state = self._call("state", self.robot.state)
        fault = fault_of(state, time.monotonic() if self.real_time else None, self.limits)
        if fault is not None:
            raise self._stop_for(fault)
        return state

    def _send(self, command: Command) -> Command:
        self._state = None
        self.target = self._call("command", lambda: self.robot.command(command), self.period_s)
        return self.target

    def _here(self, state: RobotState) -> Command:
        place = nearest_inside(state.position_m, state.quaternion_xyzw, self.limits)
        return Command(*place, min(state.gripper_width_m, self.limits.max_gripper_width_m))

    def _come_inside(self, state: RobotState) -> RobotState:
        """From out of the box straight into it, in steps of which each is nearer."""
        off_m, off_rad = outside(state, self.limits)
        if off_m > self.limits.max_approach_m or off_rad > 1.0:
            raise self._stop_for(
                f"the tool is {100 * off_m:.0f} cm out of the workspace, and {off_rad:.1f} rad beyond tilt and yaw, "
                "too far for a reset. Guide the arm by hand into it, pointing down, then go on with "
                "reset(options={'person_checked': True}).",
                recoverable=False,
            )
        goal = Waypoint(*nearest_inside(state.position_m, state.quaternion_xyzw, self.limits))
        place, width = Waypoint(state.position_m, state.quaternion_xyzw), state.gripper_width_m
        if self.target is not None:
            width = self.target.gripper_width_m
        n_steps = int(np.ceil(self._travel_s(place, goal) / self.period_s))
        for _ in range(n_steps if max(off_m, off_rad) > 1e-3 else 0):
            place = self._towards(place, goal)
            self._send(Command(*place, width))
            state = self._measure()
        return state

    def _travel(self, corner: Waypoint, width_m: float, slower: float) -> None:
        assert self.target is not None
        way_s = slower * self._travel_s(Waypoint(self.target.position_m, self.target.quaternion_xyzw), corner)
        for _ in range(int(np.ceil(PATIENCE * way_s / self.period_s)) + 5):
            place = Waypoint(self.target.position_m, self.target.quaternion_xyzw)
            if self._travel_s(place, corner) < 1e-3 * self.period_s:
                return
            self.command(Command(*self._towards(place, corner, slower), width_m))
        raise self._stop_for(self._blocked(corner))

    def _arrive(self, goal: Waypoint, width_m: float) -> None:
        for _ in range(int(1.0 / self.period_s) + 1):
            state = self.state()
            off_m = np.linalg.norm(state.position_m - goal.position_m)
            if off_m < ARRIVED_M and angle_between(state.quaternion_xyzw, goal.quaternion_xyzw) < ARRIVED_RAD:
                return
            self.command(Command(*goal, width_m))
        raise self._stop_for(self._blocked(goal))

    def _blocked(self, goal: Waypoint) -> str:
        assert self.target is not None
        off_m = np.linalg.norm(self._measure().position_m - goal.position_m)
        return (
            f"a reset did not arrive: the tool is {100 * off_m:.1f} cm from {np.round(goal.position_m, 3).tolist()}. "
            "Is something in the way?"
        )

    def _travel_s(self, a: Waypoint, b: Waypoint) -> float:
        way_m = np.linalg.norm(b.position_m - a.position_m)
        turn_rad = angle_between(b.quaternion_xyzw, a.quaternion_xyzw)
        return float(max(way_m / self.limits.travel_speed_m_s, turn_rad / self.limits.travel_speed_rad_s))

    def _towards(self, a: Waypoint, b: Waypoint, slower: float = 1.0) -> Waypoint:
        """One period's way from a to b."""
        part = min(1.0, self.period_s / max(slower * self._travel_s(a, b), 1e-9))
        turn = to_rotation_vector(product(b.quaternion_xyzw, inverse(a.quaternion_xyzw)))
        quaternion = product(from_rotation_vector(part * turn), a.quaternion_xyzw)
        return Waypoint(a.position_m + part * (b.position_m - a.position_m), quaternion)

    # ------------------------------------------------------------------ faults

    def _call(self, what: str, call: Callable[[], Result], takes_s: float = 0.0) -> Result:
        limit_s = takes_s + self.limits.call_limit_s
        try:
            return self._calls.run(call, limit_s) if self.real_time else call()
        except CallHangsError as error:
            raise self._stop_for(f"the robot's {what}() did not return within {limit_s:.1f} s.") from error
        except RobotError as error:
            raise self._stop_for(str(error), error.recoverable) from error
        except Exception as error:  # whatever a driver may raise: the arm stops first
            raise self._stop_for(f"the robot's {what}() raised {type(error).__name__}: {error}") from error

    def _stop_for(self, message: str, recoverable: bool = True) -> RobotError:
        """Stop, remember why, and give what to raise."""
        self._fault = RobotError(message, recoverable)
        self._state = None
        try:
            self.stop()
        except RobotError as error:
            self._fault = RobotError(f"{message} And {error}", recoverable=False)
        except Exception as error:
            self._fault = RobotError(f"{message} And stop() raised {type(error).__name__}: {error}", recoverable=False)
        return self._fault

    def _refuse_if_faulty(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(WATCH_EVERY_S):
            deadline_s = self._deadline_s
            if deadline_s is not None and time.monotonic() > deadline_s:
                self._stop_for(
                    f"no command came for {self.limits.watchdog_s} s within an episode (`watchdog_s`). "
                    "What kept the program: learning in the same process?"
                )
