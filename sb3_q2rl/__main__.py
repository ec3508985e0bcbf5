"""``python -m sb3_q2rl COMMAND``: each command's arguments and work live in its own module."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import gymnasium as gym

import sb3_q2rl.envs  # noqa: F401  registers our environments, so that `--env` finds them
from sb3_q2rl import demo
from sb3_q2rl.bc import cli as bc
from sb3_q2rl.benchmark import cli as benchmark
from sb3_q2rl.benchmark import pictures
from sb3_q2rl.demos import cli as demos
from sb3_q2rl.robot import cli as robot


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments, by default those of the process
    :return: exit status
    """
    parser = argparse.ArgumentParser(prog="python -m sb3_q2rl", description="Q2RL for Stable-Baselines3")
    subparsers = parser.add_subparsers(title="commands", required=True)
    bc.add_parser(subparsers)
    demos.add_parser(subparsers)
    benchmark.add_parser(subparsers)
    demo.add_parser(subparsers)
    robot.add_parser(subparsers)
    pictures.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, FileNotFoundError, ImportError, gym.error.Error) as error:
        # These explain themselves; a traceback would bury the explanation.
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
