"""
Square: the nut by its handle, turned as the peg, over it and down. The hand lets go only when the nut surrounds the
peg: a nut that lies on the rim would be lost.
"""

from __future__ import annotations

import numpy as np

from sb3_q2rl.demos.expert import CLOSE, OPEN, UP, Actions, Hand, Operator, nearest_turn, pointing_down, yaw_of
from sb3_q2rl.envs.robomimic import Pose, RobomimicEnv

HANDLE_M = 0.054  # from the nut's middle along its x axis
# m, heights of the nut. The peg ends at 0.95; below 0.87 the task is solved
CARRIED_M = 0.99
PEG_END_M = 0.95
INSERTED_M = (0.9, 0.93)
# the play between nut and peg is 7 mm to each side
PLAY_M = 0.006
# farther from the fingers the handle is no longer held
HELD_M = 0.03
# the handle may point to the robot or aside, but not away from it: the arm would be too short
YAWS = np.array([-0.5, 0.5, 1.0, 1.5]) * np.pi


def square(env: RobomimicEnv, operator: Operator) -> Actions:
    """
    :param env: RobomimicSquare-v0
    :param operator: who moves
    :return: the actions
    """
    hand = Hand(env, operator)
    grasp_offset = operator.near(0.005 * UP, tolerance_m=0.005)
    peg_xy = env.pose("peg1").position_m[:2]
    inserted_m = operator.rng.uniform(*INSERTED_M)

    def nut() -> Pose:
        return env.pose("SquareNut_main")

    def handle() -> np.ndarray:
        return nut().position_m + nut().rotation[:, 0] * HANDLE_M

    def held() -> bool:
        return bool(np.linalg.norm(handle() - hand.pose.position_m) < HELD_M)

    # of the two ways to grasp it, the one that turns the hand less; chosen once, lest it changes on the way
    grasp_yaw = nearest_turn(yaw_of(nut().rotation), 0.0, np.pi)

    def at_handle(height_m: float) -> Pose:
        yaw = nearest_turn(yaw_of(nut().rotation), grasp_yaw, np.pi)
        return Pose(handle() + grasp_offset + height_m * UP, pointing_down(yaw))

    def nut_to(xy_m: np.ndarray, height_m: float, yaw: float) -> Pose:
        """The hand's place for which the nut, as it is held, lies level in this one."""
        sine, cosine = np.sin(yaw), np.cos(yaw)
        level = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], UP])
        turn = level @ nut().rotation.T
        in_hand = hand.pose.position_m - nut().position_m
        return Pose(np.array([*xy_m, height_m]) + turn @ in_hand, turn @ hand.pose.rotation)

    def onto_peg(yaw: float) -> Pose:
        """Down while the peg is under the hole, else up and aside."""
        position = nut().position_m
        fits = np.abs(position[:2] - peg_xy).max() < PLAY_M or position[2] < PEG_END_M
        return nut_to(peg_xy, inserted_m if fits else CARRIED_M, yaw)

    if not held():
        yield from hand.move(lambda: at_handle(operator.hover_m), OPEN, tolerance_m=0.015)
        yield from hand.move(lambda: hand.from_above(at_handle(0.0)), OPEN, tolerance_m=0.008, max_steps=40)
    yield from hand.close()
    present = yaw_of(nut().rotation)
    yaw = YAWS[np.argmin(np.abs(YAWS - nearest_turn(present, 0.5 * np.pi, 2 * np.pi)))]
    here = nut().position_m[:2]
    yield from hand.move(lambda: nut_to(here, CARRIED_M, present), CLOSE, 0.03, tolerance_rad=1.0, while_=held)
    yield from hand.move(lambda: nut_to(peg_xy, CARRIED_M, yaw), CLOSE, 0.02, while_=held)
    yield from hand.move(lambda: onto_peg(yaw), CLOSE, tolerance_m=0.005, while_=held)
    if held() and nut().position_m[2] < PEG_END_M:
        yield from hand.wait(OPEN, n_steps=8)
