"""Nothing passes the guard: limits on the way of resets too, faults that stop, calls that hang, recovery that ends."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from toy_robot import ToyRobot

from sb3_q2rl.envs.franka.guard import GuardedRobot
from sb3_q2rl.envs.franka.robot import Command, RobotError
from sb3_q2rl.envs.franka.rotations import angle_between, from_tilt_and_yaw
from sb3_q2rl.envs.franka.safety import Limits, outside

LIMITS = Limits((0.4, -0.1, 0.05), (0.6, 0.1, 0.3), call_limit_s=0.2, watchdog_s=0.15)
HOME = np.array([1.0, 0, 0, 0])
START = Command(np.array([0.5, 0.0, 0.2]), HOME, 0.04)


def guarded(robot: ToyRobot, real_time: bool = False, **changes) -> GuardedRobot:
    guard = GuardedRobot(robot, replace(LIMITS, **changes), real_time=real_time)
    guard.connect()
    return guard


def ways(robot: ToyRobot) -> np.ndarray:
    return np.array([command.position_m for command in robot.sent])


def test_every_command_is_limited():
    robot = ToyRobot(follows=0.3)
    guard = guarded(robot)
    guard.begin(START)
    rng = np.random.default_rng(0)
    for _ in range(300):
        sent = guard.command(Command(rng.normal(0.5, 0.3, 3), rng.normal(size=4), rng.normal()))
        assert sent is robot.sent[-1]
        np.testing.assert_array_equal(sent.position_m, guard.target.position_m)
    assert (ways(robot) >= LIMITS.low_m).all()
    assert (ways(robot) <= LIMITS.high_m).all()
    assert np.linalg.norm(np.diff(ways(robot), axis=0), axis=1).max() <= LIMITS.max_step_m + 1e-9


def test_a_reset_goes_up_over_and_down():
    robot = ToyRobot((0.42, -0.08, 0.06))
    guard = guarded(robot)
    goal = Command(np.array([0.58, 0.07, 0.1]), from_tilt_and_yaw(np.array([0.0, 0.1, 0.5]), HOME), 0.04)
    guard.move(goal)
    way = ways(robot)
    np.testing.assert_allclose(robot.pose.position_m, goal.position_m, atol=1e-9)
    assert angle_between(robot.pose.quaternion_xyzw, goal.quaternion_xyzw) < 1e-6
    # sideways only at the top, and no faster than resets may
    sideways = np.linalg.norm(np.diff(way[:, :2], axis=0), axis=1) > 1e-9
    np.testing.assert_allclose(way[1:][sideways, 2], 0.3, atol=1e-9)
    speed = np.linalg.norm(np.diff(way, axis=0), axis=1).max() / guard.period_s
    assert speed <= LIMITS.travel_speed_m_s + 1e-9
    assert (way >= LIMITS.low_m).all()
    assert (way <= LIMITS.high_m).all()
    # half a rad at half a rad a second, 0.24 m and 0.226 m and 0.2 m at 0.1 m/s
    assert len(way) == pytest.approx((2.4 + 2.26 + 2.0) * 10, abs=4)


def test_a_slow_reset_takes_its_time():
    robot = ToyRobot((0.5, 0.0, 0.1))
    guarded(robot).move(replace(START, position_m=np.array([0.5, 0.0, 0.2])), duration_s=3.0)
    assert len(robot.sent) == pytest.approx(30, abs=2)
    assert np.ptp(ways(robot)[:, 2]) < 0.1 + 1e-9  # straight up: no need to cross the box


def test_fingers_move_before_the_arm():
    robot = ToyRobot()
    guarded(robot).move(replace(START, position_m=np.array([0.45, 0, 0.2]), gripper_width_m=0.0))
    widths = np.array([command.gripper_width_m for command in robot.sent])
    assert (widths == 0).all()
    np.testing.assert_allclose(ways(robot)[:10], np.tile([0.5, 0.0, 0.2], (10, 1)))


def test_a_reset_from_outside_only_comes_nearer():
    robot = ToyRobot((0.3, 0.0, 0.6))
    guard = guarded(robot)
    guard.move(START)
    states = [replace(robot.state(), position_m=p) for p in ways(robot)]
    off = np.array([outside(state, LIMITS)[0] for state in states])
    assert off[0] < np.hypot(0.1, 0.3)
    assert (np.diff(off) <= 1e-9).all()
    np.testing.assert_allclose(robot.pose.position_m, START.position_m)


@pytest.mark.parametrize("turned", [False, True])
def test_a_reset_from_outside_that_is_blocked_draws_the_spring_no_further(turned):
    robot = ToyRobot((0.5, 0.0, 0.2 if turned else 0.6), follows=0.0)
    if turned:  # a ToyRobot turns at once: this one measures that its hand is stuck
        robot.changes["quaternion_xyzw"] = from_tilt_and_yaw(np.array([0.0, 0.0, 1.4]), HOME)
    stuck = robot.state()
    with pytest.raises(RobotError, match="Is something in the way") as caught:
        guarded(robot).move(START)
    assert caught.value.recoverable
    assert robot.standing.is_set()
    assert np.linalg.norm(ways(robot) - stuck.position_m, axis=1).max() <= LIMITS.max_lead_m + 1e-9
    turns = [angle_between(command.quaternion_xyzw, stuck.quaternion_xyzw) for command in robot.sent]
    assert max(turns) <= LIMITS.max_lead_rad + 1e-6


def test_a_reset_from_outside_waits_for_an_arm_that_lags():
    robot = ToyRobot((0.3, 0.0, 0.6), follows=0.4)
    guarded(robot, travel_speed_m_s=0.3).move(START)
    np.testing.assert_allclose(robot.pose.position_m, START.position_m, atol=0.02)


def test_a_person_is_heard_in_all_of_a_reset():
    robot, heard = ToyRobot((0.3, 0.0, 0.4), follows=0.5), []
    goal = Command(np.array([0.5, 0.05, 0.1]), HOME, 0.0)
    guarded(robot, travel_speed_m_s=0.3).move(goal, attend=lambda: heard.append(len(robot.sent)))
    # before each command, whether it leads inside, moves the fingers, goes the way or waits for the arm
    assert heard == list(range(len(robot.sent)))


def test_a_reset_from_far_away_asks_for_a_person():
    robot = ToyRobot((0.5, 0.9, 0.2))
    with pytest.raises(RobotError, match="by hand") as caught:
        guarded(robot).move(START)
    assert not caught.value.recoverable
    assert robot.standing.is_set()
    assert robot.sent == []


def test_a_blocked_reset_is_a_fault():
    robot = ToyRobot((0.5, 0.0, 0.1), follows=0.0)
    with pytest.raises(RobotError, match="Is something in the way"):
        guarded(robot).move(replace(START, position_m=np.array([0.5, 0.0, 0.25])))
    assert robot.standing.is_set()
    # it did not pull further than the spring may be drawn
    assert ways(robot)[:, 2].max() <= 0.1 + LIMITS.max_lead_m + 1e-9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position_m": np.array([np.nan, 0, 0.2])}, "not finite"),
        ({"wrench": np.array([70.0, 0, 0, 0, 0, 0])}, "70.0 N"),
        ({"position_m": np.array([0.5, 0.0, 0.4])}, "10.0 cm out of the workspace"),
    ],
)
def test_a_bad_measurement_stops_and_nothing_more_is_sent(changes, words):
    robot = ToyRobot()
    guard = guarded(robot)
    guard.command(START)
    robot.changes = changes
    with pytest.raises(RobotError, match=words) as caught:
        guard.command(START)
    assert caught.value.recoverable
    assert robot.standing.is_set()
    robot.changes = {}
    for call in (lambda: guard.command(START), guard.state, guard.images, lambda: guard.move(START)):
        with pytest.raises(RobotError, match=words):
            call()
    assert len(robot.sent) == 1
    guard.recover()
    guard.command(START)


def test_what_another_thread_stops_while_a_command_measures_is_not_commanded():
    robot = ToyRobot()
    guard = guarded(robot)
    guard.command(START)
    guard.forget_state()
    robot.instead["state"] = lambda: guard.stop_for("the watchdog was faster.")
    with pytest.raises(RobotError, match="the watchdog was faster"):
        guard.command(START)
    assert len(robot.sent) == 1


def test_old_data_stop_a_real_robot_only():
    robot = ToyRobot()
    robot.changes = {"time_s": time.monotonic() - 5}
    guarded(robot).command(START)
    guard = guarded(robot, real_time=True)
    with pytest.raises(RobotError, match="s old"):
        guard.command(START)
    guard.close()


def test_a_command_that_is_no_number():
    robot = ToyRobot()
    with pytest.raises(RobotError, match="Check the policy"):
        guarded(robot).command(replace(START, position_m=np.array([0.5, np.nan, 0.2])))
    assert robot.standing.is_set()
    assert robot.sent == []


def test_what_a_driver_raises_becomes_a_robot_error():
    robot = ToyRobot()
    guard = guarded(robot)

    def fail():
        raise OSError("cable")

    robot.instead["command"] = fail
    with pytest.raises(RobotError, match=r"command\(\) raised OSError: cable"):
        guard.command(START)
    assert robot.standing.is_set()


@pytest.mark.parametrize("name", ["command", "state", "images"])
def test_a_call_that_hangs_stops_the_arm_in_time(name):
    robot = ToyRobot()
    guard = guarded(robot, real_time=True)
    released = threading.Event()
    robot.instead[name] = released.wait
    began_s = time.monotonic()
    with pytest.raises(RobotError, match=rf"{name}\(\) did not return") as caught:
        guard.images() if name == "images" else guard.command(START)
    assert time.monotonic() - began_s < 0.1 + LIMITS.call_limit_s + 0.3
    assert caught.value.recoverable
    assert robot.standing.is_set()
    del robot.instead[name]
    guard.recover()
    guard.command(START)
    released.set()
    guard.close()


def test_a_stop_that_hangs_asks_for_the_emergency_stop():
    robot = ToyRobot()
    guard = guarded(robot, real_time=True)
    released = threading.Event()
    robot.instead["stop"] = released.wait
    robot.changes = {"wrench": np.full(6, 99.0)}
    with pytest.raises(RobotError, match="emergency stop") as caught:
        guard.command(START)
    assert not caught.value.recoverable
    with pytest.raises(RobotError, match="emergency stop"):
        guard.recover()
    with pytest.raises(RobotError, match="emergency stop"):
        guard.close()
    assert robot.calls[-1] == "close"
    released.set()


def test_the_watchdog_stops_an_arm_that_nobody_commands():
    robot = ToyRobot()
    guard = guarded(robot, real_time=True)
    guard.move(START)
    assert not robot.standing.wait(2 * LIMITS.watchdog_s)  # after a reset there is nothing to be late for
    for _ in range(5):
        guard.command(START)
        time.sleep(0.05)
    assert not robot.standing.is_set()
    began_s = time.monotonic()
    assert robot.standing.wait(1.0)
    assert time.monotonic() - began_s == pytest.approx(LIMITS.watchdog_s - 0.05, abs=0.1)
    with pytest.raises(RobotError, match="no command came"):
        guard.command(START)
    guard.recover()
    guard.command(START)
    guard.close()
    assert robot.calls[-2:] == ["stop", "close"]


def test_recovery_ends_with_a_person():
    robot = ToyRobot()
    guard = guarded(robot, real_time=True, max_recoveries=3)
    robot.changes = {"wrench": np.full(6, 99.0)}
    for _ in range(3):
        with pytest.raises(RobotError) as caught:
            guard.state()
        assert caught.value.recoverable
        guard.recover()
    with pytest.raises(RobotError):
        guard.state()
    for _ in range(2):
        with pytest.raises(RobotError, match=r"3 faults within 600 s, the last one: the external force") as caught:
            guard.recover()
        assert not caught.value.recoverable
    assert robot.calls.count("recover") == 3
    guard.person_checked()
    robot.changes = {}
    guard.recover()
    guard.command(START)
    guard.close()


def test_recoveries_of_long_ago_are_forgiven():
    robot = ToyRobot()
    guard = guarded(robot, real_time=True, max_recoveries=1, recovery_window_s=0.05)
    for _ in range(3):
        guard.recover()
        time.sleep(0.06)
    guard.close()


def test_it_can_be_opened_again():
    robot = ToyRobot()
    guard = guarded(robot, real_time=True)
    guard.command(START)
    guard.close()
    guard.connect()
    guard.command(START)
    guard.close()
    assert sum(thread.name == "watchdog" for thread in threading.enumerate()) <= 2  # those of this moment are ending
    time.sleep(0.1)
    assert not any(thread.name in ("watchdog", "bounded-calls") for thread in threading.enumerate())
