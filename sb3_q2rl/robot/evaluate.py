"""``robot evaluate``: how often does what was learnt succeed? Everybody acts as while learning, and nobody learns."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_q2rl.common.acting import Who
from sb3_q2rl.common.evaluation import evaluate
from sb3_q2rl.q2rl import load_model
from sb3_q2rl.robot.make import add_env_options, make_env


class SoManyEpisodes(gym.Wrapper):
    """
    After the last episode ``reset`` gives its end once more. A vector of environments begins a next one at once: a
    person would be asked for it, and the arm would move.

    :param env: that is played
    :param n_episodes: how many
    """

    def __init__(self, env: gym.Env, n_episodes: int) -> None:
        super().__init__(env)
        self._n_left = n_episodes
        self._end: tuple[Any, dict[str, Any]]

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        if self._n_left == 0:
            return self._end
        self._n_left -= 1
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._end = observation, info
        return observation, reward, terminated, truncated, info


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
        vec_env = DummyVecEnv([lambda: Monitor(SoManyEpisodes(env, args.episodes))])
        vec_env.seed(args.seed)
        result = evaluate(model, vec_env, args.episodes, args.who, deterministic=False)
        low, high = result.interval()
        print(
            f"{args.model} ({args.who}): success {result.success_rate:.2f} [{low:.2f}, {high:.2f}] of "
            f"{result.n_episodes} episodes (95 % interval)"
        )
    finally:
        env.close()
    return 0
