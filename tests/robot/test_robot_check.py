"""`robot check` against servers of both protocols."""

import os
import signal
import time

import pytest

pytest.importorskip("pymodbus", reason="needs pymodbus: pip install sb3_q2rl[franka]")

from robotiq_server import Robotiq2F85Server, free_port
from servers import fork

from sb3_q2rl.__main__ import main
from sb3_q2rl.envs.franka.robotiq import Robotiq2F85
from sb3_q2rl.envs.franka.robotiq_registers import PRESS_POSITION, position_of


@pytest.fixture
def gripper():
    server = Robotiq2F85Server()
    server.address = server.serve_tcp(free_port())
    yield server
    server.stop()


@pytest.fixture
def lab(franky_sim, gripper, tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text(f"host: {franky_sim.host}\ngripper: {{address: '{gripper.address}'}}\nfci: {{realtime: ignore}}\n")
    return str(path)


def test_all_is_well(lab, capsys):
    assert main(["robot", "check", "--robot", "fci", "--lab", lab]) == 0
    out = capsys.readouterr().out
    assert "FAULT" not in out
    assert "open 85 mm" in out
    assert "10 Hz" in out


def test_a_held_part_stays_held(lab, gripper, capsys):
    gripper.object_at = position_of(0.03)
    driver = Robotiq2F85(gripper.address)
    driver.connect()
    driver.command(0.0)
    give_up_s = time.monotonic() + 5.0
    while not driver.holds_object():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)
    assert main(["robot", "check", "--robot", "fci", "--lab", lab]) == 0
    assert "open 30 mm" in capsys.readouterr().out
    assert gripper._request[1] & 0xFF == PRESS_POSITION
    assert driver.holds_object()
    driver.close()


def test_a_served_robot_is_looked_at_from_elsewhere(lab, tmp_path, capsys):
    key, port = str(tmp_path / "robot.key"), str(free_port())
    assert main(["robot", "serve", "--make-key", key]) == 0
    server = fork(lambda: main(["robot", "serve", "--lab", lab, "--key", key, "--port", port]))
    try:
        assert main(["robot", "check", "--robot", "remote", "--host", "127.0.0.1", "--port", port, "--key", key]) == 0
        out = capsys.readouterr().out
        assert "FAULT" not in out
        assert "tool at" in out
    finally:
        os.kill(server, signal.SIGINT)
        assert os.waitpid(server, 0)[1] == 0


def test_what_is_not_there_is_named(lab, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["robot", "check", "--robot", "fci", "--lab", lab, "--gripper", f"tcp://127.0.0.1:{free_port()}"])
    assert ended.value.code == 1
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "FAULT" in out
    assert "no gripper at" in out


def test_what_is_missing_on_the_command_line_is_named(capsys, tmp_path):
    assert main(["robot", "check", "--robot", "fci"]) == 1
    assert "`--host`" in capsys.readouterr().err
    assert main(["robot", "check", "--robot", "remote"]) == 1
    assert "`--key`" in capsys.readouterr().err
    assert main(["robot", "check"]) == 1
    assert "needs no check" in capsys.readouterr().err
    assert main(["robot", "serve", "--host", "127.9.99.99"]) == 1
    assert "--make-key" in capsys.readouterr().err


def test_a_key_is_made_once(tmp_path):
    key = str(tmp_path / "robot.key")
    assert main(["robot", "serve", "--make-key", key]) == 0
    assert main(["robot", "serve", "--make-key", key]) == 1


def test_a_dry_run_talks_to_nobody(tmp_path, capsys):
    assert main(["robot", "check", "--robot", "fci", "--dry-run"]) == 0
    assert "dry run: command" in capsys.readouterr().out
