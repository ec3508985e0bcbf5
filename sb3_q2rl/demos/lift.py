"""Lift: above the cube, down, close, up."""

from __future__ import annotations

import numpy as np

from sb3_q2rl.demos.expert import CLOSE, OPEN, UP, Actions, Hand, Operator, nearest_turn, pointing_down, yaw_of
from sb3_q2rl.envs.robomimic import Pose, RobomimicEnv

RAISED_M = 0.1


def lift(env: RobomimicEnv, operator: Operator) -> Actions:
    """
    :param env: RobomimicLift-v0
    :param operator: who moves
    :return: the actions
    """
    hand = Hand(env, operator)
    grasp_offset = operator.near(np.zeros(3), tolerance_m=0.007)
    # of the four ways to grasp it, the one that turns the hand least; chosen once, lest it changes on the way
    grasp_yaw = nearest_turn(yaw_of(env.pose("cube_main").rotation), 0.0, np.pi / 2)

    def at_cube(height_m: float) -> Pose:
        cube = env.pose("cube_main")
        yaw = nearest_turn(yaw_of(cube.rotation), grasp_yaw, np.pi / 2)
        return Pose(cube.position_m + grasp_offset + height_m * UP, pointing_down(yaw))

    yield from hand.move(lambda: at_cube(operator.hover_m), OPEN, tolerance_m=0.015)
    yield from hand.move(lambda: hand.from_above(at_cube(0.0)), OPEN, tolerance_m=0.008, max_steps=30)
    yield from hand.close()
    above = Pose(hand.pose.position_m + RAISED_M * UP, hand.pose.rotation)
    yield from hand.move(lambda: above, CLOSE, max_steps=30)
