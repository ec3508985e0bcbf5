"""The hand of the simulated Franka, moved by its controller's target. Experts look where things are, as people do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sb3_q2rl.demos.expert import CLOSE, OPEN, Actions, Hand, Operator
from sb3_q2rl.demos.ik import shortened
from sb3_q2rl.envs.franka.franka_env import FrankaEnv
from sb3_q2rl.envs.robomimic import Pose

# The rotation of a tool that points down and whose fingers open along the base's y
TOOL_DOWN = np.diag([1.0, -1.0, -1.0])

# Fingers hold a thing when they are so much wider at most, and have let it go when they are so much wider
NEARLY_M, CLEAR_M = 0.003, 0.02


class FrankaHand(Hand):
    """
    Actions change the controller's target, and the tool follows. So what is asked for counts from the target, too.

    :param env: the environment, which is read and not stepped
    :param operator: how to move
    :param haste: how much of the remaining way an action takes, beside the operator's gain. Little: it slows down over
        the last centimetres
    """

    def __init__(self, env: FrankaEnv, operator: Operator, haste: float = 0.5) -> None:
        # A clone without memory cannot know when a pause is over, and would stand still for ever
        self._operator = replace(operator, pause_steps=0)
        self._franka, self._haste = env, haste

    @property
    def pose(self) -> Pose:
        """:return: of the tool centre point: the fingers open along y, and z points from the hand to the object"""
        return Pose(*self._franka.simulator.simulator.tool)

    def pose_of(self, body: str) -> Pose:
        """
        :param body: of the model, e.g. ``"peg"``
        :return: its present pose
        """
        return Pose(*self._franka.simulator.simulator.pose(body))

    def step_to(self, target: Pose, gripper: float) -> Actions:
        """
        One action towards it.

        :param target: of the tool
        :param gripper: ``OPEN`` or ``CLOSE``
        """
        yield self._action(*self._error(target), gripper)

    def grasp(self, width_m: float, max_steps: int = 15) -> Actions:
        """
        Close the fingers on something. Unlike ``close`` it does not wait to see them stand: whether they do, a clone
        without memory could not see, and would never go on.

        :param width_m: of the thing
        :param max_steps: when it ends in any case
        """
        start = self.pose
        for _ in range(max_steps):
            if self._gap_m() < width_m + NEARLY_M:
                return
            yield self._action(*self._error(start), CLOSE)

    def release(self, width_m: float, max_steps: int = 10) -> Actions:
        """
        Open the fingers.

        :param width_m: of the thing
        :param max_steps: when it ends in any case
        """
        start = self.pose
        for _ in range(max_steps):
            if self._gap_m() > width_m + CLEAR_M:
                return
            yield self._action(*self._error(start), OPEN)

    def _gap_m(self) -> float:
        return float(self._franka.simulator.simulator.width_m)

    def _action(self, translation_m: np.ndarray, rotation_rad: np.ndarray, gripper: float) -> np.ndarray:
        """:param translation_m: (3,) from the tool, as in ``_error``"""
        ahead = self._franka.named_observation()["target_offset"].astype(np.float64)
        config, operator = self._franka.config, self._operator
        gain = self._haste * operator.gain
        parts = (
            gain * (translation_m - ahead[:3]) / config.translation_scale_m,
            gain * (rotation_rad - ahead[3:]) / config.rotation_scale_rad,
        )
        return np.concatenate([shortened(part, operator.speed) for part in parts] + [[gripper]])


def shortest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """
    :param start: (3,) unit vector
    :param end: (3,) another one, not its opposite
    :return: (3, 3) the smallest rotation that takes one to the other
    """
    x, y, z = np.cross(start, end)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + cross + cross @ cross / (1.0 + start @ end)
