"""Kitting: one part of each kind out of its bin, one after the other, into the tray."""

from __future__ import annotations

import numpy as np

from sb3_q2rl.demos.expert import CLOSE, OPEN, UP, Actions, Operator, nearest_turn, yaw_of
from sb3_q2rl.demos.franka_hand import TOOL_DOWN, FrankaHand
from sb3_q2rl.envs.franka.franka_env import FrankaEnv
from sb3_q2rl.envs.franka.kitting import KINDS, PART_M, RESTING_M, TRAY_HALF_M
from sb3_q2rl.envs.franka.objects import about_z
from sb3_q2rl.envs.robomimic import Pose

# Where in the tray, along its x; and how exactly
PLACE_M, PLACE_TOLERANCE_M = {"a": 0.032, "b": -0.030}, 0.006
# m, heights of the tool: fingertips on the floor of a bin, and over all walls
GRASP_M, CARRIED_M, RELEASED_M = 0.026, 0.11, 0.034
GRASP_TOLERANCE_M = 0.005
HELD_M = 0.04
HASTE = 0.25


def franka_kitting(env: FrankaEnv, operator: Operator) -> Actions:
    """
    :param env: FrankaKitting-v0 or FrankaKittingModified-v0
    :param operator: who moves
    :return: the actions
    """
    hand = FrankaHand(env, operator, HASTE)
    for kind in KINDS:
        if not _is_in_tray(env, kind):
            yield from _pick_and_place(env, hand, operator, kind)
    yield from hand.wait(OPEN, n_steps=1)


def _is_in_tray(env: FrankaEnv, kind: str) -> bool:
    x, y, z = env.simulator.objects()[f"{kind}_to_tray_pos"]
    return bool(abs(x) < TRAY_HALF_M[0] and abs(y) < TRAY_HALF_M[1] and z < RESTING_M)


def _pick_and_place(env: FrankaEnv, hand: FrankaHand, operator: Operator, kind: str) -> Actions:
    tray_m = env.simulator.objects()["tray_pos"]
    place_m = operator.near(tray_m + np.array([PLACE_M[kind], 0.0, 0.0]), PLACE_TOLERANCE_M)[:2]
    offset_m = operator.near(np.zeros(3), GRASP_TOLERANCE_M)[:2]
    body, width_m = f"part_{kind}0", 2 * PART_M[kind][1]
    yaw_rad = nearest_turn(yaw_of(hand.pose_of(body).rotation), 0.0, np.pi)

    def at_part(height_m: float) -> Pose:
        position_m = hand.pose_of(body).position_m[:2] + offset_m
        return Pose(np.array([*position_m, height_m]), about_z(yaw_rad) @ TOOL_DOWN)

    def held() -> bool:
        return bool(np.linalg.norm(hand.pose_of(body).position_m - hand.pose.position_m) < HELD_M)

    def above_place(height_m: float) -> Pose:
        return Pose(np.array([*(place_m + offset_m), height_m]), TOOL_DOWN)

    start = hand.pose
    if start.position_m[2] < CARRIED_M - 0.02:
        up = Pose(np.array([*start.position_m[:2], CARRIED_M]), start.rotation)
        yield from hand.move(lambda: up, OPEN, tolerance_m=0.03, max_steps=30)
    yield from hand.move(lambda: at_part(CARRIED_M), OPEN, tolerance_m=0.02, max_steps=60)
    yield from hand.move(lambda: hand.from_above(at_part(GRASP_M)), OPEN, tolerance_m=0.006, max_steps=40)
    yield from hand.grasp(width_m)
    grasped = hand.pose
    carried = Pose(np.array([*grasped.position_m[:2], CARRIED_M]), grasped.rotation)
    yield from hand.move(lambda: carried, CLOSE, tolerance_m=0.03, max_steps=30, while_=held)
    yield from hand.move(lambda: above_place(CARRIED_M), CLOSE, tolerance_m=0.012, max_steps=60, while_=held)
    yield from hand.move(lambda: above_place(RELEASED_M), CLOSE, tolerance_m=0.008, max_steps=30, while_=held)
    yield from hand.release(width_m)
    away = Pose(hand.pose.position_m + (CARRIED_M - RELEASED_M) * UP, hand.pose.rotation)
    yield from hand.move(lambda: away, OPEN, tolerance_m=0.03, max_steps=30)
