"""A robot behind a socket: who may move it, and what happens when either side dies or freezes."""

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install sb3_q2rl[franka]")
pytest.importorskip("msgpack", reason="needs msgpack: pip install sb3_q2rl[franka]")

from robotiq_server import free_port
from servers import fork

from sb3_q2rl.envs.franka.fci import FCIConfig, FCIRobot
from sb3_q2rl.envs.franka.remote import SERVER_SILENCE_S, STOP_TIMEOUT_S, RemoteRobot
from sb3_q2rl.envs.franka.remote_messages import Key, from_plain, pack, to_plain, unpack
from sb3_q2rl.envs.franka.robot import Command, RobotError, RobotState
from sb3_q2rl.envs.franka.robot_server import CLIENT_SILENCE_S, serve

COMMAND = Command(np.array([0.5, 0.1, 0.2]), np.array([1.0, 0.0, 0.0, 0.0]), 0.04)
IMAGES = {"wrist_rgb": np.arange(84 * 84 * 3, dtype=np.uint8).reshape(84, 84, 3)}


class PaperRobot:
    """Notes what it is told, and does what it is told to do."""

    def __init__(self):
        self.calls = []
        self.interrupt = threading.Event()

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))

    def state(self):
        return RobotState(
            time.monotonic() - 0.2, COMMAND.position_m, COMMAND.quaternion_xyzw, 0.03, *map(np.arange, (6.0, 7.0, 7.0))
        )

    def command(self, command):
        self.calls.append(("command", command))
        return Command(command.position_m / 2, command.quaternion_xyzw, command.gripper_width_m)

    def move(self, command, duration_s):
        self.interrupt.clear()
        if self.interrupt.wait(duration_s):
            raise RobotError("stopped on the way")

    def images(self):
        return IMAGES

    def recover(self):
        raise RobotError("press the other button", recoverable=False)

    def stop(self):
        self.calls.append(("stop",))
        self.interrupt.set()


@pytest.fixture
def key():
    return Key.generate()


@pytest.fixture
def served(key):
    robot, port, end = PaperRobot(), free_port(), threading.Event()
    thread = threading.Thread(target=serve, args=(robot, key), kwargs={"port": port, "end": end})
    thread.start()
    yield robot, port
    end.set()
    thread.join()
    assert robot.calls[-1] == ("close",)


@pytest.fixture
def client(served, key):
    client = RemoteRobot("127.0.0.1", served[1], key)
    client.connect()
    yield client
    client.close()


def test_everything_passes_unchanged(client, served):
    robot, _ = served
    state = client.state()
    np.testing.assert_array_equal(state.position_m, COMMAND.position_m)
    np.testing.assert_array_equal(state.joint_velocities_rad_s, np.arange(7.0))
    # the clock is this machine's, whatever the other's says
    assert time.monotonic() - state.time_s == pytest.approx(0.2, abs=0.1)
    executed = client.command(COMMAND)
    np.testing.assert_array_equal(executed.position_m, COMMAND.position_m / 2)
    np.testing.assert_array_equal(robot.calls[-1][1].quaternion_xyzw, COMMAND.quaternion_xyzw)
    assert robot.calls[-1][1].gripper_width_m == COMMAND.gripper_width_m
    np.testing.assert_array_equal(client.images()["wrist_rgb"], IMAGES["wrist_rgb"])
    client.move(COMMAND, 0.01)


def test_time_on_the_way_makes_a_state_older(client, monkeypatch):
    receive = unpack

    def receive_late(data):
        time.sleep(0.5)
        return receive(data)

    monkeypatch.setattr("sb3_q2rl.envs.franka.remote.unpack", receive_late)
    state = client.state()
    assert time.monotonic() - state.time_s > 0.2 + 0.5


def test_errors_pass_with_their_message(client):
    with pytest.raises(RobotError, match="press the other button") as caught:
        client.recover()
    assert not caught.value.recoverable


def test_stop_interrupts_a_move(client, served):
    threading.Timer(0.3, client.stop).start()
    began_s = time.monotonic()
    with pytest.raises(RobotError, match="stopped on the way"):
        client.move(COMMAND, 20.0)
    assert time.monotonic() - began_s < 1.5
    client.state()


