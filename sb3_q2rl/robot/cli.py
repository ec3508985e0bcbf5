"""``python -m sb3_q2rl robot``: from a connection that is checked to a policy that has learnt."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sb3_q2rl.envs.franka.robot import RobotError
from sb3_q2rl.robot import bc, check, evaluate, learn, record, serve


def add_parser(subparsers: Any) -> None:
    """
    :param subparsers: of ``python -m sb3_q2rl``
    """
    parser = subparsers.add_parser("robot", help="a simulated or real Franka", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True)
    for command in (check, record, bc, learn, evaluate, serve):
        command.add_parser(commands)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """
    :param args: of one of the commands
    :raises SystemExit: with the command's status; a fault, and Ctrl-C, leave a stopped arm and closed files
    """
    try:
        status = args.run_robot(args)
    except RobotError as error:
        print(f"error: {error}\nThe arm was stopped and the files are closed.", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("\nEnded by Ctrl-C: the arm was stopped and the files are closed.", file=sys.stderr)
        status = 130
    if status:
        raise SystemExit(status)
