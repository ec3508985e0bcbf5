"""
What the peg and the pipe have in common: above the hole, down, and where the rim is met instead of the hole, up a
little and again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sb3_q2rl.demos.expert import CLOSE, Actions, Operator
from sb3_q2rl.demos.franka_hand import FrankaHand
from sb3_q2rl.envs.robomimic import Pose

# Standard deviation of the aim at the first attempt; each further one is aimed better
AIM_M, BETTER = 0.0008, 0.6
# How far the tip stops above the hole, at first and after a failed attempt
HOVER_M, LIFTED_M = (0.008, 0.02), 0.004
# How far the target is led ahead: on the way down, and once the tip is in the hole
PRESS_M, PUSH_M = 0.008, 0.014
# The tip is in the hole; and it stands on the rim when it sinks no more in so many steps
ENTERED_M, STANDING_M, STANDING_STEPS = -0.004, 0.0004, 2
MAX_STEPS = 40


def insert(
    hand: FrankaHand,
    operator: Operator,
    tip: Callable[[], np.ndarray],
    with_tip_at: Callable[[np.ndarray], Pose],
    while_: Callable[[], bool] = lambda: True,
) -> Actions:
    """
    :param hand: holds what is inserted
    :param operator: who moves
    :param tip: (3,) where it is in the hole's frame
    :param with_tip_at: the tool's pose that puts the tip to a place in the hole's frame, turned as it fits
    :param while_: it breaks off when this is no longer so, because it has slipped out of the hand
    """
    hover_m, spread_m = operator.rng.uniform(*HOVER_M), AIM_M * (0.5 + operator.sloppiness)
    while while_():
        aim_m = np.array([*operator.rng.normal(0.0, spread_m, 2), 0.0])
        above_m = aim_m + np.array([0.0, 0.0, hover_m])

        def above(place_m: np.ndarray = above_m) -> Pose:
            return with_tip_at(place_m)

        yield from hand.move(above, CLOSE, tolerance_m=0.002, tolerance_rad=0.03, max_steps=MAX_STEPS)
        yield from _down(hand, tip, with_tip_at, aim_m)
        hover_m, spread_m = LIFTED_M, spread_m * BETTER


def _down(
    hand: FrankaHand, tip: Callable[[], np.ndarray], with_tip_at: Callable[[np.ndarray], Pose], aim_m: np.ndarray
) -> Actions:
    """Until it stands, on the rim or at the bottom."""
    heights_m = [np.inf] * STANDING_STEPS
    for _ in range(MAX_STEPS):
        height_m = float(tip()[2])
        inside = height_m < ENTERED_M
        place_m = (0.0 if inside else 1.0) * aim_m  # the walls lead it to the middle
        place_m[2] = height_m - (PUSH_M if inside else PRESS_M)
        yield from hand.step_to(with_tip_at(place_m), CLOSE)
        heights_m = [*heights_m[1:], height_m]
        if heights_m[0] - heights_m[-1] < STANDING_M:
            return