def test_a_client_with_another_key_is_not_let_in(served, key):
    robot, port = served
    stranger = replace(Key.generate(), server_public=key.server_public, server_secret=key.server_secret)
    for wrong in (stranger, Key.generate()):
        with pytest.raises(RobotError, match="this key"):
            RemoteRobot("127.0.0.1", port, wrong).connect()
    assert robot.calls == []


def test_a_second_client_has_to_wait(client, served, key):
    second = RemoteRobot("127.0.0.1", served[1], key)
    with pytest.raises(RobotError, match="Another client"):
        second.connect()
    client.close()
    second.connect()
    second.state()
    second.close()


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_a_silent_client_stops_the_arm(served, key, fate):
    robot, port = served

    def command_and_fall_silent():
        client = RemoteRobot("127.0.0.1", port, key)
        client.connect()
        client.command(COMMAND)
        os.kill(os.getpid(), fate)

    process = fork(command_and_fall_silent)
    wait_until(lambda: any(call[0] == "command" for call in robot.calls))
    assert ("stop",) not in robot.calls
    began_s = time.monotonic()
    wait_until(lambda: ("stop",) in robot.calls)
    assert time.monotonic() - began_s < CLIENT_SILENCE_S + 0.6
    # now another may have the robot
    other = RemoteRobot("127.0.0.1", port, key)
    other.connect()
    other.close()
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def test_a_client_that_was_silent_must_ask_for_the_robot_anew(client, served, monkeypatch):
    robot, _ = served
    monkeypatch.setattr(robot, "recover", lambda: None, raising=False)
    client._closing.set()  # its heart stops
    client._heartbeat.join()
    wait_until(lambda: ("stop",) in robot.calls)
    client._closing.clear()
    with pytest.raises(RobotError, match=r"`recover\(\)` asks for the robot"):
        client.state()
    client.recover()
    client.state()


def test_a_killed_server_is_an_error_in_time_and_the_next_one_is_found(franky_sim, key):
    port = free_port()
    client = RemoteRobot("127.0.0.1", port, key)
    server = fork_server(franky_sim.host, port, key)
    client.connect()
    state = client.state()
    assert abs(state.time_s - time.monotonic()) < 0.5
    began_s = time.monotonic()
    for _ in range(10):
        client.command(Command(state.position_m, state.quaternion_xyzw, 0.0))
    # the tracker starts within the first
    assert time.monotonic() - began_s == pytest.approx(1.0, abs=0.15)
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)
    began_s = time.monotonic()
    with pytest.raises(RobotError, match="does not answer `command`"):
        client.command(Command(state.position_m, state.quaternion_xyzw, 0.0))
    assert time.monotonic() - began_s < SERVER_SILENCE_S + 0.5
    began_s = time.monotonic()
    client.stop()
    assert time.monotonic() - began_s < STOP_TIMEOUT_S + 0.5
    server = fork_server(franky_sim.host, port, key)
    client.recover()
    client.command(Command(state.position_m, state.quaternion_xyzw, 0.0))
    client.close()
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)


def fork_server(robot_host, port, key):
    return fork(lambda: serve(FCIRobot(robot_host, config=FCIConfig(realtime="ignore")), key, port=port))


def wait_until(condition, timeout_s=10.0):
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def test_a_taken_port_is_named(client, served, key):
    _, port = served  # taken for sure: the client has connected
    with pytest.raises(RobotError, match=f"Cannot listen at 127.0.0.1:{port}"):
        serve(PaperRobot(), key, port=port)


def test_without_a_connection(key):
    robot = RemoteRobot("127.0.0.1", free_port(), key)
    robot.stop()
    robot.close()
    with pytest.raises(RobotError, match=r"connect\(\)"):
        robot.state()
    with pytest.raises(RobotError, match="Is it running"):
        robot.connect()


def test_a_key_file(tmp_path, key):
    path = tmp_path / "key"
    key.save(path)
    assert Key.load(path) == key
    with pytest.raises(FileExistsError):
        key.save(path)
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        Key.load(path)
    path.chmod(0o600)
    path.write_text("server_public short\n")
    with pytest.raises(ValueError, match="no key file"):
        Key.load(path)


def test_messages_are_data():
    assert from_plain(unpack(pack([to_plain(np.float32(0.5))]))[0]) == 0.5
    with pytest.raises(ValueError):
        unpack(b"\x80\x04\x95.")  # a pickle's first bytes
