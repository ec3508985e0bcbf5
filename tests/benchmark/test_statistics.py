import numpy as np
import pytest
from scipy import stats

from sb3_q2rl.benchmark.statistics import (
    Scores,
    interquartile_mean,
    mean_over_steps,
    percentile_interval,
    resample,
    steps_to_fraction,
)


def test_interquartile_mean_is_scipys_trimmed_mean_where_quarters_are_whole():
    values = np.random.default_rng(0).random((5, 8))
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25, axis=1))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.3], 0.3),
        ([0.0, 1.0], 0.5),
        # A quarter of three is 3/4 of a value: a quarter of each outer one is left, and the whole of the middle one
        ([1.0, 0.0, 0.5], (0.25 * 0.0 + 0.5 + 0.25 * 1.0) / 1.5),
        ([0.9, 0.0, 0.8], (0.25 * 0.0 + 0.8 + 0.25 * 0.9) / 1.5),
        ([0.0, 0.2, 0.4, 1.0], 0.3),
    ],
)
def test_interquartile_mean_in_closed_form(values, expected):
    assert interquartile_mean(np.array(values)) == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_one_seed_is_jeffreys_interval(rate):
    draws = resample(Scores(np.array([rate]), np.array([50])), n_resamples=200_000)[:, 0]
    k = 50 * rate
    np.testing.assert_allclose(percentile_interval(draws), stats.beta(k + 0.5, 50.5 - k).ppf([0.025, 0.975]), atol=2e-3)


def test_twenty_of_twenty_are_no_certainty():
    few, many = (Scores(np.array([1.0]), np.array([n])) for n in (20, 1000))
    lows = [percentile_interval(resample(scores)[:, 0])[0] for scores in (few, many)]
    assert lows[0] < 0.9
    assert lows[1] > 0.99


def test_the_variance_is_that_of_seeds_plus_that_of_episodes():
    rates, episodes = np.array([0.2, 0.5, 0.9, 0.8]), np.array([20, 50, 50, 100])
    means = resample(Scores(rates, episodes), n_resamples=200_000).mean(axis=1)
    beta = stats.beta(rates * episodes + 0.5, (1 - rates) * episodes + 0.5)
    # Of a drawn seed: var(E[x|seed]) + E[var(x|seed)]; the mean of 4 draws has a quarter of it
    expected = (beta.mean().var() + beta.var().mean()) / 4
    assert means.mean() == pytest.approx(beta.mean().mean(), abs=1e-3)
    assert means.var() == pytest.approx(expected, rel=0.02)


def test_mean_over_steps_of_a_ramp_and_of_uneven_steps():
    assert mean_over_steps(np.array([0.0, 10.0]), np.array([0.0, 1.0])) == 0.5
    assert mean_over_steps(np.array([0.0, 1.0, 10.0]), np.array([1.0, 1.0, 1.0])) == 1.0
    assert mean_over_steps(np.array([0.0, 8.0, 10.0]), np.array([0.0, 0.0, 1.0])) == pytest.approx(0.1)


def test_steps_to_a_fraction_of_the_last_value():
    steps = np.array([0, 10, 20, 30])
    assert steps_to_fraction(steps, np.array([0.0, 0.5, 0.72, 0.8])) == 20
    assert steps_to_fraction(steps, np.array([0.8, 0.1, 0.2, 0.8])) == 0
    assert steps_to_fraction(steps, np.zeros(4)) is None
