"""When in an episode does the RL policy act? The share of its actions over the episode's phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sb3_q2rl.benchmark.plots import save_figure
from sb3_q2rl.benchmark.video import FRAME_COLORS, SUCCESS_COLOR, Episode

N_PHASES = 20


def phase_fractions(rl_acts: Sequence[np.ndarray], n_phases: int = N_PHASES) -> np.ndarray:
    """
    :param rl_acts: (n_steps,) bool of each episode, see :class:`Episode`
    :param n_phases: Parts of equal duration that each episode is cut into
    :return: (n_episodes, n_phases) the share of RL actions; NaN in the parts that an episode is too short to have
    """
    fractions = np.full((len(rl_acts), n_phases), np.nan)
    for row, acts in zip(fractions, rl_acts, strict=True):
        phase = np.arange(len(acts)) * n_phases // len(acts)
        counts = np.bincount(phase, minlength=n_phases)
        sums = np.bincount(phase, weights=acts, minlength=n_phases)
        np.divide(sums, counts, out=row, where=counts > 0)
    return fractions


def phase_plot(episodes: Sequence[Episode], path: str | Path, title: str) -> Path:
    """
    Draw the mean over all episodes as bars, successes and failures as lines.

    :param episodes: Of the gate
    :param path: A PNG
    :param title: Headline
    :return: the path
    """
    fractions = phase_fractions([episode.rl_acts for episode in episodes])
    success = np.array([episode.is_success for episode in episodes])
    centers = (np.arange(N_PHASES) + 0.5) / N_PHASES
    figure = Figure(figsize=(7, 3.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.bar(centers, _mean(fractions), width=0.9 / N_PHASES, color=_hex(FRAME_COLORS["rl"]), alpha=0.55, lw=0)
    for chosen, label, color in ((success, "successes", SUCCESS_COLOR), (~success, "failures", FRAME_COLORS["bc"])):
        if chosen.any():
            lengths = [len(e.rl_acts) for e, is_chosen in zip(episodes, chosen, strict=True) if is_chosen]
            text = f"{chosen.sum()} {label} ({np.median(lengths):.0f} steps, median)"
            axes.plot(centers, _mean(fractions[chosen]), "o-", ms=3, lw=1.4, color=_hex(color), label=text)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.22),
        yticks=np.linspace(0, 1, 6),
        xlabel="phase of the episode",
        ylabel="share of RL actions",
    )
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", ncols=2, fontsize=8.5, frameon=False)  # above the bars
    return save_figure(figure, path)


def _mean(fractions: np.ndarray) -> np.ndarray:
    """Over the episodes that have the phase; NaN where none has."""
    counts = np.isfinite(fractions).sum(axis=0)
    return np.divide(np.nansum(fractions, axis=0), counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
