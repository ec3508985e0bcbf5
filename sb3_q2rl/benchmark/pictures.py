"""``python -m sb3_q2rl pictures``: who acts when, and where BC alone fails from the same start."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
from PIL import Image

from sb3_q2rl.benchmark.phases import phase_plot
from sb3_q2rl.benchmark.video import Episode, contact_sheet, record_episode, save_gif, side_by_side
from sb3_q2rl.common.evaluation import check_observations
from sb3_q2rl.q2rl import QGatedSAC, load_model


class Pictures(NamedTuple):
    """
    :param phases: PNG, the share of RL actions over an episode's phase
    :param sheet: PNG, each start twice: BC alone, below it the gate
    :param gif: the same starts as a film
    """

    phases: Path
    sheet: Path
    gif: Path


def draw_pictures(
    model: QGatedSAC, env_id: str, out: Path, n_episodes: int = 20, n_shown: int = 2, seed: int = 2_000
) -> Pictures:
    """
    :param model: A trained model
    :param env_id: Where to play
    :param out: Folder to write to
    :param n_episodes: Starts; the phases are taken from the gate's episodes
    :param n_shown: Starts to show, those first in which BC alone fails and the gate succeeds
    :param seed: Of the first start
    :raises ValueError: Nothing to play or to show, or an environment of another kind than the model learnt in
    """
    if n_episodes < 1 or n_shown < 1:
        raise ValueError(
            f"`n_episodes` is {n_episodes} and `n_shown` {n_shown} (--episodes, --shown); expected at least 1 of each."
        )
    plain = gym.make(env_id)
    _check_env(model, plain)
    seeds = range(seed, seed + n_episodes)
    gate = [record_episode(model, plain, start, every=0) for start in seeds]
    bc = [record_episode(model, plain, start, "bc", every=0) for start in seeds]
    plain.close()
    rescued = sorted(range(len(bc)), key=lambda i: (bc[i].is_success, not gate[i].is_success))[:n_shown]

    drawn = gym.make(env_id, render_mode="rgb_array")
    rows: list[Episode] = []
    film: list[Image.Image] = []
    for i in rescued:
        alone, gated = record_episode(model, drawn, seeds[i], "bc"), record_episode(model, drawn, seeds[i])
        rows += [alone, gated]
        film += side_by_side(alone, gated)
    drawn.close()
    title = f"{env_id}: who acts, after {model.num_timesteps:,} steps"
    sheet = out / "contact_sheet.png"
    phases = phase_plot(gate, out / "phases.png", title)
    contact_sheet(rows).quantize(colors=128).save(sheet, optimize=True)
    return Pictures(phases, sheet, save_gif(film, out / "who_acts.gif"))


def _check_env(model: QGatedSAC, env: gym.Env) -> None:
    """:raises ValueError: The model cannot read its observations, or its actions are others"""
    check_observations(model, env)
    if env.action_space != model.action_space:
        raise ValueError(
            f"The model acts in {model.action_space}, but the environment's actions are {env.action_space}. Use the "
            "environment of its training."
        )


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the ``pictures`` command to the program."""
    parser = subparsers.add_parser("pictures", help="draw who acts in a trained model's episodes")
    parser.add_argument(
        "--model", required=True, type=Path, help="model.zip of QGatedSAC, QGatedTQC or QGatedResidualSAC"
    )
    parser.add_argument("--env", required=True, help="environment id")
    parser.add_argument("--out", type=Path, default=Path("logs/pictures"), help="where the pictures go")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of the gate that the phases are taken from")
    parser.add_argument("--shown", type=int, default=2, help="starts to show")
    parser.add_argument("--seed", type=int, default=2_000, help="of the first start")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """
    :param args: see :func:`add_parser`
    """
    model = load_model(args.model, device="cpu")
    pictures = draw_pictures(model, args.env, args.out, args.episodes, args.shown, args.seed)
    print("Framed grey where BC acts, orange where RL acts, green at success.")
    for name, path in zip(("Phases", "Contact sheet", "Film"), pictures, strict=True):
        print(f"{name}: {path}")
