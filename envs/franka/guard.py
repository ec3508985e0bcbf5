"""Nothing reaches the arm but through here: limits in every command and every reset."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from sb3_q2rl.envs.franka.reset_path import Waypoint, led_by, reset_path, towards, travel_s
from sb3_q2rl.envs.franka.robot import Command, RobotState
from sb3_q2rl.envs.franka.rotations import angle_between
from sb3_q2rl.envs.franka.safety import limit_command, nearest_inside, outside
from sb3_q2rl.envs.franka.stopping_robot import StoppingRobot

# So near is there; an impedance controller gives way under friction and gravity
ARRIVED_M, ARRIVED_RAD = 0.02, 0.1
# A reset that takes so many times its time is blocked; fingers need so many periods
PATIENCE, GRIPPER_PERIODS = 3.0, 10


class GuardedRobot(StoppingRobot):
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
        self.forget_state()

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
            raise self.stop_for("a command held numbers that are not finite. Check the policy that gave it.")
        off_m, off_rad = outside(state, self.limits)
        if off_m > self.limits.max_outside_m or off_rad > self.limits.max_outside_rad:
            raise self.stop_for(
                f"the tool is {100 * off_m:.1f} cm out of the workspace, and {off_rad:.2f} rad beyond tilt and yaw. "
                "Was it pushed? A reset leads it back."
            )
        last = self._here(state) if self.target is None else self.target
        sent = self._send(limit_command(state, last, command, self.limits))
        self._deadline_s = time.monotonic() + self.limits.watchdog_s
        return sent

    def move(self, command: Command, duration_s: float = 0.0, attend: Callable[[], object] = lambda: None) -> None:
        """
        Fingers first, then up, over and down. No faster than ``travel_speed_m_s`` and ``travel_speed_rad_s``.

        :param command: the goal; it is limited, too
        :param duration_s: of the whole way, if that is slower
        :param attend: called before each command: a person's stop shall be heard on the way, too
        :raises RobotError: a fault, or something in the way: the arm was stopped
        """
        state = self._come_inside(self.state(), attend)
        here = self._here(state)
        if self.target is not None:
            here = Command(here.position_m, here.quaternion_xyzw, self.target.gripper_width_m)
        self.begin(here)
        if here.gripper_width_m != command.gripper_width_m:
            fingers = Command(here.position_m, here.quaternion_xyzw, command.gripper_width_m)
            for _ in range(GRIPPER_PERIODS):
                attend()
                self.command(fingers)
        corners = reset_path(state, command, self.limits)
        places = [Waypoint(here.position_m, here.quaternion_xyzw), *corners]
        whole_s = sum(travel_s(a, b, self.limits) for a, b in pairwise(places))
        slower = max(1.0, duration_s / max(whole_s, self.period_s))
        for corner in corners:
            self._travel(corner, command.gripper_width_m, slower, attend)
        self._arrive(corners[-1], command.gripper_width_m, attend)
        self._deadline_s = None

    # ------------------------------------------------------------------ what it is made of

    def _send(self, command: Command) -> Command:
        self._refuse_if_faulty()  # the watchdog may have stopped the arm since the measurement
        self.forget_state()
        self.target = self._call("command", lambda: self.robot.command(command), self.period_s)
        return self.target

    def _here(self, state: RobotState) -> Command:
        place = nearest_inside(state.position_m, state.quaternion_xyzw, self.limits)
        return Command(*place, min(state.gripper_width_m, self.limits.max_gripper_width_m))

    def _come_inside(self, state: RobotState, attend: Callable[[], object]) -> RobotState:
        """From out of the box straight into it, in steps of which each is nearer and leads the arm by little."""
        off_m, off_rad = outside(state, self.limits)
        if off_m > self.limits.max_approach_m or off_rad > 1.0:
            raise self.stop_for(
                f"the tool is {100 * off_m:.0f} cm out of the workspace, and {off_rad:.1f} rad beyond tilt and yaw, "
                "too far for a reset. Guide the arm by hand into it, pointing down, then go on with "
                "reset(options={'person_checked': True}).",
                recoverable=False,
            )
        goal = Waypoint(*nearest_inside(state.position_m, state.quaternion_xyzw, self.limits))
        place, width = Waypoint(state.position_m, state.quaternion_xyzw), state.gripper_width_m
        if self.target is not None:
            width = self.target.gripper_width_m
        if max(off_m, off_rad) < 1e-3:
            return state
        for _ in range(self._patience(travel_s(place, goal, self.limits))):
            if travel_s(place, goal, self.limits) < 1e-3 * self.period_s:
                return state
            attend()
            place = led_by(state, towards(place, goal, self.period_s, self.limits), self.limits)
            self._send(Command(*place, width))
            state = self._measure()
        raise self.stop_for(self._blocked(goal))

    def _travel(self, corner: Waypoint, width_m: float, slower: float, attend: Callable[[], object]) -> None:
        assert self.target is not None
        way_s = slower * travel_s(Waypoint(self.target.position_m, self.target.quaternion_xyzw), corner, self.limits)
        for _ in range(self._patience(way_s)):
            place = Waypoint(self.target.position_m, self.target.quaternion_xyzw)
            if travel_s(place, corner, self.limits) < 1e-3 * self.period_s:
                return
            attend()
            self.command(Command(*towards(place, corner, self.period_s / slower, self.limits), width_m))
        raise self.stop_for(self._blocked(corner))

    def _arrive(self, goal: Waypoint, width_m: float, attend: Callable[[], object]) -> None:
        for _ in range(int(1.0 / self.period_s) + 1):
            state = self.state()
            off_m = np.linalg.norm(state.position_m - goal.position_m)
            if off_m < ARRIVED_M and angle_between(state.quaternion_xyzw, goal.quaternion_xyzw) < ARRIVED_RAD:
                return
            attend()
            self.command(Command(*goal, width_m))
        raise self.stop_for(self._blocked(goal))

    def _patience(self, way_s: float) -> int:
        """Periods until a way that takes so long counts as blocked."""
        return int(np.ceil(PATIENCE * way_s / self.period_s)) + 5

    def _blocked(self, goal: Waypoint) -> str:
        assert self.target is not None
        off_m = np.linalg.norm(self._measure().position_m - goal.position_m)
        return (
            f"a reset did not arrive: the tool is {100 * off_m:.1f} cm from {np.round(goal.position_m, 3).tolist()}. "
            "Is something in the way?"
        )
