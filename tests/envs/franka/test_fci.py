"""FCIRobot against a server of libfranka's protocol, also one that is killed or frozen."""

import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp
from servers import FrankySim, fork, host_of_our_own

from sb3_q2rl.envs.franka.fci import PATIENCE_S, STOP_TIMEOUT_S, FCIConfig, FCIRobot
from sb3_q2rl.envs.franka.fci_errors import robot_error
from sb3_q2rl.envs.franka.robot import Command, RobotError

CONFIG = FCIConfig(realtime="ignore", arrival_timeout_s=2.0)
PERIOD_S = 1 / CONFIG.control_hz
# The simulated arm shares its core with others: its own clock may run at a third of ours
LAG_M = 0.03


@pytest.fixture
def robot(franky_sim):
    robot = FCIRobot(franky_sim.host, config=CONFIG)
    robot.connect()
    yield robot
    robot.close()


@pytest.fixture(scope="module")
def mortal_sim():
    """A second server, to be killed and frozen."""
    server = FrankySim(host_of_our_own(8))
    server.start()
    yield server
    server.thaw()
    server.kill()


def there(state, dx=0.0, dz=0.0):
    return Command(state.position_m + np.array([dx, 0, dz]), state.quaternion_xyzw, 0.0)


def keep_commanding(robot, command):
    for _ in range(100):
        robot.command(command)


def assert_stands(robot):
    time.sleep(0.3)
    before = robot.state()
    time.sleep(0.3)
    assert np.linalg.norm(robot.state().position_m - before.position_m) < 2e-3


def test_a_state_is_of_the_tool_centre_point(robot, franky_sim):
    state = robot.state()
    robot.close()
    longer = FCIRobot(franky_sim.host, config=replace(CONFIG, tool_position_m=(0.0, 0.01, 0.272)))
    longer.connect()
    moved = longer.state()
    longer.close()
    # the same flange: the tools' difference, (0, .01, .1) in its frame, must show in the base's frame
    flange = Rotation.from_quat(state.quaternion_xyzw) * Rotation.from_quat(CONFIG.tool_quaternion_xyzw).inv()
    np.testing.assert_allclose(moved.position_m - state.position_m, flange.apply([0, 0.01, 0.1]), atol=1e-3)
    assert state.wrench.shape == (6,)
    assert state.joint_positions_rad.shape == state.joint_velocities_rad_s.shape == (7,)
    assert abs(state.time_s - time.monotonic()) < 5.0


def test_commands_keep_10_hz_whatever_the_caller_does_between(robot):
    start = robot.state()
    robot.command(there(start))
    began_s = time.monotonic()
    for step in range(1, 16):
        time.sleep(0.05 * (step % 2))
        executed = robot.command(there(start, dx=0.004 * step, dz=-0.004 * step))
    assert time.monotonic() - began_s == pytest.approx(15 * PERIOD_S, abs=0.03)
    np.testing.assert_array_equal(executed.position_m, start.position_m + np.array([0.06, 0, -0.06]))
    time.sleep(0.5)
    np.testing.assert_allclose(robot.state().position_m, executed.position_m, atol=LAG_M)
    turned = Rotation.from_quat(robot.state().quaternion_xyzw) * Rotation.from_quat(start.quaternion_xyzw).inv()
    assert turned.magnitude() < 0.1


def test_a_late_caller_gets_a_whole_period(robot):
    robot.command(there(robot.state()))
    time.sleep(2.5 * PERIOD_S)
    began_s = time.monotonic()
    robot.command(there(robot.state()))
    assert time.monotonic() - began_s == pytest.approx(PERIOD_S - CONFIG.deciding_s, abs=0.03)


def test_while_the_next_command_is_decided_the_arm_follows_this_one(franky_sim):
    """Nearly all of the period is for deciding: without that the arm would make a tenth of each step."""
    robot = FCIRobot(franky_sim.host, config=replace(CONFIG, deciding_s=0.09))
    robot.connect()
    start = robot.state()
    began_s = time.monotonic()
    for step in range(1, 11):
        robot.command(there(start, dz=0.006 * step))
        time.sleep(0.02 * (step % 4))  # decisions of 0 to 60 ms
    assert time.monotonic() - began_s == pytest.approx(9 * PERIOD_S + 0.05, abs=0.03)
    time.sleep(0.5)
    np.testing.assert_allclose(robot.state().position_m, start.position_m + np.array([0, 0, 0.06]), atol=LAG_M)
    robot.command(there(robot.state(), dz=-0.01))
    robot.stop()
    assert_stands(robot)
    robot.close()


