"""Peg insertion: the peg is in the hand."""

from __future__ import annotations

import numpy as np

from sb3_q2rl.demos.expert import Actions, Operator
from sb3_q2rl.demos.franka_hand import TOOL_DOWN, FrankaHand
from sb3_q2rl.demos.franka_insert import insert
from sb3_q2rl.envs.franka.franka_env import FrankaEnv
from sb3_q2rl.envs.robomimic import Pose


def franka_peg(env: FrankaEnv, operator: Operator) -> Actions:
    """
    :param env: FrankaPegInsertion-v0
    :param operator: who moves
    :return: the actions
    """
    hand = FrankaHand(env, operator)
    hole = hand.pose_of("hole")

    def tip() -> np.ndarray:
        return env.simulator.objects()["peg_to_hole_pos"]

    def with_tip_at(place_m: np.ndarray) -> Pose:
        turn = hole.rotation @ TOOL_DOWN @ hand.pose_of("peg").rotation.T
        tool, tip_m = hand.pose, hole.position_m + hole.rotation @ tip()
        goal_m = hole.position_m + hole.rotation @ place_m
        return Pose(goal_m + turn @ (tool.position_m - tip_m), turn @ tool.rotation)

    yield from insert(hand, operator, tip, with_tip_at)
