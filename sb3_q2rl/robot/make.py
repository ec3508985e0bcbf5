"""From the command line to a robot and its environment."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from gymnasium.wrappers import TimeLimit

from sb3_q2rl.envs.franka.config import FrankaConfig
from sb3_q2rl.envs.franka.fci import FCIRobot
from sb3_q2rl.envs.franka.franka_env import FrankaEnv
from sb3_q2rl.envs.franka.operators import KeyboardOperator, Operator
from sb3_q2rl.envs.franka.robot import FrankaRobot
from sb3_q2rl.envs.franka.tasks import TASKS, Task, find_task
from sb3_q2rl.robot.dry_run import DryRunRobot
from sb3_q2rl.robot.figures import EpisodeFigures
from sb3_q2rl.robot.goal import GoalEnv
from sb3_q2rl.robot.lab import GripperSettings, Lab, RemoteSettings, load_lab

OPERATORS = ("keyboard", "gamepad", "spacemouse", "none")


def add_robot_options(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: of a command that talks to a robot
    """
    group = parser.add_argument_group("robot")
    group.add_argument("--robot", choices=("sim", "fci", "remote"), default="sim", help="sim: MuJoCo; fci: wired to us")
    group.add_argument(
        "--lab", "--limits", type=Path, help="YAML file: limits, hosts, serial numbers, see docs/franka.md"
    )
    group.add_argument("--host", help="of the control box (fci) or of the serving machine (remote)")
    group.add_argument("--port", type=int, help="of the serving machine")
    group.add_argument("--key", type=Path, help="file that the serving machine has, too")
    group.add_argument("--gripper", help="/dev/ttyUSB0 or tcp://HOST:PORT; without it there is none")
    group.add_argument("--realtime", choices=("enforce", "ignore"), help="ignore: a kernel without PREEMPT_RT will do")
    group.add_argument("--dry-run", action="store_true", help="print every command, send nothing")


def add_env_options(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: of a command that plays episodes
    """
    add_robot_options(parser)
    group = parser.add_argument_group("episodes")
    group.add_argument("--task", choices=list(TASKS), default="peg_insertion", help="what is done")
    group.add_argument("--obs-mode", choices=("state", "image"), default="state", help="image needs cameras, or sim")
    group.add_argument("--operator", choices=OPERATORS, help="who ends episodes; default: keyboard, in sim none")
    group.add_argument("--max-episode-steps", type=int, help="default: the task's")
    group.add_argument("--seed", type=int, default=0, help="of starts, exploration and networks")


def read_lab(args: argparse.Namespace) -> Lab:
    """
    :param args: with the robot's options
    :return: the lab file, and what the command line says otherwise
    :raises ValueError: see :func:`load_lab`
    """
    lab = load_lab(args.lab) if args.lab else Lab()
    if args.gripper:
        lab = replace(lab, gripper=replace(lab.gripper or GripperSettings(args.gripper), address=args.gripper))
    if args.realtime:
        lab = replace(lab, fci=replace(lab.fci, realtime=args.realtime))
    if args.robot == "remote" and (args.host or args.port or args.key):
        remote = lab.remote or RemoteSettings(key="")
        changes = {"host": args.host, "port": args.port, "key": args.key and str(args.key)}
        lab = replace(lab, remote=replace(remote, **{name: value for name, value in changes.items() if value}))
    elif args.robot == "fci" and args.host:
        lab = replace(lab, host=args.host)
    return lab


def simulated_id(task: str, obs_mode: str) -> str:
    """
    :param task: as ``--task`` has it
    :param obs_mode: ``"state"`` or ``"image"``
    :return: id of the registered environment that simulates the task
    """
    camel_case = "".join(word.capitalize() for word in task.split("_"))
    return f"Franka{camel_case}{'Image' if obs_mode == 'image' else ''}-v0"


def make_robot(args: argparse.Namespace, lab: Lab, task: Task) -> FrankaRobot:
    """
    :param args: with the robot's options
    :param lab: from :func:`read_lab`
    :param task: where a dry run begins
    :return: a real robot, or one on paper
    :raises ValueError: something is missing to reach it
    """
    if args.dry_run:
        return DryRunRobot(task.start)
    if args.robot == "remote":
        from sb3_q2rl.envs.franka.remote import RemoteRobot
        from sb3_q2rl.envs.franka.remote_messages import Key

        if lab.remote is None or not lab.remote.key:
            raise ValueError(
                "`--robot remote` needs `--key`, or `remote` in the lab file: the serving machine's key file"
            )
        return RemoteRobot(lab.remote.host, lab.remote.port, Key.load(lab.remote.key))
    if lab.host is None:
        raise ValueError("`--robot fci` needs `--host`, or `host` in the lab file: the control box, e.g. 172.16.0.2")
    gripper: Any = None
    cameras: Any = None
    if lab.gripper is not None:
        from sb3_q2rl.envs.franka.robotiq import Robotiq2F85

        gripper = Robotiq2F85(lab.gripper.address, lab.gripper.speed_m_s, lab.gripper.force_n)
    if lab.cameras is not None:
        from sb3_q2rl.envs.franka.realsense import RealSenseCameras

        cameras = RealSenseCameras(lab.cameras.workspace_serial, lab.cameras.wrist_serial)
    return FCIRobot(lab.host, gripper, cameras, lab.fci)


def make_env(args: argparse.Namespace, record_to: Path | None = None, figures: Path | None = None) -> EpisodeFigures:
    """
    :param args: with the episodes' options
    :param record_to: every transition is appended to it
    :param figures: a row for each episode is
    :return: closed, it leaves the arm standing and the files whole
    :raises ValueError: a lab file or options that make no sense
    """
    if args.dry_run and args.robot == "sim":
        raise ValueError(
            "`--dry-run` is for a real robot: `--robot fci --dry-run`. A simulated one cannot break anything"
        )
    task, lab = find_task(args.task), read_lab(args)
    config = FrankaConfig(control_hz=lab.fci.control_hz)
    options: dict[str, Any] = {
        "task": task.name,
        "robot": "sim" if args.robot == "sim" else make_robot(args, lab, task),
        "obs_mode": args.obs_mode,
        "operator": _make_operator(args),
        "record_to": record_to,
        "config": config,
        "limits": lab.limits_of(task),
        "render_mode": "rgb_array",
    }
    env = FrankaEnv(**options) if lab.goal is None or args.robot == "sim" else GoalEnv(lab.goal, **options)
    return EpisodeFigures(TimeLimit(env, args.max_episode_steps or task.max_episode_steps), figures)


def _make_operator(args: argparse.Namespace) -> Operator | None:
    kind = args.operator
    if kind is None:
        kind = "keyboard" if args.robot != "sim" and not args.dry_run and sys.stdin.isatty() else "none"
    if kind == "keyboard":
        return KeyboardOperator()
    if kind == "gamepad":
        from sb3_q2rl.envs.franka.gamepads import GamepadOperator

        return GamepadOperator()
    if kind == "spacemouse":
        from sb3_q2rl.envs.franka.gamepads import SpaceMouseOperator

        return SpaceMouseOperator()
    return None
