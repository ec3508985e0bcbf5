"""The pictures of all tasks: Q2RL beside its rivals where they were run, and what it makes of each BC policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_q2rl.benchmark.algorithms import BC
from sb3_q2rl.benchmark.comparison import COLORS, Curves, n_seeds, plot_curve, styles, tidy, tidy_curves
from sb3_q2rl.benchmark.plots import save_figure
from sb3_q2rl.benchmark.results import Curve
from sb3_q2rl.benchmark.statistics import percentile_interval, resample
from sb3_q2rl.benchmark.table import scores

OURS = "qgated"  # what the names of all that have the gate begin with


def with_rivals(tasks: Mapping[str, Curves]) -> dict[str, Curves]:
    """
    :param tasks: by name
    :return: those on which something else than Q2RL and its variants learnt
    """
    return {
        task: curves
        for task, curves in tasks.items()
        if any(not seeds[0].cell.by.algorithm.startswith((OURS, BC)) for seeds in curves.values())
    }


def draw_rivals(tasks: Mapping[str, Curves], path: str | Path) -> Path:
    """
    For each task the learning curves, and below them the success at the end with its interval and the number of seeds;
    at the right the mean over the tasks, each of the same weight, of those algorithms that finished every one.

    :param tasks: by name, one or more
    :param path: a PNG
    :return: the path
    """
    labels = list(dict.fromkeys(label for curves in tasks.values() for label in curves))
    look = styles({label: next(curves[label] for curves in tasks.values() if label in curves) for label in labels})
    rows = {label: -i for i, label in enumerate(labels)}
    n_columns = len(tasks) + 1
    figure = Figure(figsize=(1.5 + 2.7 * n_columns, 4.0 + 0.28 * len(labels)), dpi=130, layout="constrained")
    grid = figure.subplots(2, n_columns, sharey="row", squeeze=False, height_ratios=[3.2, 1.0 + 0.28 * len(labels)])
    for (above, below), (task, curves) in zip(grid.T, tasks.items(), strict=False):
        above.set_title(task, fontsize=11)
        for label, seeds in curves.items():
            plot_curve(above, seeds, look[label], label)
            _dot(below, rows[label], [seeds], look[label]["color"])
            below.text(1.05, rows[label], f"×{len(seeds)}", fontsize=7, color="#777777", va="center")
        tidy_curves(above)
        above.set_xlabel("environment steps", fontsize=9)
        _tidy_dots(below, "success at the end, 95 %, × seeds\n(hollow: unfinished)")
        below.set_xlim(right=1.14)
    grid[0, 0].set_ylabel("success rate")
    legend, over_all = grid[:, -1]
    legend.set_axis_off()
    handles = {text: handle for axes in grid[0] for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    legend.legend([handles[label] for label in labels], labels, loc="center", frameon=False, fontsize=9)
    for label in labels:
        if all(label in curves and all(seed.is_finished for seed in curves[label]) for curves in tasks.values()):
            _dot(over_all, rows[label], [curves[label] for curves in tasks.values()], look[label]["color"])
    _tidy_dots(over_all, "mean over the tasks, 95 %")
    grid[1, 0].set_yticks(list(rows.values()), labels)
    grid[1, 0].set_ylim(min(rows.values()) - 0.6, 0.6)
    return save_figure(figure, path)


def draw_improvement(tasks: Mapping[str, Curves], path: str | Path) -> Path:
    """
    A line for each task: the BC policy's success, and Q2RL's at the end, in the same starts.

    :param tasks: by name; those of :func:`before_and_after` are drawn
    :param path: a PNG
    :return: the path
    """
    pairs = before_and_after(tasks)
    figure = Figure(figsize=(8.5, 1.2 + 0.42 * len(pairs)), dpi=130, layout="constrained")
    axes = figure.subplots()
    names = []
    for row, (task, (before, after)) in enumerate(pairs.items()):
        _dot(axes, -row + 0.12, [before], COLORS[BC])
        _dot(axes, -row - 0.12, [after], COLORS["qgated_sac"])
        steps = min(int(seed.steps[-1]) for seed in after)
        names.append(f"{task}\n{steps / 1000:.0f}k steps, {n_seeds(after)}")
    _tidy_dots(axes, "success of the BC policy (grey) and of Q2RL at the end (blue), 95 %")
    axes.set_yticks([-row for row in range(len(pairs))], names, fontsize=8)
    return save_figure(figure, path)


def before_and_after(tasks: Mapping[str, Curves]) -> dict[str, tuple[Sequence[Curve], Sequence[Curve]]]:
    """
    :param tasks: by name
    :return: of each that has both, the BC policy's curves and Q2RL's without demonstrations: those of the suite's first
        such line, of which later ones are variants
    """
    pairs = {}
    for task, curves in tasks.items():
        first: dict[str, Sequence[Curve]] = {}
        for seeds in curves.values():
            if not seeds[0].cell.by.demonstrations:
                first.setdefault(seeds[0].cell.by.algorithm, seeds)
        if first.keys() >= {BC, "qgated_sac"}:
            pairs[task] = (first[BC], first["qgated_sac"])
    return pairs


def _dot(axes: Axes, row: float, tasks: Sequence[Sequence[Curve]], color: str) -> None:
    """The mean over the tasks of the mean over the seeds. Hollow: not finished yet."""
    ends = [scores(seeds) for seeds in tasks]
    value = np.mean([end.rates.mean() for end in ends])
    drawn = np.mean([resample(end, seed=i).mean(axis=1) for i, end in enumerate(ends)], axis=0)
    finished = all(seed.is_finished for seeds in tasks for seed in seeds)
    axes.plot(percentile_interval(drawn), [row, row], color=color, lw=2.2, solid_capstyle="round")
    axes.plot(float(value), row, "o", ms=7, mec=color, mfc=color if finished else "white", mew=1.6)


def _tidy_dots(axes: Axes, label: str) -> None:
    tidy(axes)
    axes.set_xlim(-0.04, 1.04)
    axes.grid(color="#e5e5e5", lw=0.6)
    axes.set_xlabel(label, fontsize=9)
