"""Monte-Carlo returns of recorded episodes."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

TruncationTail = Literal["repeat_last", "zero"]


def check_tail(tail: str, gamma: float) -> None:
    """
    :param tail: See :func:`monte_carlo_returns`
    :param gamma: Discount factor
    :raises ValueError: if the tail is unknown, or infinite
    """
    if tail not in get_args(TruncationTail):
        raise ValueError(f"`truncation_tail` is {tail!r}, expected one of {get_args(TruncationTail)}.")
    if tail == "repeat_last" and not 0 <= gamma < 1:
        raise ValueError(f"`gamma` is {gamma}: 'repeat_last' sums an endless tail, so use 0 <= gamma < 1, or 'zero'.")


def monte_carlo_returns(
    rewards: np.ndarray, terminated: bool, gamma: float, tail: TruncationTail = "repeat_last"
) -> np.ndarray:
    """
    G_t = r_t + gamma G_{t+1}, swept backwards over one episode.

    A time limit says nothing about what would have come after it. One rule for every task: the last reward goes on for
    ever, G_T = r_last / (1 - gamma), as if the state at the cut were absorbing. In a sparse task this gives an episode
    that never succeeds r_neg / (1 - gamma) at every step, the value that the TD target (which bootstraps at time
    limits) converges to. ``"zero"`` is the plain finite sum.

    :param rewards: (T,) rewards of one episode, in order
    :param terminated: The episode ended in a terminal state, not at a time limit
    :param gamma: Discount factor
    :param tail: What follows a truncated episode
    :return: (T,) float32
    """
    check_tail(tail, gamma)
    running = 0.0 if terminated or tail == "zero" else float(rewards[-1]) / (1 - gamma)
    returns = np.empty(len(rewards), dtype=np.float32)
    for t in reversed(range(len(rewards))):
        running = float(rewards[t]) + gamma * running
        returns[t] = running
    return returns