def test_a_move_arrives_and_rests(robot):
    start = robot.state()
    turn = Rotation.from_euler("z", 0.3)
    quaternion_xyzw = (turn * Rotation.from_quat(start.quaternion_xyzw)).as_quat()
    goal = Command(start.position_m + np.array([-0.05, 0.05, 0.05]), quaternion_xyzw, 0.0)
    began_s = time.monotonic()
    robot.move(goal, duration_s=1.0)
    assert time.monotonic() - began_s >= 1.0
    arrived = robot.state()
    np.testing.assert_allclose(arrived.position_m, goal.position_m, atol=CONFIG.arrival_tolerance_m)
    error = Rotation.from_quat(arrived.quaternion_xyzw) * Rotation.from_quat(goal.quaternion_xyzw).inv()
    assert error.magnitude() < 0.1


def test_a_goal_out_of_reach_is_an_error_and_leaves_the_arm_standing(franky_sim):
    robot = FCIRobot(franky_sim.host, config=replace(CONFIG, arrival_timeout_s=0.3, translational_stiffness=100.0))
    robot.connect()
    with pytest.raises(RobotError, match="did not arrive.*Clear the way") as caught:
        robot.move(there(robot.state(), dx=0.6), duration_s=0.3)
    assert caught.value.recoverable
    assert_stands(robot)
    robot.close()


@pytest.mark.parametrize("doing", ["command", "move"])
def test_stop_interrupts_from_another_thread(robot, doing):
    start = robot.state()
    robot.command(there(start))
    if doing == "move":
        threading.Timer(0.3, robot.stop).start()
        with pytest.raises(RobotError, match="stopped by"):
            robot.move(there(start, dz=0.1), duration_s=5.0)
    else:
        threading.Timer(0.05, robot.stop).start()
        with pytest.raises(RobotError, match="stopped by"):
            robot.command(there(start, dz=0.01))
    assert_stands(robot)
    robot.command(there(robot.state()))  # nothing is wrong: the next command starts the arm again


def test_ctrl_c_in_a_move_stops_the_arm(robot):
    start = robot.state()
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        robot.move(there(start, dz=0.1), duration_s=10.0)
    robot.recover()
    assert_stands(robot)
    assert robot.state().position_m[2] < start.position_m[2] + 0.05


def test_stop_and_close_are_safe_at_any_time(franky_sim):
    robot = FCIRobot(franky_sim.host, config=CONFIG)
    robot.stop()
    robot.close()
    robot.connect()
    robot.connect()
    robot.stop()
    robot.stop()
    robot.close()
    robot.close()
    with pytest.raises(RobotError, match=r"connect\(\)"):
        robot.state()
    robot.connect()
    robot.state()
    robot.close()


def test_a_killed_server_is_an_error_in_time_and_recover_connects_to_the_next_one(mortal_sim):
    robot = FCIRobot(mortal_sim.host, config=CONFIG)
    robot.connect()
    start = robot.state()
    robot.command(there(start))
    mortal_sim.kill()
    began_s = time.monotonic()
    with pytest.raises(RobotError, match="fell silent"):
        keep_commanding(robot, there(start))
    assert time.monotonic() - began_s < PATIENCE_S + STOP_TIMEOUT_S
    with pytest.raises(RobotError, match="Check `host`"):
        robot.recover()
    with pytest.raises(RobotError, match=r"recover\(\)"):
        robot.command(there(start))
    mortal_sim.start()
    robot.recover()
    robot.command(there(robot.state()))
    robot.close()


def test_a_server_frozen_in_mid_command_is_an_error_in_time(mortal_sim):
    robot = FCIRobot(mortal_sim.host, config=CONFIG)
    robot.connect()
    start = robot.state()
    robot.command(there(start))
    threading.Timer(0.05, mortal_sim.freeze).start()
    began_s = time.monotonic()
    with pytest.raises(RobotError, match="fell silent") as caught:
        keep_commanding(robot, there(start))
    assert time.monotonic() - began_s < PATIENCE_S + STOP_TIMEOUT_S
    assert caught.value.recoverable
    robot.stop()
    mortal_sim.thaw()
    robot.recover()
    robot.command(there(robot.state()))
    robot.close()


def test_a_server_frozen_before_a_move_cannot_hang_us(mortal_sim):
    robot = FCIRobot(mortal_sim.host, config=replace(CONFIG, arrival_timeout_s=0.5))
    robot.connect()
    goal = there(robot.state(), dz=0.05)
    mortal_sim.freeze()
    began_s = time.monotonic()
    with pytest.raises(RobotError, match="fell silent"):
        robot.move(goal, duration_s=0.5)
    assert time.monotonic() - began_s < 0.5 + 0.5 + PATIENCE_S + STOP_TIMEOUT_S
    mortal_sim.thaw()
    robot.recover()
    robot.move(there(robot.state(), dz=0.01), duration_s=0.3)
    mortal_sim.freeze()
    began_s = time.monotonic()
    robot.stop()
    assert time.monotonic() - began_s < 2 * STOP_TIMEOUT_S
    mortal_sim.thaw()
    robot.close()


