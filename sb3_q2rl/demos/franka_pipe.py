"""Pipe assembly: grasp the lying pipe near its far end, lift it, turn it upright, and insert it."""

from __future__ import annotations

import numpy as np

from sb3_q2rl.demos.expert import CLOSE, OPEN, UP, Actions, Operator
from sb3_q2rl.demos.franka_hand import FrankaHand, shortest_turn
from sb3_q2rl.demos.franka_insert import insert
from sb3_q2rl.envs.franka.franka_env import FrankaEnv
from sb3_q2rl.envs.franka.pipe_assembly import DIAMETER_M
from sb3_q2rl.envs.robomimic import Pose

# From the pipe's middle, away from the end that is inserted; and as low as the fingertips allow
GRASP_M, GRASP_TOLERANCE_M, GRASP_HEIGHT_M = 0.035, 0.008, 0.022
LIFTED_M, LIFTED_TOLERANCE_M = 0.20, 0.02
# Above the socket with the pipe upright, before the aim is taken
ABOVE_M = 0.04
# Farther from the hand it is no longer held
HELD_M = 0.07


def franka_pipe(env: FrankaEnv, operator: Operator) -> Actions:
    """
    :param env: FrankaPipeAssembly-v0
    :param operator: who moves
    :return: the actions
    """
    hand = FrankaHand(env, operator)
    socket = hand.pose_of("socket")
    grasp_m = GRASP_M + operator.near(np.zeros(3), GRASP_TOLERANCE_M)[0]
    lifted_m = LIFTED_M + operator.near(np.zeros(3), LIFTED_TOLERANCE_M)[0]

    def at_pipe(height_m: float) -> Pose:
        """Above the place of the grasp, the tool's x along the pipe."""
        pipe = hand.pose_of("pipe")
        along = pipe.rotation[:, 0] * [1.0, 1.0, 0.0]
        along /= np.linalg.norm(along)
        place_m = pipe.position_m - grasp_m * along
        place_m[2] = GRASP_HEIGHT_M + height_m
        return Pose(place_m, np.column_stack([along, np.cross(-UP, along), -UP]))

    def held() -> bool:
        return bool(np.linalg.norm(hand.pose_of("pipe").position_m - hand.pose.position_m) < HELD_M)

    def tip() -> np.ndarray:
        return env.simulator.objects()["pipe_to_socket_pos"]

    def with_tip_at(place_m: np.ndarray) -> Pose:
        turn = shortest_turn(hand.pose_of("pipe").rotation[:, 0], -UP)
        tool, tip_m = hand.pose, socket.position_m + tip()
        return Pose(socket.position_m + place_m + turn @ (tool.position_m - tip_m), turn @ tool.rotation)

    def upright_at(place_m: np.ndarray) -> Pose:
        """The same with the tool at a place in the base's frame."""
        return Pose(place_m, shortest_turn(hand.pose_of("pipe").rotation[:, 0], -UP) @ hand.pose.rotation)

    if not held():
        yield from hand.move(lambda: at_pipe(operator.hover_m), OPEN, tolerance_m=0.015)
        yield from hand.move(lambda: hand.from_above(at_pipe(0.0)), OPEN, tolerance_m=0.006, max_steps=40)
        yield from hand.grasp(DIAMETER_M)
    here_m = np.array([*hand.pose.position_m[:2], lifted_m])
    rotation = hand.pose.rotation
    yield from hand.move(lambda: Pose(here_m, rotation), CLOSE, tolerance_m=0.02, max_steps=40, while_=held)
    yield from hand.move(lambda: upright_at(here_m), CLOSE, tolerance_m=0.03, max_steps=60, while_=held)
    above_m = np.array([0.0, 0.0, ABOVE_M])
    yield from hand.move(lambda: with_tip_at(above_m), CLOSE, tolerance_m=0.01, max_steps=60, while_=held)
    if held():
        yield from insert(hand, operator, tip, with_tip_at, while_=held)
    yield from hand.release(DIAMETER_M)
    away_m = hand.pose.position_m + 0.08 * UP
    yield from hand.move(lambda: Pose(away_m, rotation), OPEN, max_steps=30)
