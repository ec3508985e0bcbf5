"""The main job: a policy that was cloned from 25 demonstrations of a peg insertion, and jams, becomes a better one."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.env_util import make_vec_env

from sb3_q2rl.benchmark.plots import Run, learning_curve
from sb3_q2rl.benchmark.video import record_episode, save_gif, side_by_side
from sb3_q2rl.common.acting import Who
from sb3_q2rl.common.episode_log import EpisodeLogCallback
from sb3_q2rl.common.eval_callback import GateEvalCallback
from sb3_q2rl.common.evaluation import evaluate
from sb3_q2rl.q2rl import QGatedSAC
from sb3_q2rl.zoo_configs import hyperparameters

ENV = "FrankaPegInsertion-v0"
N_DEMONSTRATIONS = 25  # which its BC policy was cloned from
# Everybody by samples, as while learning, the paper's rule on its robots: contact rewards a hand that trembles
DETERMINISTIC = False
WHO: tuple[tuple[Who, str], ...] = (("bc", "BC alone"), ("model", "gate: BC or RL"), ("rl", "RL alone"))


def add_parser(subparsers: Any) -> None:
    """
    :param subparsers: of ``python -m sb3_q2rl``
    """
    parser = subparsers.add_parser(
        "demo",
        help="improve a cloned peg insertion on a simulated Franka",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--timesteps", type=int, default=15_000, help="environment steps, estimation included")
    parser.add_argument("--n-bc-episodes", type=int, default=50, help="episodes of the estimation phase")
    parser.add_argument("--n-eval-episodes", type=int, default=100, help="episodes of the final table, for each row")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--out", type=Path, default=Path("logs/demo"), help="where results go")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """
    :param args: see :func:`add_parser`
    """
    console, start = Console(), time.time()
    th.set_num_threads(1)  # with networks this small, a second thread costs more than it gives
    out: Path = args.out
    # What `python -m rl_zoo3.train --algo qgated_sac` uses, too
    kwargs = hyperparameters("qgated_sac", ENV) | {"n_bc_episodes": args.n_bc_episodes}
    console.print(
        f"[bold]Q2RL on {ENV}[/]\nThe BC policy `{kwargs['bc_policy']}`, cloned from {N_DEMONSTRATIONS} scripted "
        f"demonstrations, jams on the rim now and then.\nIt plays {kwargs['n_bc_episodes']} episodes; its Q-function "
        f"is estimated, then gate and SAC learn until step {args.timesteps:,}. One CPU core.",
        soft_wrap=True,
    )
    env = make_vec_env(ENV, seed=args.seed)
    model = QGatedSAC(env=env, seed=args.seed, verbose=1, device="cpu", **kwargs)
    model.set_logger(_file_logger(out))
    eval_env = make_vec_env(ENV, n_envs=10, seed=args.seed + 1000)
    callbacks = CallbackList(
        [
            EpisodeLogCallback(out / "episodes.csv"),
            GateEvalCallback(
                eval_env,
                n_eval_episodes=50,
                eval_freq=5_000,
                csv_path=out / "evaluations.csv",
                deterministic=DETERMINISTIC,
                verbose=1,
            ),
        ]
    )
    model.learn(args.timesteps, callback=callbacks, progress_bar=True)
    model.save(out / "model")

    table = Table(title=f"{ENV} after {model.num_timesteps:,} environment steps, seed {args.seed}")
    for heading in ("who acts", "success", "95 % interval", "episodes"):
        table.add_column(heading, justify="left" if heading == "who acts" else "right")
    for who, label in WHO:
        result = evaluate(model, eval_env, args.n_eval_episodes, who, DETERMINISTIC)
        low, high = result.interval()
        table.add_row(label, f"{result.success_rate:.0%}", f"{low:.0%} - {high:.0%}", str(result.n_episodes))
    console.print(table)

    curve = learning_curve(
        [Run.read(out / "evaluations.csv", out / "episodes.csv")],
        out / "learning_curve.png",
        f"{ENV}: Q2RL from {N_DEMONSTRATIONS} scripted demonstrations, seed {args.seed}",
    )
    console.print(f"Learning curve: {curve}")
    try:
        video = _video(model, out / "who_acts.gif", args.seed)
        console.print(f"Video, framed grey where BC acts and orange where RL acts: {video}")
    except Exception as error:  # whatever a machine's graphics may say, the results above stand
        console.print(f"No video: {error}. Rendering needs EGL or OSMesa (Debian: libegl1, or libosmesa6).")
    console.print(f"Model: {out / 'model.zip'}  ({(time.time() - start) / 60:.1f} minutes in all)")


def _file_logger(out: Path) -> Any:
    from stable_baselines3.common.logger import configure

    return configure(str(out), ["csv"])  # the progress bar has the terminal


def _video(model: QGatedSAC, path: Path, seed: int, n_episodes: int = 3) -> Path:
    """From the same starts: BC alone on the left, the model on the right."""
    env = gym.make(ENV, render_mode="rgb_array")
    images = []
    for episode in range(n_episodes):
        start = seed + 2000 + episode
        bc, gate = (record_episode(model, env, start, who, 3, deterministic=DETERMINISTIC) for who in ("bc", "model"))
        images += side_by_side(bc, gate)
    env.close()
    return save_gif(images, path)
