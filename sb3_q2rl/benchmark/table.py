"""The table of one task: a line for each algorithm, with what the paper reports beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sb3_q2rl.benchmark.algorithms import BC
from sb3_q2rl.benchmark.results import Curve, mean_curve
from sb3_q2rl.benchmark.statistics import (
    Scores,
    interquartile_mean,
    mean_over_steps,
    percentile_interval,
    resample,
    steps_to_fraction,
)
from sb3_q2rl.benchmark.suite import Entry

HEADINGS = (
    "algorithm",
    "success at the end",
    "95 %",
    "IQM",
    "each seed",
    "RL alone",
    "lowest after the start",
    "steps to 90 %",
    "mean while learning",
    "paper",
)


class Published(NamedTuple):
    """
    Numbers of the paper.

    :param source: where they stand
    :param steps: environment id -> environment steps they were measured after
    :param success: environment id -> algorithm -> [rate], or [rate, half-width of the interval]
    """

    source: str
    steps: Mapping[str, int]
    success: Mapping[str, Mapping[str, Sequence[float]]]

    @classmethod
    def load(cls) -> Published:
        import yaml

        return cls(**yaml.safe_load((Path(__file__).parent / "published.yml").read_text()))

    def of(self, env_id: str, entry: Entry) -> str:
        """
        :param env_id: the task
        :param entry: the algorithm; one with changed hyperparameters is not in the paper
        :return: e.g. ``.87 ± .08``; empty if the paper has none
        """
        if entry.hyperparameters:
            return ""
        known = self.success.get(env_id, {})
        name = f"{entry.algorithm}+data" if entry.demonstrations else entry.algorithm
        numbers = known.get(name, ())
        return " ± ".join(rate(number) for number in numbers)


def rate(value: float) -> str:
    """
    :param value: in [0, 1]
    :return: ``.87``, ``1.00``
    """
    return f"{value:.2f}".removeprefix("0")


def scores(curves: Sequence[Curve]) -> Scores:
    """
    :param curves: seeds of one algorithm on one task
    """
    return Scores(np.array([curve.model[-1] for curve in curves]), np.array([curve.episodes for curve in curves]))


def line(curves: Sequence[Curve], published: Published) -> list[str]:
    """
    :param curves: seeds of one algorithm on one task
    :param published: the paper's numbers
    :return: under ``HEADINGS``
    """
    cell, ends = curves[0].cell, scores(curves)
    interval = percentile_interval(resample([ends]).mean(axis=1))
    unfinished = [curve for curve in curves if not curve.is_finished]
    label = cell.label
    if unfinished:
        label += f" (unfinished: {min(int(curve.steps[-1]) for curve in unfinished):,} steps)"
    cells = [
        label,
        f"**{rate(float(ends.rates.mean()))}**",
        " - ".join(map(rate, interval)),
        rate(float(interquartile_mean(ends.rates))),
        " ".join(rate(float(value)) for value in ends.rates),
    ]
    if cell.by.algorithm == BC:
        return [*cells, "", "", "", "", published.of(cell.to.env, cell.by)]
    grid, success = mean_curve(curves)
    average = success.mean(axis=0)
    reached = steps_to_fraction(grid, average)
    alone = np.array([curve.rl[-1] for curve in curves])
    return [
        *cells,
        "" if np.isnan(alone).any() else rate(float(alone.mean())),
        rate(min(float(curve.model.min()) for curve in curves)),
        "never" if reached is None else f"{reached / 1000:.0f}k",
        rate(mean_over_steps(grid, average)),
        published.of(cell.to.env, cell.by),
    ]


def markdown(headings: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """
    :param headings: of the columns
    :param lines: of text
    """
    rule = "|".join("---" for _ in headings)
    rows = (" | ".join(str(text) for text in row) for row in (headings, *lines))
    first, *others = (f"| {row} |" for row in rows)
    return "\n".join([first, f"|{rule}|", *others])
