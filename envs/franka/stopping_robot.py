"""A robot that stops at the first fault, however its driver behaves, and recovers so often and no more."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from sb3_q2rl.envs.franka.bounded import BoundedCalls, CallHangsError
from sb3_q2rl.envs.franka.robot import Command, FrankaRobot, RobotError, RobotState
from sb3_q2rl.envs.franka.safety import Limits, fault_of

Result = TypeVar("Result")

# Grippers need seconds to activate
CONNECT_S = 30.0
WATCH_EVERY_S = 0.02


class StoppingRobot:
    """
    Every call to the robot goes through ``_call``. What goes wrong there stops the arm, from a second thread if the
    first one hangs, and nothing is called any more until ``recover``.

    :param robot: what to call
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
        # Measured last, also where it stopped the arm
        self.force_n = 0.0
        self._fault: RobotError | None = None
        self._state: RobotState | None = None
        self._recoveries: deque[float] = deque()
        self._calls, self._stops = BoundedCalls(), BoundedCalls()
        self._deadline_s: float | None = None
        self._watching: threading.Event | None = None

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
        if self._state is not None and not self.real_time:
            return self._state
        self._state = self._measure()
        return self._state

    def forget_state(self) -> None:
        """A simulator was changed: measure anew."""
        self._state = None

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
        self._fault = None
        self._state = None
        self.target = None

    def stop_for(self, message: str, recoverable: bool = True) -> RobotError:
        """
        Stop, and let nothing move until ``recover``.

        :param message: why, and what to do
        :param recoverable: False: only after ``person_checked``
        :return: what to raise
        """
        self._fault = RobotError(message, recoverable)
        self._state = None
        try:
            self.stop()
        except RobotError as error:
            self._fault = RobotError(f"{message} And {error}", recoverable=False)
        except Exception as error:
            self._fault = RobotError(f"{message} And stop() raised {type(error).__name__}: {error}", recoverable=False)
        return self._fault

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
                self._state = None
                self.target = None

    def _measure(self) -> RobotState:
        state = self._call("state", self.robot.state)
        if np.isfinite(force_n := np.linalg.norm(state.wrench[:3])):
            self.force_n = float(force_n)
        fault = fault_of(state, time.monotonic() if self.real_time else None, self.limits)
        if fault is not None:
            raise self.stop_for(fault)
        return state

    def _call(self, what: str, call: Callable[[], Result], takes_s: float = 0.0) -> Result:
        limit_s = takes_s + self.limits.call_limit_s
        try:
            return self._calls.run(call, limit_s) if self.real_time else call()
        except CallHangsError as error:
            raise self.stop_for(f"the robot's {what}() did not return within {limit_s:.1f} s.") from error
        except RobotError as error:
            raise self.stop_for(str(error), error.recoverable) from error
        except Exception as error:  # whatever a driver may raise: the arm stops first
            raise self.stop_for(f"the robot's {what}() raised {type(error).__name__}: {error}") from error

    def _refuse_if_faulty(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(WATCH_EVERY_S):
            deadline_s = self._deadline_s
            if deadline_s is not None and time.monotonic() > deadline_s:
                self.stop_for(
                    f"no command came for {self.limits.watchdog_s} s within an episode (`watchdog_s`). "
                    "What kept the program: learning in the same process?"
                )
