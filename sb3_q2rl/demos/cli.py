"""``python -m sb3_q2rl demos``: record demonstrations of the scripted experts, or measure how often these succeed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from sb3_q2rl.bc.evaluate import SuccessRate, wilson_interval
from sb3_q2rl.demos.experts import EXPERTS, find_expert
from sb3_q2rl.demos.play import episode_seeds, play
from sb3_q2rl.demos.record import check_noise, record_demonstrations


def add_parser(subparsers: Any) -> None:
    """
    :param subparsers: of ``python -m sb3_q2rl``
    """
    parser = subparsers.add_parser(
        "demos",
        help="record demonstrations of a scripted expert",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--env", required=True, help=f"environment id: {', '.join(EXPERTS)}")
    parser.add_argument("--episodes", type=int, default=50, help="demonstrations to keep, or episodes to --check")
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation, on actions in [-1, 1]")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--keep-failures", action="store_true", help="record episodes without success, too")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--output", type=Path, help="HDF5 file in robomimic's layout")
    what.add_argument("--check", action="store_true", help="write nothing, tell the rate of success")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """
    :param args: see :func:`add_parser`
    """
    if args.check:
        rate, lengths = check(args.env, args.episodes, args.noise, args.seed)
        steps = f", in {min(lengths)} to {max(lengths)} steps (median {np.median(lengths):.0f})" if lengths else ""
        print(f"{args.env}, noise {args.noise:g}: success {rate} episodes (95 % interval){steps}")
        return
    recorded = record_demonstrations(
        args.env, args.output, args.episodes, args.noise, args.seed, keep_failures=args.keep_failures
    )
    print(
        f"{recorded.path}: {recorded.n_episodes} demonstrations, {recorded.n_steps} steps. "
        f"{recorded.n_successes} of {recorded.n_played} episodes succeeded."
    )


def check(
    env_id: str, n_episodes: int, noise: float, seed: int, progress_bar: bool = True
) -> tuple[SuccessRate, list[int]]:
    """
    :param env_id: an environment that has an expert
    :param n_episodes: episodes to play
    :param noise: as for recording
    :param seed: of all
    :return: the rate of success, and the lengths of the successful episodes
    :raises ValueError: no expert, or a number out of range
    """
    expert = find_expert(env_id)
    check_noise(noise)
    if n_episodes < 1:
        raise ValueError(f"`episodes` is {n_episodes}: at least one must be played.")
    env = gym.make(env_id)
    lengths = []
    seeds = episode_seeds(seed)
    for _ in tqdm(range(n_episodes), desc=env_id):
        episode = play(env, expert, next(seeds), noise)
        if episode.success:
            lengths.append(len(episode.actions))
    env.close()
    n_successes = len(lengths)
    return SuccessRate(n_successes / n_episodes, *wilson_interval(n_successes, n_episodes), n_episodes), lengths