def test_nothing_is_left_when_our_process_is_killed(franky_sim):
    reader, writer = os.pipe()

    def connect_and_die():
        robot = FCIRobot(franky_sim.host, config=CONFIG)
        robot.connect()
        os.write(writer, str(robot._process.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(fork(connect_and_die), 0)
    child = int(os.read(reader, 32))
    give_up_s = time.monotonic() + 5.0
    while is_running(child):
        assert time.monotonic() < give_up_s, "the process with the connection outlived its owner"
        time.sleep(0.05)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_no_robot_there():
    robot = FCIRobot("127.9.99.99", config=CONFIG)
    with pytest.raises(RobotError, match="Check `host`"):
        robot.connect()


def test_a_kernel_without_real_time_is_refused_with_what_to_do(franky_sim):
    realtime = Path("/sys/kernel/realtime")
    if realtime.exists() and realtime.read_text().strip() == "1":
        pytest.skip("this kernel is a real-time one")
    robot = FCIRobot(franky_sim.host)
    with pytest.raises(RobotError, match="realtime='ignore'") as caught:
        robot.connect()
    assert not caught.value.recoverable


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("realtime", "maybe"),
        ("translational_stiffness", -1000.0),
        ("rotational_stiffness", float("nan")),
        ("position_error_clip_m", float("inf")),
        ("max_torque_nm", -3.0),
        ("tool_position_m", (0.0, float("nan"), 0.1)),
        ("tool_quaternion_xyzw", (0.0, 0.0, 0.0, 0.0)),
        ("deciding_s", 0.1),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` is "):
        FCIConfig(**{name: value})


@pytest.mark.parametrize(
    ("text", "advice", "recoverable"),
    [
        ('libfranka: Move command aborted: motion aborted by reflex! ["cartesian_reflex"]', "touched something", True),
        ('libfranka: ... reflex! ["communication_constraints_violation"]', "PREEMPT_RT", True),
        ("libfranka: Move command aborted: User Stop pressed!", "release the button", False),
        ('libfranka: command rejected: command not possible in the current mode ("Idle")!', "Unlock", False),
        ("libfranka: UDP receive: Timeout", "fell silent", True),
        ("something new", "Look at the arm", True),
    ],
)
def test_errors_say_what_to_do(text, advice, recoverable):
    error = robot_error("command", "ControlException", text)
    assert advice in str(error)
    assert error.recoverable is recoverable


def test_the_reference_moves_evenly():
    pytest.importorskip("franky", reason="needs franky-control: pip install sb3_q2rl[franka]")
    from sb3_q2rl.envs.franka.fci_process import travelled, turned

    assert travelled(0.0) == 0.0
    assert travelled(1.0) == 1.0
    fractions = np.linspace(0, 1, 1001)
    speeds = np.diff([travelled(fraction) for fraction in fractions]) / np.diff(fractions)
    assert speeds.max() < 1.12
    assert np.abs(np.diff(speeds)).max() < 0.02  # without a jump
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        start, end = Rotation.random(2, random_state=rng)
        way = Slerp([0, 1], Rotation.concatenate([start, end]))
        for fraction in (0.0, 0.3, 1.0):
            there = Rotation.from_quat(turned(start.as_quat(), sign * end.as_quat(), fraction))
            assert (there.inv() * way(fraction)).magnitude() < 1e-6
    same = start.as_quat()
    np.testing.assert_allclose(turned(same, -same, 0.5), same, atol=1e-9)


@pytest.mark.parametrize("late_s", [0.0, 0.03, 0.05, 0.085, 0.095, 0.15])
def test_the_reference_stays_on_its_way_and_does_not_race_however_late_a_command_comes(late_s):
    """Less of the period may be left than is set aside for deciding."""
    pytest.importorskip("franky", reason="needs franky-control: pip install sb3_q2rl[franka]")
    from sb3_q2rl.envs.franka.fci_process import Arm

    class Recorded(Arm):
        def _start_tracker(self):
            pass

        def _refer_to(self, position_m, quaternion_xyzw):
            self._target = (position_m, quaternion_xyzw)
            heights_m.append(position_m[2])

    heights_m, upright = [0.0], np.array([0.0, 0.0, 0.0, 1.0])
    _, stops = multiprocessing.Pipe()
    arm = Recorded(stops)
    arm._settings, arm._target = {"deciding_s": 0.02}, (np.zeros(3), upright)
    arm.command(np.array([0, 0, 0.01]), upright, PERIOD_S)
    first_end_s = arm._way.end_s
    time.sleep(0.02 + late_s)
    arm.command(np.array([0, 0, 0.02]), upright, PERIOD_S)
    assert PERIOD_S / 2 <= arm._way.end_s - arm._way.start_s <= PERIOD_S + 1e-9
    if late_s <= 0.03:  # on the grid
        assert arm._way.end_s == pytest.approx(first_end_s + PERIOD_S)
    assert len(heights_m) > 5
    assert np.diff(heights_m).min() >= 0
    assert heights_m[-1] <= 0.02
