"""Pictures of a comparison: the learning curves of all algorithms on one task, and all tasks at a glance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from sb3_q2rl.benchmark.algorithms import BC
from sb3_q2rl.benchmark.plots import save_figure
from sb3_q2rl.benchmark.results import Curve, mean_curve
from sb3_q2rl.benchmark.statistics import interquartile_mean, percentile_interval, resample
from sb3_q2rl.benchmark.suite import Entry
from sb3_q2rl.benchmark.table import scores

# Okabe and Ito's colours, told apart by the colour-blind, too
COLORS = {
    "qgated_sac": "#0072B2",
    "ibrl": "#D55E00",
    "rlpd": "#009E73",
    "wsrl": "#CC79A7",
    "cal_ql": "#E69F00",
    "cql": "#56B4E9",
    "sac": "#8c6d31",
    "qgated_tqc": "#000000",
    "qgated_residual": "#6a51a3",
    BC: "#777777",
}
MORE_COLORS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8c6d31", "#b30000")

MOST_COLUMNS = 4  # more panels begin another row: a page is no wider

# The seeds of one algorithm on one task, by label
Curves = Mapping[str, Sequence[Curve]]


def styles(curves: Curves) -> dict[str, dict[str, Any]]:
    """
    An algorithm has its colour everywhere; its line is broken where the suite gives or denies it demonstrations.
    Variants of one algorithm take turns in the other colours.

    :param curves: by label
    :return: keywords of matplotlib's lines, by label
    """
    styles: dict[str, dict[str, Any]] = {}
    more = itertools.product(("-", (0, (5, 1)), (0, (1, 1))), MORE_COLORS)
    for label, seeds in curves.items():
        entry = seeds[0].cell.by
        line = ":" if entry.algorithm == BC else {None: "-", True: "--", False: "-."}[entry.demonstrations]
        style: dict[str, Any] = {"color": COLORS.get(entry.algorithm), "linestyle": line}
        if style["color"] is None or style in styles.values():
            other_line, color = next(more)
            style = {"color": color, "linestyle": line if entry.algorithm == BC else other_line}
        styles[label] = style
    return styles


def draw_curves(curves: Curves, path: str | Path, title: str) -> Path:
    """
    The mean over seeds, and a band from the lowest seed to the highest.

    :param curves: by label
    :param path: a PNG
    :param title: headline
    :return: the path
    """
    figure = Figure(figsize=(9, 5), dpi=130, layout="constrained")
    axes = figure.subplots()
    look = styles(curves)
    last = {label: float(scores(seeds).rates.mean()) for label, seeds in curves.items()}
    for label in sorted(curves, key=lambda label: -last[label]):
        seeds, style = curves[label], look[label]
        text = f"{label}  {last[label]:.2f}  ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})"
        if seeds[0].cell.by.algorithm == BC:
            axes.axhline(last[label], label=text, lw=1.5, **style)
            continue
        grid, success = mean_curve(seeds)
        bold = seeds[0].cell.by == Entry("qgated_sac")
        axes.plot(grid, success.mean(axis=0), label=text, lw=2.4 if bold else 1.5, zorder=3 if bold else 2, **style)
        if len(seeds) > 1:
            axes.fill_between(grid, success.min(axis=0), success.max(axis=0), color=style["color"], alpha=0.12, lw=0)
    _tidy(axes)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(left=0)
    axes.set_xlabel("environment steps, those of the BC policy and of warm-ups included")
    axes.set_ylabel("success rate")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_title(title, loc="left", fontsize=11)
    figure.legend(loc="outside right upper", fontsize=8.5, frameon=False, title="mean at the end", title_fontsize=8.5)
    return save_figure(figure, path)


def draw_overview(tasks: Mapping[str, Curves], path: str | Path) -> Path:
    """
    Success at the end with its interval, a panel for each task, and one for the interquartile mean over all tasks of
    those algorithms that were run on every one.

    :param tasks: by name
    :param path: a PNG
    :return: the path
    """
    labels = list(dict.fromkeys(label for curves in tasks.values() for label in curves))
    everywhere = [label for label in labels if all(label in curves for curves in tasks.values())]
    look = styles({label: next(curves[label] for curves in tasks.values() if label in curves) for label in labels})
    n_panels = len(tasks) + (len(tasks) > 1)
    n_columns = min(n_panels, MOST_COLUMNS)
    n_rows = math.ceil(n_panels / n_columns)
    size = (1.8 + 2.3 * n_columns, n_rows * (1.1 + 0.3 * len(labels)))
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).flat
    panels, empty = grid[:n_panels], grid[n_panels:]
    rows = {label: -i for i, label in enumerate(labels)}
    for axes, (task, curves) in zip(panels, tasks.items(), strict=False):
        axes.set_title(task, fontsize=10)
        for label, seeds in curves.items():
            ends = scores(seeds)
            interval = percentile_interval(resample([ends]).mean(axis=1))
            finished = all(seed.is_finished for seed in seeds)
            _dot(axes, rows[label], float(ends.rates.mean()), interval, look[label]["color"], finished)
    if len(tasks) > 1:
        panels[-1].set_title("all tasks: IQM", fontsize=10)
        for label in everywhere:
            ends_of_all = [scores(curves[label]) for curves in tasks.values()]
            value = float(interquartile_mean(np.concatenate([ends.rates for ends in ends_of_all])))
            interval = percentile_interval(interquartile_mean(resample(ends_of_all)))
            finished = all(seed.is_finished for curves in tasks.values() for seed in curves[label])
            _dot(panels[-1], rows[label], value, interval, look[label]["color"], finished)
    for axes in panels:
        _tidy(axes)
        axes.set_xlim(-0.04, 1.04)
        axes.grid(color="#e5e5e5", lw=0.6)
        axes.set_xlabel("success at the end", fontsize=9)
    for axes in empty:
        axes.set_axis_off()
    panels[0].set_yticks(list(rows.values()), list(rows))
    panels[0].set_ylim(min(rows.values()) - 0.6, 0.6)
    return save_figure(figure, path)


def _dot(axes: Axes, row: int, value: float, interval: tuple[float, float], color: str, finished: bool) -> None:
    """Hollow: not finished yet."""
    axes.plot(interval, [row, row], color=color, lw=2.2, solid_capstyle="round")
    axes.plot(value, row, "o", ms=7, mec=color, mfc=color if finished else "white", mew=1.6)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
