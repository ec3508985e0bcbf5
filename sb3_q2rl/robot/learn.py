"""
``robot learn``: Q2RL on this robot. A real arm must not wait for gradients in the middle of an episode: its networks
learn in a process of their own, or between the episodes, while the arm stands at its start.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger, configure

from sb3_q2rl.asynchronous import AsyncLearning
from sb3_q2rl.bc.features import BCFeatures
from sb3_q2rl.benchmark.timelapse import TimelapseCallback
from sb3_q2rl.common.checkpoint import CheckpointCallback, resume
from sb3_q2rl.common.episode_log import EpisodeLogCallback
from sb3_q2rl.common.evaluation import evaluate
from sb3_q2rl.q2rl import QGatedResidualSAC, QGatedSAC
from sb3_q2rl.robot.evaluate import SoManyEpisodes
from sb3_q2rl.robot.figures import FiguresCallback
from sb3_q2rl.robot.make import add_env_options, make_env, simulated_id
from sb3_q2rl.zoo_configs import hyperparameters

ALGORITHMS: dict[str, type[QGatedSAC]] = {"qgated_sac": QGatedSAC, "qgated_residual": QGatedResidualSAC}
POLICIES = {"state": "MlpPolicy", "image": "MultiInputPolicy"}


def add_parser(subparsers: Any) -> None:
    """
    :param subparsers: of ``robot``
    """
    parser = subparsers.add_parser("learn", help="improve a BC policy by Q2RL", description=__doc__)
    add_env_options(parser)
    parser.add_argument("--policy", required=True, help="the BC policy: checkpoint, or the name of a shipped one")
    parser.add_argument(
        "--algo",
        choices=tuple(ALGORITHMS),
        default="qgated_sac",
        help="qgated_residual: the actor corrects the BC policy's actions instead of being cloned from it: slower, and "
        "it begins as the BC policy",
    )
    parser.add_argument(
        "--bc-features",
        action="store_true",
        help="with --obs-mode image: learn from what the BC policy's own encoders see, not from the pixels; many times "
        "as fast, for policies of `python -m sb3_q2rl bc`",
    )
    parser.add_argument("--demonstrations", help="learn from this file of them, too, such as one of `robot record`")
    parser.add_argument("--output", type=Path, required=True, help="folder of checkpoints, logs and transitions")
    parser.add_argument("--steps", type=int, default=20_000, help="steps in all, those of the BC episodes included")
    parser.add_argument("--n-bc-episodes", type=int, default=20, help="episodes that the estimate is made from")
    parser.add_argument(
        "--q-init-steps", type=int, help="gradient steps that critics and actor start with; default: the task's"
    )
    parser.add_argument(
        "--learner",
        choices=("process", "ray", "episodes"),
        default="process",
        help="on a real robot; process: while it moves; ray: likewise, on a Ray cluster (RAY_ADDRESS); episodes: after "
        "each, while it waits at its start",
    )
    parser.add_argument("--updates", type=int, default=200, help="gradient steps after each of --learner episodes")
    parser.add_argument("--save-freq", type=int, default=1_000, help="steps between two checkpoints, at episodes' ends")
    parser.add_argument(
        "--film-every", type=int, default=0, metavar="N", help="film one episode of N, framed in the colour of who acts"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the folder's newest checkpoint")
    parser.add_argument("--eval-episodes", type=int, default=0, help="episodes without learning, at the end")
    parser.set_defaults(run_robot=run)


def run(args: argparse.Namespace) -> int:
    """
    :param args: see :func:`add_parser`
    :return: exit status
    """
    env: gym.Env = make_env(args, args.output / "transitions.log", args.output / "figures.csv")
    try:
        if args.bc_features:
            env = BCFeatures(env, args.policy)
        model = _make_model(args, env)
        model.set_logger(_progress_log(args.output))
        callbacks: list[BaseCallback] = [EpisodeLogCallback(args.output / "episodes.csv"), FiguresCallback()]
        if args.film_every:
            callbacks.append(TimelapseCallback(args.output / "films", args.film_every))
        if _learns_beside(args):  # first: it says which step the run is at
            where: Any = "ray" if args.learner == "ray" else "here"
            callbacks.insert(0, AsyncLearning(args.output / "asynchronous", where, verbose=1))
        else:
            callbacks.append(CheckpointCallback(args.output / "checkpoints", args.save_freq, verbose=1))
        model.learn(args.steps - model.num_timesteps, CallbackList(callbacks), reset_num_timesteps=False)
        model.save(args.output / "model")
        print(f"Model after {model.num_timesteps} steps: {args.output / 'model.zip'}")
        if args.eval_episodes:
            last = SoManyEpisodes(env, args.eval_episodes)
            result = evaluate(model, last, args.eval_episodes, deterministic=False)
            low, high = result.interval()
            print(f"Success {result.success_rate:.2f} [{low:.2f}, {high:.2f}] of {result.n_episodes} (95 % interval)")
    finally:
        env.close()
    return 0


def _progress_log(folder: Path) -> Logger:
    """``progress.csv``, which SB3 writes anew: that of a run that goes on is kept as ``progress_1.csv`` and so on."""
    before = folder / "progress.csv"
    if before.exists():
        before.rename(folder / f"progress_{1 + len(list(folder.glob('progress_*.csv')))}.csv")
    return configure(str(folder), ["csv"])


def _make_model(args: argparse.Namespace, env: gym.Env) -> QGatedSAC:
    if args.resume and not _learns_beside(args):  # AsyncLearning finds by itself where its run ended
        model = resume(ALGORITHMS[args.algo], args.output / "checkpoints", env)
        print(f"Going on from step {model.num_timesteps}")
        return model
    if not args.resume and args.output.exists():
        raise ValueError(f"`--output` {args.output} exists. `--resume` goes on there; for a new run, name a new folder")
    # Features are learnt from as a state is
    like = simulated_id(args.task, "state" if args.bc_features else args.obs_mode)
    options = hyperparameters(args.algo, like) | {
        "bc_policy": args.policy,
        "policy": POLICIES[args.obs_mode],
        "n_bc_episodes": args.n_bc_episodes,
        "demonstrations": args.demonstrations,
    }
    if args.q_init_steps is not None:
        options["q_init_steps"] = args.q_init_steps
    if args.robot != "sim" and not _learns_beside(args):
        options |= {"train_freq": (1, "episode"), "gradient_steps": args.updates}
    return ALGORITHMS[args.algo](env=env, seed=args.seed, **options)


def _learns_beside(args: argparse.Namespace) -> bool:
    """In a process of its own. A simulator waits anyway."""
    return args.robot != "sim" and args.learner != "episodes"
