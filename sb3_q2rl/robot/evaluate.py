"""``robot evaluate``: how often does what was learnt succeed? Everybody acts as while learning, and nobody learns."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_q2rl.common.acting import Who
from sb3_q2rl.common.evaluation import evaluate
from sb3_q2rl.q2rl import load_model
from sb3_q2rl.robot.make import add_env_options, make_env


def add_parser(subparsers: Any) -> None:
    """
    :param subparsers: of ``robot``
    """
    parser = subparsers.add_parser("evaluate", help="play what was learnt and count successes", description=__doc__)
    add_env_options(parser)
    parser.add_argument("--model", type=Path, required=True, help="model.zip that `robot learn` wrote")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--who", choices=get_args(Who), default="model", help="model: the gate; rl, bc: one alone")
    parser.set_defaults(run_robot=run)


def run(args: argparse.Namespace) -> int:
    """
    :param args: see :func:`add_parser`
    :return: exit status
    """
    model = load_model(args.model)
    env = make_env(args)
    try:
        vec_env = DummyVecEnv([lambda: Monitor(env)])
        vec_env.seed(args.seed)
        result = evaluate(model, vec_env, args.episodes, args.who, deterministic=False)
    finally:
        env.close()
    low, high = result.interval()
    print(
        f"{args.model} ({args.who}): success {result.success_rate:.2f} [{low:.2f}, {high:.2f}] of {result.n_episodes} "
        "episodes (95 % interval)"
    )
    return 0
