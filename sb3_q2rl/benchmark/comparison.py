"""The picture of a task: the learning curves of all algorithms on it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from sb3_q2rl.benchmark.algorithms import BC
from sb3_q2rl.benchmark.plots import save_figure
from sb3_q2rl.benchmark.results import Curve, together
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

# The seeds of one algorithm on one task, by label
Curves = Mapping[str, Sequence[Curve]]


def styles(curves: Curves) -> dict[str, dict[str, Any]]:
    """
    An algorithm has its colour everywhere; its line is broken where the suite gives or denies it demonstrations.
    Variants of one algorithm, and those with changed hyperparameters, take turns in colours that nobody has.

    :param curves: by label
    :return: keywords of matplotlib's lines, by label
    """
    styles: dict[str, dict[str, Any]] = {}
    more = itertools.product(("-", (0, (5, 1)), (0, (1, 1))), MORE_COLORS)
    entries = {label: seeds[0].cell.by for label, seeds in curves.items()}
    for label, entry in sorted(entries.items(), key=lambda item: _is_variant(item[1])):
        line = ":" if entry.algorithm == BC else {None: "-", True: "--", False: "-."}[entry.demonstrations]
        style: dict[str, Any] = {"color": COLORS.get(entry.algorithm), "linestyle": line}
        while style["color"] is None or style in styles.values():
            other_line, color = next(more)
            style = {"color": color, "linestyle": line if entry.algorithm == BC else other_line}
        styles[label] = style
    return styles


def _is_variant(entry: Entry) -> bool:
    return entry.algorithm not in COLORS or bool(entry.hyperparameters)


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
        seeds = curves[label]
        plot_curve(
            axes, seeds, look[label], f"{label}  {last[label]:.2f}  ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})"
        )
    tidy_curves(axes)
    axes.set_xlabel("environment steps, those of the BC policy and of warm-ups included")
    axes.set_ylabel("success rate")
    axes.set_title(title, loc="left", fontsize=11)
    figure.legend(loc="outside right upper", fontsize=8.5, frameon=False, title="mean at the end", title_fontsize=8.5)
    return save_figure(figure, path)


def plot_curve(axes: Axes, seeds: Sequence[Curve], style: Mapping[str, Any], label: str) -> None:
    """
    :param axes: to draw in
    :param seeds: of one algorithm on one task: their mean, and a band from the lowest to the highest
    :param style: of ``styles``
    :param label: in the legend
    """
    if seeds[0].cell.by.algorithm == BC:
        axes.axhline(float(scores(seeds).rates.mean()), label=label, lw=1.5, **style)
        return
    steps, success, start = together(seeds)
    bold = seeds[0].cell.by == Entry("qgated_sac")
    look: dict[str, Any] = {"lw": 2.4, "ms": 4.5, "zorder": 3} if bold else {"lw": 1.5, "ms": 3, "zorder": 2}
    evaluated = list(range(start, len(steps)))
    axes.plot(steps, success.mean(axis=0), marker="o", markevery=evaluated, label=label, **look, **style)
    if len(seeds) > 1:
        axes.fill_between(steps, success.min(axis=0), success.max(axis=0), color=style["color"], alpha=0.12, lw=0)


def n_seeds(seeds: Sequence[Curve]) -> str:
    """
    :param seeds: of one algorithm on one task
    """
    return "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"


def tidy_curves(axes: Axes) -> None:
    """
    :param axes: with success over environment steps
    """
    tidy(axes)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", color="#dddddd", lw=0.6)


def tidy(axes: Axes) -> None:
    """
    :param axes: whose frame loses the sides that nothing is read from
    """
    axes.spines[["top", "right"]].set_visible(False)
