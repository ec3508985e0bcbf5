"""``robot bc``: how often does the BC policy succeed on this robot?"""

from __future__ import annotations

import argparse
from typing import Any

from sb3_q2rl.bc.adapter import BCPolicyAdapter
from sb3_q2rl.bc.evaluate import evaluate_bc
from sb3_q2rl.robot.make import add_env_options, make_env


def add_parser(subparsers: Any) -> None:
    """
    :param subparsers: of ``robot``
    """
    parser = subparsers.add_parser("bc", help="play a BC policy and count successes", description=__doc__)
    add_env_options(parser)
    parser.add_argument("--policy", required=True, help="checkpoint, or the name of a shipped policy")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--mode", action="store_true", help="act by the mode instead of samples, which `learn` takes")
    parser.set_defaults(run_robot=run)


def run(args: argparse.Namespace) -> int:
    """
    :param args: see :func:`add_parser`
    :return: exit status
    """
    if args.episodes < 1:
        raise ValueError(f"`episodes` is {args.episodes}: at least one must be played.")
    policy = BCPolicyAdapter.from_checkpoint(args.policy)
    env = make_env(args)
    try:
        rate = evaluate_bc(policy, env, n_episodes=args.episodes, seed=args.seed, deterministic=args.mode)
    finally:
        env.close()
    print(f"BC policy {args.policy}: success {rate} episodes (95 % interval)")
    return 0
