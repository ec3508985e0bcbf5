"""The 2F-85's driver against a Modbus RTU server, over TCP and over a pseudo serial port."""

import time

import pytest

pytest.importorskip("pymodbus", reason="needs pymodbus: pip install sb3_q2rl[franka]")

from robotiq_server import Robotiq2F85Server, free_port

from sb3_q2rl.envs.franka.robot import RobotError
from sb3_q2rl.envs.franka.robotiq import STALE_S, Robotiq2F85
from sb3_q2rl.envs.franka.robotiq_registers import (
    FAULTS,
    OPEN_WIDTH_M,
    PRESS_POSITION,
    parse_status,
    position_of,
    width_of,
)


@pytest.fixture
def server():
    server = Robotiq2F85Server()
    server.address = server.serve_tcp(free_port())
    yield server
    server.stop()


@pytest.fixture
def gripper(server):
    gripper = Robotiq2F85(server.address)
    gripper.connect()
    yield gripper
    gripper.close()


def wait_until(condition, timeout_s=3.0):
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def message_of(call):
    """What a call complains of; empty when it does not."""
    try:
        call()
    except RobotError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("transport", ["tcp", "pty"])
def test_it_activates_opens_and_closes(transport):
    server = Robotiq2F85Server()
    gripper = Robotiq2F85(server.serve_tcp(free_port()) if transport == "tcp" else server.serve_pty())
    gripper.connect()
    assert gripper.width_m() == pytest.approx(OPEN_WIDTH_M, abs=1e-3)
    began_s = time.monotonic()
    assert gripper.command(0.03) == 0.03
    assert time.monotonic() - began_s < 0.01
    wait_until(lambda: abs(gripper.width_m() - 0.03) < 1e-3)
    # 55 mm at 100 mm/s
    assert time.monotonic() - began_s == pytest.approx(0.55, abs=0.2)
    assert gripper.command(0.2) == OPEN_WIDTH_M
    wait_until(lambda: gripper.width_m() > 0.084)
    gripper.close()
    server.stop()


def test_contact(gripper, server):
    server.object_at = position_of(0.04)
    gripper.command(0.0)
    wait_until(gripper.holds_object)
    assert gripper.width_m() == pytest.approx(0.04, abs=1e-3)
    gripper.command(0.08)
    wait_until(lambda: gripper.width_m() > 0.078)
    assert not gripper.holds_object()


def test_stop_stops_moving_fingers(gripper):
    gripper.command(0.0)
    wait_until(lambda: gripper.width_m() < 0.07)
    gripper.stop()
    time.sleep(0.1)
    width_m = gripper.width_m()
    assert width_m > 0.04
    time.sleep(0.2)
    assert gripper.width_m() == width_m


def test_a_connection_to_an_active_gripper_moves_nothing(gripper, server):
    server.object_at = position_of(0.04)
    gripper.command(0.0)
    wait_until(gripper.holds_object)
    gripper.close()
    gripper.connect()
    assert gripper.holds_object()
    gripper.recover()
    assert gripper.holds_object()


@pytest.mark.parametrize("fault", [0x07, 0x08, 0x0E])
def test_faults_say_what_they_mean_and_recover_clears_them(gripper, server, fault):
    server.fault = fault
    wait_until(lambda: f"{fault:#04x}" in message_of(gripper.width_m))
    meaning, advice = FAULTS[fault]
    with pytest.raises(RobotError, match=advice.replace("(", r"\(").replace(")", r"\)")) as caught:
        gripper.command(0.0)
    assert meaning in str(caught.value)
    assert caught.value.recoverable is (fault not in (0x08, 0x0C))
    gripper.recover()
    gripper.command(0.02)
    wait_until(lambda: gripper.width_m() < 0.025)


def test_a_lost_cable_is_noticed_and_mended(gripper, server):
    server.stop()
    time.sleep(STALE_S)
    wait_until(lambda: "has not answered" in message_of(gripper.width_m))
    gripper.stop()
    with pytest.raises(RobotError, match="Check the"):
        gripper.recover()
    server.serve_tcp(int(server.address.rsplit(":", 1)[1]))
    gripper.recover()
    assert gripper.width_m() == pytest.approx(OPEN_WIDTH_M, abs=1e-3)


def test_it_goes_on_by_itself_after_a_short_silence(gripper, server):
    server.stop()
    server.serve_tcp(int(server.address.rsplit(":", 1)[1]))
    time.sleep(0.3)
    wait_until(lambda: message_of(gripper.width_m) == "")


def test_a_loss_of_power_needs_recover(gripper, server):
    server.power_cycle()
    wait_until(lambda: "lost its activation" in message_of(gripper.width_m))
    gripper.recover()
    assert message_of(gripper.width_m) == ""


def test_nobody_there():
    with pytest.raises(RobotError, match="no gripper at"):
        Robotiq2F85(f"tcp://127.0.0.1:{free_port()}").connect()
    with pytest.raises(RobotError, match=r"connect\(\)"):
        Robotiq2F85("tcp://127.0.0.1:1").width_m()
    with pytest.raises(RobotError, match="no gripper at"):
        Robotiq2F85("/dev/nothing-there").connect()


@pytest.mark.parametrize(
    "wrong", [{"address": "tcp://nowhere"}, {"address": "http://a:1"}, {"force_n": 500.0}, {"speed_m_s": 0.0}]
)
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        Robotiq2F85(**{"address": "/dev/ttyUSB0", **wrong})


def test_widths_and_positions_agree():
    for width_m in (0.0851, 0.06, 0.0123):
        assert width_of(position_of(width_m)) == pytest.approx(min(width_m, OPEN_WIDTH_M), abs=2e-4)
    assert position_of(0.0) == PRESS_POSITION
    assert width_of(PRESS_POSITION) == 0.0
    assert width_of(0) == OPEN_WIDTH_M


def test_a_status_is_read_as_the_manual_says():
    # activated, going, object met while closing; fault 0x0E; position 0xBD
    status = parse_status([0xB900, 0x0EFF, 0xBD00], 1.0)
    assert (status.is_active, status.motion, status.fault, status.position) == (True, 2, 0x0E, 0xBD)
