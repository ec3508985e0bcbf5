"""
How roughly does a robot explore? ``python benchmarks/exploration.py``

Q2RL's gate, IBRL and plain SAC learn the same simulated peg insertion; of every episode, the peak force, the jerk and
whether a safety limit stopped the arm. A run takes minutes; ``--report`` draws what is there. ``--algorithm Q2RL``
runs one of them, so that each can have a core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium as gym
import pandas as pd
import torch as th
from matplotlib.figure import Figure
from stable_baselines3.common.env_util import make_vec_env

from sb3_q2rl.benchmark.algorithms import ALGORITHMS, constructor_keywords
from sb3_q2rl.benchmark.plots import save_figure
from sb3_q2rl.benchmark.suite import load_suite
from sb3_q2rl.robot.figures import EpisodeFigures

SUITE = Path(__file__).parent / "franka.yml"
RESULTS = Path(__file__).parent / "results" / "exploration"
COLORS = {"Q2RL": "#1b6ca8", "IBRL": "#b0413e", "SAC": "#777777"}
WINDOW = 1_000  # environment steps


def explore(label: str, task: str, seed: int, steps: int) -> Path:
    """
    :param label: of the algorithm in the suite
    :param task: of the suite
    :param seed: of everything
    :param steps: environment steps, those of the BC policy included
    :return: a CSV file with a row for each episode
    """
    (cell,) = load_suite(SUITE).cells({"task": [task], "algorithm": [label], "seed": [str(seed)]})
    path = RESULTS / f"{task}_{label}_seed{seed}.csv"
    path.unlink(missing_ok=True)
    env = make_vec_env(lambda: EpisodeFigures(gym.make(cell.to.env), path, say=False), seed=seed)
    model = ALGORITHMS[cell.by.algorithm].algorithm(env=env, **constructor_keywords(cell))
    model.learn(steps, progress_bar=True)
    env.close()
    return path


def summary(task: str) -> pd.DataFrame:
    """
    :param task: of the suite
    :return: a row for each algorithm: means over the episodes of all its seeds
    """
    rows = []
    for label in COLORS:
        tables = [pd.read_csv(path) for path in sorted(RESULTS.glob(f"{task}_{label}_seed*.csv"))]
        if not tables:
            continue
        episodes = pd.concat(tables)
        faults = episodes.fault.notna()
        rows.append(
            {
                "algorithm": label,
                "seeds": len(tables),
                "steps": int(episodes.steps.sum() / len(tables)),
                "episodes": len(episodes),
                "success": episodes.success.mean(),
                "peak force, median (N)": episodes.peak_force_n.median(),
                "peak force, 95th percentile (N)": episodes.peak_force_n.quantile(0.95),
                "jerk, median (m/s^3)": episodes.rms_jerk_m_s3.median(),
                "stopped by a limit, per 1000 steps": 1000 * faults.sum() / episodes.steps.sum(),
            }
        )
    return pd.DataFrame(rows).round(3)


def draw(task: str) -> Path:
    """
    :param task: of the suite
    :return: a PNG: success, peak force and jerk over environment steps
    """
    panels = {"success": "success", "peak_force_n": "peak force (N)", "rms_jerk_m_s3": "jerk, RMS (m/s³)"}
    figure = Figure(figsize=(8, 7), dpi=130, layout="constrained")
    for axes, (column, name) in zip(figure.subplots(3, 1, sharex=True), panels.items(), strict=True):
        for label, color in COLORS.items():
            for i, path in enumerate(sorted(RESULTS.glob(f"{task}_{label}_seed*.csv"))):
                table = pd.read_csv(path)
                bins = table.steps.cumsum() // WINDOW * WINDOW + WINDOW / 2
                means = table.groupby(bins)[column].mean()
                axes.plot(means.index, means, color=color, label=label if i == 0 else None, lw=1.6)
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        if column == "success":
            axes.legend(frameon=False, fontsize=9)
            axes.set_title(
                f"{task}: how roughly each algorithm explores (means over {WINDOW:,} steps)", loc="left", fontsize=11
            )
    axes.set_xlabel("environment steps, those of the BC policy included")
    return save_figure(figure, RESULTS / f"{task}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=[*COLORS], help="one of them; default: all, one after the other")
    parser.add_argument("--task", default="peg", help="of benchmarks/franka.yml")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timesteps", type=int, default=15_000)
    parser.add_argument("--report", action="store_true", help="run nothing, draw what is there")
    args = parser.parse_args()
    th.set_num_threads(1)
    for label in [] if args.report else [args.algorithm] if args.algorithm else COLORS:
        print(explore(label, args.task, args.seed, args.timesteps))
    table = summary(args.task)
    table.to_csv(RESULTS / f"{args.task}.csv", index=False)
    print(table.to_string(index=False))
    print(draw(args.task))


if __name__ == "__main__":
    main()
