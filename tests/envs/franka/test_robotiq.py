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


def test_a_stop_between_a_request_and_the_next_status_is_not_lost(gripper, monkeypatch):
    write = gripper._write

    def write_and_stop(registers):
        write(registers)
        monkeypatch.undo()
        gripper.stop()

    monkeypatch.setattr(gripper, "_write", write_and_stop)
    gripper.command(0.0)
    time.sleep(0.5)
    assert gripper.width_m() > 0.07


def test_fingers_that_hold_something_are_not_sent_to_where_they_stand(gripper, server):
    server.object_at = position_of(0.04)
    gripper.command(0.0)
    wait_until(gripper.holds_object)
    for beside_m in (0.0, 3e-4, -3e-4):  # a count is a third of a millimetre
        assert gripper.command(gripper.width_m() + beside_m) == gripper.width_m() + beside_m
        time.sleep(0.1)
        assert gripper.holds_object()
        assert server._request[1] & 0xFF == PRESS_POSITION
    gripper.command(0.06)
    wait_until(lambda: gripper.width_m() > 0.058)


def test_the_last_request_counts_whatever_is_under_way(gripper):
    """Nothing but a request for where the fingers really stand is left out."""
    for pause_s in (0.0, 0.005, 0.01, 0.02, 0.03, 0.2):
        gripper.command(0.02)
        time.sleep(pause_s)
        gripper.command(OPEN_WIDTH_M)
        time.sleep(0.1)
        wait_until(lambda: gripper.width_m() > 0.084)
        gripper.command(0.04)
        gripper.stop()
        gripper.command(0.07)
        wait_until(lambda: abs(gripper.width_m() - 0.07) < 1e-3)


def test_a_request_in_force_is_not_repeated(gripper, server, monkeypatch):
    server.object_at = position_of(0.04)
    gripper.command(0.0)
    wait_until(gripper.holds_object)
    written = []
    monkeypatch.setattr(gripper, "_write", written.append)
    for _ in range(3):  # as each control period does; or a stop would take it for a beginning, and let go
        gripper.command(0.0)
        time.sleep(0.05)
    gripper.stop()
    time.sleep(0.05)
    assert written == []


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
