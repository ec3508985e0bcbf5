"""Learning curves: success of the model, its actor and the BC policy over environment steps, and who acted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

COLORS = {"model": "#1b6ca8", "rl": "#e07b39", "bc": "#555555"}
LABELS = {"model": "gate (the model as it acts)", "rl": "RL alone", "bc": "BC alone"}
WINDOW = 25  # training episodes


class Run(NamedTuple):
    """
    What one run left behind.

    :param evaluations: Of :class:`GateEvalCallback`'s CSV
    :param episodes: Of :class:`EpisodeLogCallback`'s CSV
    """

    evaluations: pd.DataFrame
    episodes: pd.DataFrame

    @classmethod
    def read(cls, evaluations: str | Path, episodes: str | Path) -> Run:
        return cls(pd.read_csv(evaluations), pd.read_csv(episodes))

    @property
    def switch(self) -> int:
        """The step at which the gate opened."""
        bc = self.episodes[self.episodes.phase == "bc"]
        return int(bc.timesteps.max()) if len(bc) else 0


def learning_curve(runs: Sequence[Run], path: str | Path, title: str) -> Path:
    """
    Draw one run with its intervals, or the mean of several seeds with each seed behind it.

    :param runs: Runs of one setting
    :param path: A PNG
    :param title: Headline
    :return: the path
    """
    figure = Figure(figsize=(8, 5.6), dpi=130, layout="constrained")
    success, fraction = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    switch = int(np.mean([run.switch for run in runs]))
    for axes in (success, fraction):
        axes.axvspan(0, switch, color="#f3ead7", lw=0)
        axes.axvline(switch, color="#b59b5b", lw=1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
    success.text(switch / 2, 0.97, "BC acts:\nQ-estimation", ha="center", va="top", color="#8a6d1d", fontsize=9)
    for who in ("bc", "rl", "model"):
        _draw_success(success, runs, who)
    _draw_training(success, fraction, runs)
    success.set_ylabel("success rate")
    success.set_title(title, loc="left", fontsize=11)
    success.legend(loc="lower right", fontsize=8.5, frameon=False)
    fraction.set_ylabel("RL actions")
    fraction.set_xlabel("environment steps, estimation included")
    fraction.xaxis.set_major_formatter(EngFormatter(sep=""))
    return save_figure(figure, path)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """
    :param figure: To be written, without the program's version, so that the same figure is the same file
    :param path: A PNG; its folder is made
    :return: the path
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path


def _draw_success(axes: Axes, runs: Sequence[Run], who: str) -> None:
    color, label = COLORS[who], LABELS[who]
    if len(runs) == 1:
        table = runs[0].evaluations
        if who == "model":
            axes.fill_between(table.timesteps, table.model_low, table.model_high, color=color, alpha=0.15, lw=0)
        axes.plot(table.timesteps, table[who], "o-", ms=4, color=color, label=label, lw=2 if who == "model" else 1.3)
        return
    n = min(len(run.evaluations) for run in runs)
    steps = np.mean([run.evaluations.timesteps[:n] for run in runs], axis=0)
    curves = np.stack([run.evaluations[who][:n] for run in runs])
    for run in runs if who == "model" else ():
        axes.plot(run.evaluations.timesteps, run.evaluations[who], color=color, alpha=0.3, lw=0.8)
    axes.plot(steps, curves.mean(axis=0), "o-", ms=4, color=color, label=label, lw=2 if who == "model" else 1.3)


def _draw_training(success: Axes, fraction: Axes, runs: Sequence[Run]) -> None:
    alpha = 0.9 if len(runs) == 1 else 0.5
    for i, run in enumerate(runs):
        table = run.episodes
        rolling = table[["is_success", "rl_action_fraction"]].rolling(WINDOW, min_periods=5).mean()
        label = f"training episodes (mean of {WINDOW})" if i == 0 else None
        success.plot(table.timesteps, rolling.is_success, color="#7a9e7e", lw=1, alpha=alpha, label=label)
        fraction.plot(table.timesteps, rolling.rl_action_fraction, color=COLORS["rl"], lw=1.2, alpha=alpha)
