"""Numbers that a comparison is read by. Success rates are fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

N_RESAMPLES = 10_000


class Scores(NamedTuple):
    """
    One algorithm on one task.

    :param rates: (n_seeds,) success of each seed
    :param episodes: (n_seeds,) that each rate was measured over
    """

    rates: np.ndarray
    episodes: np.ndarray


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """
    The mean of the middle half. Where a quarter is no whole number of values, those at its edge count in part, so that
    three seeds have an interquartile mean that is not their mean.

    :param values: (..., n)
    :return: (...)
    """
    n = values.shape[-1]
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return np.sort(values, axis=-1) @ (weights / weights.sum())


def resample(tasks: Sequence[Scores], n_resamples: int = N_RESAMPLES, seed: int = 0) -> np.ndarray:
    """
    A stratified bootstrap in two stages: within each task seeds are drawn with replacement, then each drawn seed's
    episodes. So it tells of both: how much seeds differ, and how few episodes there were. Where all episodes of all
    seeds went alike, all draws are alike, too. Episodes that succeed in part are drawn as if they did so wholly or not
    at all, which varies more: their interval is too wide rather than too narrow.

    Libraries of this kind (rliable) resample seeds only, and need as many of them for each task.

    :param tasks: The strata
    :param n_resamples: Draws
    :param seed: Of the draws
    :return: (n_resamples, seeds of all tasks) rates
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for rates, episodes in tasks:
        seeds = rng.integers(len(rates), size=(n_resamples, len(rates)))
        drawn.append(rng.binomial(episodes[seeds], rates[seeds]) / episodes[seeds])
    return np.concatenate(drawn, axis=1)


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """
    :param draws: (n,) a statistic of each resample
    :return: the middle 95 % of them
    """
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def steps_to_fraction(steps: np.ndarray, success: np.ndarray, fraction: float = 0.9) -> float | None:
    """
    The first step at which the success reaches a fraction of its last value.

    :param steps: (n,)
    :param success: (n,)
    :param fraction: Of the last value
    :return: The step, one of ``steps``; ``None`` if the last value is 0
    """
    if success[-1] <= 0:
        return None
    just_there = fraction * success[-1] - 1e-9  # rates are of few digits, their products are not
    return float(steps[np.argmax(success >= just_there)])


def mean_over_steps(steps: np.ndarray, success: np.ndarray) -> float:
    """
    The area under the curve, divided by its length: the success that a user saw on average while it was learning.

    :param steps: (n,) increasing
    :param success: (n,)
    """
    areas = (success[1:] + success[:-1]) / 2 * np.diff(steps)
    return float(areas.sum() / (steps[-1] - steps[0]))
