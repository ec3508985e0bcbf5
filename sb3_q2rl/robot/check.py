"""``robot check``: is everything there, and what is to be done where it is not? Nothing moves."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sb3_q2rl.envs.franka.robot import Command, FrankaRobot, RobotError
from sb3_q2rl.envs.franka.safety import Limits, fault_of, outside
from sb3_q2rl.envs.franka.tasks import TASKS, find_task
from sb3_q2rl.robot.lab import Lab
from sb3_q2rl.robot.make import add_robot_options, make_robot, read_lab

# A period that is longer by this is late
LATE_S = 0.02
N_PERIODS = 20


@dataclass(frozen=True)
class Finding:
    """
    :param what: was looked at
    :param is_ok: it may be used
    :param detail: what was seen, or what is to be done
    """

    what: str
    is_ok: bool
    detail: str


def add_parser(subparsers: Any) -> None:
    """
    :param subparsers: of ``robot``
    """
    parser = subparsers.add_parser("check", help="look whether everything is there; nothing moves", description=__doc__)
    add_robot_options(parser)
    parser.add_argument("--task", choices=list(TASKS), default="peg_insertion", help="whose workspace is looked at")
    parser.set_defaults(run_robot=run)


def run(args: argparse.Namespace) -> int:
    """
    :param args: see :func:`add_parser`
    :return: 1 if there is a fault
    """
    if args.robot == "sim":
        raise ValueError("`--robot sim` needs no check; use `--robot fci` or `--robot remote`")
    lab, task = read_lab(args), find_task(args.task)
    findings = check(make_robot(args, lab, task), lab, lab.limits_of(task))
    table = Table("", "", "what was seen, or what to do", title=f"Robot: {args.robot}")
    for finding in findings:
        table.add_row(finding.what, "[green]ok[/]" if finding.is_ok else "[red]FAULT[/]", finding.detail)
    Console().print(table)
    return int(not all(finding.is_ok for finding in findings))


def check(robot: FrankaRobot, lab: Lab, limits: Limits) -> list[Finding]:
    """
    :param robot: is connected, looked at, and closed
    :param lab: whether there shall be a gripper and cameras
    :param limits: of the task
    :return: findings, faults included
    """
    findings = [
        Finding("limits", True, f"box {limits.low_m} to {limits.high_m} m, stop at {limits.max_force_n} N"),
        _look("connection", lambda: _connect(robot)),
    ]
    if findings[-1].is_ok:
        findings.append(_look("arm", lambda: _look_at_arm(robot, limits)))
        findings.append(_look("place", lambda: _look_at_place(robot, limits)))
        gripper = (
            (lambda: f"open {1000 * robot.state().gripper_width_m:.0f} mm") if lab.gripper else lambda: "there is none"
        )
        findings.append(_look("gripper", gripper))
        findings.append(_look("cameras", lambda: _look_at_cameras(robot, lab)))
        if findings[3].is_ok and findings[2].is_ok:
            findings.append(_look("10 Hz", lambda: _hold_still(robot, 1 / lab.fci.control_hz)))
    findings.append(_look("end", lambda: _close(robot)))
    return findings


def _look(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except RobotError as error:
        return Finding(what, False, str(error))


def _connect(robot: FrankaRobot) -> str:
    began_s = time.monotonic()
    robot.connect()
    return f"in {time.monotonic() - began_s:.1f} s"


def _look_at_arm(robot: FrankaRobot, limits: Limits) -> str:
    state = robot.state()
    if fault := fault_of(state, time.monotonic(), limits):
        raise RobotError(fault)
    force_n = np.linalg.norm(state.wrench[:3])
    return f"external force {force_n:.1f} N (nothing should be touched now)"


def _look_at_place(robot: FrankaRobot, limits: Limits) -> str:
    state = robot.state()
    off_m, off_rad = outside(state, limits)
    place = f"tool at {state.position_m.round(3).tolist()} m"
    if off_m > limits.max_approach_m:
        raise RobotError(f"{place}, {100 * off_m:.0f} cm out of the workspace. Guide the arm by hand into it")
    if off_m > 0 or off_rad > 0:
        return f"{place}, {100 * off_m:.0f} cm and {off_rad:.2f} rad out of the workspace: the first reset leads it in"
    return f"{place}, in the workspace"


def _look_at_cameras(robot: FrankaRobot, lab: Lab) -> str:
    images = robot.images()
    if not images and lab.cameras is None:
        return "there are none"
    brightness = ", ".join(f"{name} {image.mean():.0f} of 255" for name, image in images.items())
    return f"mean brightness: {brightness}"


def _hold_still(robot: FrankaRobot, period_s: float) -> str:
    state = robot.state()
    here = Command(state.position_m, state.quaternion_xyzw, state.gripper_width_m)
    robot.command(here)
    times_s = [time.monotonic()]
    for _ in range(N_PERIODS):
        robot.command(here)
        times_s.append(time.monotonic())
    periods_s = np.diff(times_s)
    seen = f"period {1000 * periods_s.mean():.1f} ms on average, {1000 * periods_s.max():.1f} ms at most"
    if periods_s.mean() > period_s + LATE_S:
        raise RobotError(f"{seen}; it should be {1000 * period_s:.0f} ms. Take other load off this computer")
    return seen


def _close(robot: FrankaRobot) -> str:
    robot.close()
    return "the arm stands, connections are closed"
