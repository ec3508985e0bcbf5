"""The table of one task: a line for each algorithm, with what the paper reports beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sb3_q2rl.benchmark.algorithms import BC
from sb3_q2rl.benchmark.results import Curve, together
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
    :param names: of the algorithms
    :param success: environment id -> algorithm -> [rate], or [rate, half-width of the interval]
    """

    source: str
    steps: Mapping[str, int]
    names: Mapping[str, str]
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
        return "" if entry.hyperparameters else self._text(env_id, _published_name(entry))

    def others(self, env_id: str, entries: Sequence[Entry]) -> list[list[str]]:
        """
        :param env_id: the task
        :param entries: those with a line of their own
        :return: lines of the algorithms that the paper ran there and we did not
        """
        ours = {_published_name(entry) for entry in entries if not entry.hyperparameters}
        lines = []
        for name in self.success.get(env_id, {}):
            if name not in ours:
                algorithm, _, data = name.partition("+")
                label = self.names[algorithm] + ("+data" if data else "")
                lines.append([f"{label} (not run)", *[""] * (len(HEADINGS) - 2), self._text(env_id, name)])
        return lines

    def _text(self, env_id: str, name: str) -> str:
        return " ± ".join(rate(number) for number in self.success.get(env_id, {}).get(name, ()))


def _published_name(entry: Entry) -> str:
    return f"{entry.algorithm}+data" if entry.demonstrations else entry.algorithm


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
    interval = percentile_interval(resample(ends).mean(axis=1))
    label = cell.label
    if not all(curve.is_finished for curve in curves):
        label += f" (unfinished: {min(int(curve.steps[-1]) for curve in curves):,} steps)"
    if changed := sorted({name for curve in curves for name in curve.changed}):
        label += f" (run with another `{'`, `'.join(changed)}`)"
    cells = [
        label,
        f"**{rate(float(ends.rates.mean()))}**",
        " - ".join(map(rate, interval)),
        rate(float(interquartile_mean(ends.rates))),
        " ".join(rate(float(value)) for value in ends.rates),
    ]
    if cell.by.algorithm == BC:
        return [*cells, "", "", "", "", published.of(cell.to.env, cell.by)]
    steps, success, start = together(curves)
    average = success.mean(axis=0)
    reached = steps_to_fraction(steps[start:], average[start:])
    alone = np.array([curve.rl[-1] for curve in curves])
    return [
        *cells,
        "" if np.isnan(alone).any() else rate(float(alone.mean())),
        rate(min(float(curve.model.min()) for curve in curves)),
        "never" if reached is None else "-" if average[-1] < average[0] else f"{reached / 1000:.0f}k",
        rate(mean_over_steps(steps, average)),
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
