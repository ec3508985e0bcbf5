"""Numbers that a comparison is read by. Success rates are fractions in [0, 1]."""

from __future__ import annotations

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


def resample(scores: Scores, n_resamples: int = N_RESAMPLES, seed: int = 0) -> np.ndarray:
    """
    A bootstrap in two stages: seeds are drawn with replacement, then for each a rate of success from what its episodes
    tell of it. So it tells of both: how much seeds differ, and how few episodes there were. The second draw is from
    Beta(k + 1/2, n - k + 1/2) after k successes in n (Jeffreys): unlike drawn episodes it does not take 20 of 20 for a
    certainty. Episodes that succeed in part count as if they did so wholly or not at all, which varies more: their
    interval is too wide rather than too narrow.

    Libraries of this kind (rliable) resample seeds only, and need as many of them for each task.

    :param scores: Of one algorithm on one task. Several tasks are strata: one call for each, with another ``seed``
    :param n_resamples: Draws
    :param seed: Of the draws
    :return: (n_resamples, n_seeds) rates
    """
    rng = np.random.default_rng(seed)
    seeds = rng.integers(len(scores.rates), size=(n_resamples, len(scores.rates)))
    succeeded, of = (scores.rates * scores.episodes)[seeds], scores.episodes[seeds]
    return rng.beta(succeeded + 0.5, of - succeeded + 0.5)


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
