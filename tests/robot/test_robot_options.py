"""Options that make no sense together end with a sentence, before anything is opened."""

import argparse

import pytest

from sb3_q2rl.__main__ import main
from sb3_q2rl.envs.franka.fci import FCIRobot
from sb3_q2rl.envs.franka.remote import RemoteRobot
from sb3_q2rl.envs.franka.remote_messages import Key
from sb3_q2rl.envs.franka.tasks import find_task
from sb3_q2rl.robot.learn import _progress_log
from sb3_q2rl.robot.make import add_env_options, make_env, make_robot, read_lab, simulated_id


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_env_options(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["record", "--output", "x.hdf5", "--by", "hand"], "`--by script`"),
        (["record", "--output", "x.hdf5", "--episodes", "0"], "`episodes` is 0"),
        (["record", "--output", "x.hdf5", "--by", "script", "--lab", "none.yaml"], "nothing of `--lab` none.yaml"),
        (["record", "--output", "x.hdf5", "--by", "script", "--dry-run"], "nothing of `--dry-run` True"),
        (["record", "--output", "x.hdf5", "--by", "script", "--max-episode-steps", "9"], "`--max-episode-steps` 9"),
        (["record", "--output", "x.hdf5", "--by", "script", "--operator", "keyboard"], "`--operator` keyboard"),
        (["record", "--robot", "fci", "--dry-run", "--output", "x.hdf5"], "needs somebody at `--operator`"),
        (["record", "--robot", "fci", "--dry-run", "--output", "x.hdf5", "--by", "script"], "`goal` in the lab file"),
        (["bc", "--policy", "none.pt"], "none.pt"),
        (["learn", "--policy", "none.pt", "--output", "x", "--dry-run"], "`--dry-run` is for a real robot"),
        (["bc", "--policy", "adroit-door-human", "--lab", "none.yaml"], "none.yaml"),
    ],
)
def test_what_is_wrong_is_said(arguments, message, capsys):
    assert main(["robot", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_run_is_not_overwritten(tmp_path, capsys):
    arguments = ["robot", "learn", "--robot", "fci", "--host", "127.9.99.99", "--policy", "none.pt"]
    assert main([*arguments, "--output", str(tmp_path)]) == 1
    assert "`--resume` goes on there" in capsys.readouterr().err


def test_the_command_line_overrules_the_lab_file(tmp_path):
    lab = tmp_path / "lab.yaml"
    lab.write_text("host: 1.2.3.4\ngripper: {address: /dev/ttyUSB7, force_n: 33}\n")
    args = parsed("--robot", "fci", "--lab", str(lab), "--gripper", "tcp://a:1", "--realtime", "ignore")
    read = read_lab(args)
    assert (read.host, read.gripper.address, read.gripper.force_n) == ("1.2.3.4", "tcp://a:1", 33)
    assert read.fci.realtime == "ignore"
    assert isinstance(make_robot(args, read, find_task("kitting")), FCIRobot)
    assert read_lab(parsed("--robot", "fci", "--lab", str(lab), "--host", "5.6.7.8")).host == "5.6.7.8"


def test_a_remote_robot_needs_no_lab_file(tmp_path):
    pytest.importorskip("zmq", reason="needs pyzmq: pip install sb3_q2rl[franka]")
    key = tmp_path / "key"
    Key.generate().save(key)
    args = parsed("--robot", "remote", "--host", "10.0.0.5", "--port", "1234", "--key", str(key))
    lab = read_lab(args)
    assert (lab.remote.host, lab.remote.port) == ("10.0.0.5", 1234)
    assert isinstance(make_robot(args, lab, find_task("kitting")), RemoteRobot)


def test_a_dry_run_plays_at_the_labs_rate_and_box(tmp_path, capsys):
    lab = tmp_path / "lab.yaml"
    limits = "limits: {high_m: [0.64, 0.12, 0.2], travel_speed_m_s: 5}"
    lab.write_text("fci: {control_hz: 50, deciding_s: 0.005}\n" + limits)
    env = make_env(parsed("--robot", "fci", "--dry-run", "--lab", str(lab), "--max-episode-steps", "3"))
    observation, _ = env.reset(seed=0)
    over = False
    while not over:
        observation, _, _, over, _ = env.step([0, 0, 1, 0, 0, 0, 0])
    env.close()
    assert env.unwrapped.guard.period_s == pytest.approx(0.02)
    assert observation[2] <= 0.2 + 1e-6
    assert "dry run: command" in capsys.readouterr().out


def test_the_simulated_tasks_are_registered():
    import gymnasium as gym

    for task in ("peg_insertion", "pipe_assembly", "kitting", "kitting_modified"):
        for mode in ("state", "image"):
            gym.spec(simulated_id(task, mode))


def test_what_was_logged_is_kept_when_a_run_goes_on(tmp_path):
    for part in range(3):
        logger = _progress_log(tmp_path)
        logger.record("part", part)
        logger.dump(part)
        logger.close()
    contents = {path.name: path.read_text().split() for path in tmp_path.glob("*.csv")}
    assert contents == {
        "progress_1.csv": ["part", "0"],
        "progress_2.csv": ["part", "1"],
        "progress.csv": ["part", "2"],
    }
