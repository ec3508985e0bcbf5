"""``robot serve``: on the machine that is wired to the arm. Another one then drives it by ``--robot remote``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sb3_q2rl.envs.franka.remote_messages import Key
from sb3_q2rl.envs.franka.robot_server import serve
from sb3_q2rl.envs.franka.tasks import find_task
from sb3_q2rl.robot.make import add_robot_options, make_robot, read_lab


def add_parser(subparsers: Any) -> None:
    """
    :param subparsers: of ``robot``
    """
    parser = subparsers.add_parser("serve", help="let another machine drive the robot", description=__doc__)
    add_robot_options(parser)
    parser.add_argument("--listen", default="127.0.0.1", help="address to listen at; the default is this machine only")
    parser.add_argument("--make-key", type=Path, help="write a new key file, to be copied to both machines, and end")
    parser.set_defaults(run_robot=run, robot="fci")


def run(args: argparse.Namespace) -> int:
    """
    :param args: see :func:`add_parser`
    :return: exit status
    """
    if args.make_key:
        if args.make_key.exists():
            raise ValueError(
                f"`--make-key` {args.make_key} exists: who has it could no longer connect. Remove it first"
            )
        Key.generate().save(args.make_key)
        print(f"{args.make_key}: a new key. Copy it to the other machine (scp -p), and show it to nobody else.")
        return 0
    if args.robot != "fci":
        raise ValueError(f"`--robot` is {args.robot!r}: what is served is wired to this machine, so it is 'fci'")
    if args.key is None:
        raise ValueError("`--key` is missing: make one by `--make-key robot.key`")
    robot, port = make_robot(args, read_lab(args), find_task("peg_insertion")), args.port or 5588
    print(f"Serving at {args.listen}:{port}. Ctrl-C ends it and stops the arm.", flush=True)
    serve(robot, Key.load(args.key), args.listen, port)
    return 0
