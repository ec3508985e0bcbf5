"""Can: out of the left bin, over the walls, into its compartment of the right bin. A toppled can is taken, too."""

from __future__ import annotations

import numpy as np

from sb3_q2rl.demos.expert import CLOSE, OPEN, UP, Actions, Hand, Operator, nearest_turn, pointing_down
from sb3_q2rl.envs.robomimic import Pose, RobomimicEnv

# m, heights of the can's middle. The walls of the bins end at 0.9, the can is 0.08 long
CARRIED_M = 1.0
RELEASED_M = (0.87, 0.9)
# m, from the compartment's middle to the robot: in the middle the arm is stretched and stands still, and whoever learns
# from such demonstrations stands there for ever
NEARER_M = np.array([-0.045, -0.06, 0.0])
PLACE_TOLERANCE_M = 0.015
# farther from the fingers it is no longer held
HELD_M = 0.04
HALF_LENGTH_M = 0.04
LYING_COSINE = 0.7


def can(env: RobomimicEnv, operator: Operator) -> Actions:
    """
    :param env: RobomimicCan-v0
    :param operator: who moves
    :return: the actions
    """
    hand = Hand(env, operator)
    grasp_offset = operator.near(0.01 * UP, tolerance_m=0.008)
    usual_yaw = operator.rng.uniform(-0.4, 0.4) * operator.sloppiness
    place = operator.near(env.pose("VisualCan_main").position_m + NEARER_M, PLACE_TOLERANCE_M)[:2]
    released_m = operator.rng.uniform(*RELEASED_M)

    def grasp_yaw() -> float:
        """Any will do for a can that stands; one that has toppled is grasped across."""
        axis = env.pose("Can_main").rotation[:, 2]
        lies = abs(axis[2]) < LYING_COSINE
        return nearest_turn(np.arctan2(axis[1], axis[0]), usual_yaw, np.pi) if lies else usual_yaw

    def at_can(height_m: float) -> Pose:
        return Pose(env.pose("Can_main").position_m + grasp_offset + height_m * UP, pointing_down(yaw))

    def held() -> bool:
        return bool(np.linalg.norm(env.pose("Can_main").position_m - hand.pose.position_m) < HELD_M)

    def can_to(xy_m: np.ndarray, height_m: float) -> Pose:
        """The hand's place for which the can, as it is held, has this one."""
        in_hand = hand.pose.position_m - env.pose("Can_main").position_m
        return Pose(np.array([*xy_m, height_m]) + in_hand, pointing_down(yaw))

    yaw = grasp_yaw()
    yield from hand.move(lambda: at_can(operator.hover_m + HALF_LENGTH_M), OPEN, tolerance_m=0.015)
    yield from hand.move(lambda: hand.from_above(at_can(0.0)), OPEN, max_steps=40)
    yield from hand.close()
    here = env.pose("Can_main").position_m[:2]
    yield from hand.move(lambda: can_to(here, CARRIED_M), CLOSE, tolerance_m=0.03, while_=held)
    yield from hand.move(lambda: can_to(place, CARRIED_M), CLOSE, tolerance_m=0.02, while_=held)
    yield from hand.move(lambda: can_to(place, released_m), CLOSE, max_steps=30, while_=held)
    yield from hand.wait(OPEN, n_steps=5)
    away = Pose(hand.pose.position_m + 0.1 * UP, hand.pose.rotation)
    yield from hand.move(lambda: away, OPEN, max_steps=30)
