import numpy as np
import pytest

from sb3_q2rl.common.returns import monte_carlo_returns


def test_terminated_episode_is_the_discounted_sum():
    returns = monte_carlo_returns(np.array([-5.0, -5.0, 5.0]), terminated=True, gamma=0.9)
    np.testing.assert_allclose(returns, [-5 + 0.9 * (-5 + 0.9 * 5), -5 + 0.9 * 5, 5], rtol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 200])
def test_never_successful_episode_is_worth_the_same_at_every_step(length):
    """METHOD: r_neg / (1 - gamma) at every step, from one rule that knows no task."""
    returns = monte_carlo_returns(np.full(length, -5.0), terminated=False, gamma=0.99)
    np.testing.assert_allclose(returns, -500.0, rtol=1e-5)


def test_tail_repeats_the_last_reward():
    gamma = 0.8
    rewards = np.array([0.0, 1.0, 2.0])
    endless = np.concatenate([rewards, np.full(400, 2.0)])
    expected = [sum(gamma**k * r for k, r in enumerate(endless[t:])) for t in range(3)]
    np.testing.assert_allclose(monte_carlo_returns(rewards, False, gamma), expected, rtol=1e-6)


def test_zero_tail_is_the_finite_sum():
    np.testing.assert_allclose(monte_carlo_returns(np.ones(3), False, 0.5, "zero"), [1.75, 1.5, 1.0])


def test_errors():
    with pytest.raises(ValueError, match="truncation_tail"):
        monte_carlo_returns(np.ones(3), True, 0.9, "bootstrap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gamma"):
        monte_carlo_returns(np.ones(3), False, 1.0)
    np.testing.assert_allclose(monte_carlo_returns(np.ones(3), False, 1.0, "zero"), [3, 2, 1])
