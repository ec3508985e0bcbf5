import csv

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from sb3_q2rl.envs.franka.franka_env import FrankaEnv
from sb3_q2rl.envs.franka.tasks import find_task
from sb3_q2rl.robot.dry_run import DryRunRobot
from sb3_q2rl.robot.figures import EpisodeFigures, rms_jerk
from sb3_q2rl.robot.goal import GoalEnv, scripted_actions, tool_position
from sb3_q2rl.robot.lab import Goal


def paper_robot(lines=None):
    say = (lambda line: None) if lines is None else lines.append
    return DryRunRobot(find_task("peg_insertion").start, period_s=0.0, say=say)


def test_jerk_has_a_closed_form():
    t = 0.1 * np.arange(20)
    # x = t^3 has the jerk 6, y = 2 t^3 has 12, z = t^2 none
    positions = np.stack([t**3, 2 * t**3, t**2], axis=1)
    assert rms_jerk(positions, 0.1) == pytest.approx(np.hypot(6, 12))
    assert rms_jerk(positions[:3], 0.1) == 0.0


def test_each_episode_gets_a_row(tmp_path, capsys):
    env = EpisodeFigures(TimeLimit(FrankaEnv(robot=paper_robot()), 5), tmp_path / "new" / "figures.csv")
    for _ in range(2):
        env.reset(seed=0)
        for _ in range(5):
            info = env.step(np.zeros(7))[-1]
    assert info["figures"]["episode"] == 2
    assert info["figures"]["steps"] == 5
    assert info["figures"]["rms_jerk_m_s3"] < 1e-3
    with open(tmp_path / "new" / "figures.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["fault"] for row in rows] == ["", ""]
    assert capsys.readouterr().out.count("no success") == 2
    env.close()


def test_a_fault_is_in_the_row(tmp_path):
    robot = paper_robot()
    env = EpisodeFigures(TimeLimit(FrankaEnv(robot=robot), 5), tmp_path / "figures.csv", say=False)
    env.reset(seed=0)
    robot.command = lambda command: 1 / 0
    figures = env.step(np.zeros(7))[-1]["figures"]
    assert "ZeroDivisionError" in figures["fault"]
    assert figures["success"] == 0
    env.close()


def test_the_goal_is_reached_by_the_script_and_judged_by_the_place():
    goal = Goal((0.53, 0.01, 0.10), 0.01)
    env = GoalEnv(goal, robot=paper_robot())
    observation, _ = env.reset(seed=1)
    rng = np.random.default_rng(0)
    for step, action in enumerate(scripted_actions(env, rng, noise=0.1)):
        observation, reward, terminated, _, info = env.step(action)
        at_goal = (np.abs(tool_position(env, observation) - goal.position_m) <= goal.tolerance_m).all()
        assert terminated == info["is_success"] == at_goal
        assert reward == (4.0 if at_goal else -1.0)
        if terminated:
            break
        assert step < 60
    env.close()


def test_a_dry_run_says_every_command():
    lines = []
    env = FrankaEnv(robot=paper_robot(lines))
    env.reset(seed=0)
    n_commands = sum("command" in line for line in lines)
    for _ in range(3):
        env.step(np.ones(7))
    assert sum("command" in line for line in lines) == n_commands + 3
    env.close()
    assert lines[0] == "dry run: connect"
    assert lines[-1] == "dry run: close"
    assert any(line == "dry run: stop" for line in lines)
