"""
What scripted experts share. An expert is a generator: it reads the environment, yields an action, and reads again once
the action was carried out. Its phases are thus statements one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sb3_q2rl.demos.ik import shortened
from sb3_q2rl.envs.robomimic import Pose, RobomimicEnv

Actions: TypeAlias = Iterator[np.ndarray]

OPEN, CLOSE = -1.0, 1.0
UP = np.array([0.0, 0.0, 1.0])
# What a full action means, see RobomimicEnv
FULL_TRANSLATION_M, FULL_ROTATION_RAD = 0.05, 0.5
# Fingers that move less in a step (m) stand
STANDING_M = 0.0005
# How exactly fingers must be above an object before they go down to it, and how steeply
FUNNEL_RADIUS_M, FUNNEL_SLOPE = 0.015, 2.0


@dataclass(frozen=True)
class Operator:
    """
    How somebody moves. Each demonstration has its own, so that a file of them looks like the work of several people.

    :param speed: the longest action, as a fraction of the full one
    :param gain: how much of a distance one action asks for; the arm lags behind, hence above 1
    :param hover_m: how high above an object the hand stops before it goes down
    :param sloppiness: of the places on the way, as a fraction of the tolerance there that is exhausted
    :param pause_steps: the longest pause between two movements
    :param rng: draws the pauses and the places
    """

    speed: float
    gain: float
    hover_m: float
    sloppiness: float
    pause_steps: int
    rng: np.random.Generator

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Operator:
        """
        :param rng: of the episode
        :return: one of the many
        """
        return cls(
            speed=rng.uniform(0.6, 1.0),
            gain=rng.uniform(1.2, 2.0),
            hover_m=rng.uniform(0.04, 0.09),
            sloppiness=rng.uniform(0.0, 1.0),
            pause_steps=int(rng.integers(0, 4)),
            rng=rng,
        )

    def near(self, position_m: np.ndarray, tolerance_m: float) -> np.ndarray:
        """
        :param position_m: (3,) a place on the way, or of a grasp
        :param tolerance_m: how far beside it, along each axis, the movement still succeeds
        :return: (3,) the place that this operator takes instead
        """
        return position_m + self.sloppiness * self.rng.uniform(-tolerance_m, tolerance_m, 3)


# One attempt at a task of the one environment that it knows, of at least one action. Where it fails, another is begun
# from whatever it has left.
Attempt: TypeAlias = Callable[[Any, Operator], Actions]


@dataclass(frozen=True)
class Expert:
    """
    :param attempt: at the task
    :param arm_dim: how many entries of an action move the arm; those after them command the gripper
    """

    attempt: Attempt
    arm_dim: int


class Hand:
    """
    The gripper, moved by proportional control on the deltas of operational space control.

    :param env: the environment, which is read and not stepped
    :param operator: how to move
    """

    def __init__(self, env: RobomimicEnv, operator: Operator) -> None:
        self._env, self._operator = env, operator

    @property
    def pose(self) -> Pose:
        """:return: of the point between the fingers: they open along x, and z points from the hand to the object"""
        return self._env.pose("gripper0_right_grip_site")

    def move(
        self,
        target: Callable[[], Pose],
        gripper: float,
        tolerance_m: float = 0.01,
        tolerance_rad: float = 0.1,
        max_steps: int = 100,
        while_: Callable[[], bool] = lambda: True,
    ) -> Actions:
        """
        Go there, and pause.

        :param target: asked before each action, because it may depend on where an object is by now
        :param gripper: ``OPEN`` or ``CLOSE``
        :param tolerance_m: where the movement ends
        :param tolerance_rad: and the rotation
        :param max_steps: when it ends, even if something is in the way
        :param while_: it breaks off when this is no longer so, e.g. when the object has slipped out of the hand
        """
        for _ in range(max_steps):
            if not while_():
                return
            translation_m, rotation_rad = self._error(target())
            if np.linalg.norm(translation_m) < tolerance_m and np.linalg.norm(rotation_rad) < tolerance_rad:
                break
            yield self._action(translation_m, rotation_rad, gripper)
        yield from self.wait(gripper, int(self._operator.rng.integers(0, self._operator.pause_steps + 1)))

    def from_above(self, target: Pose) -> Pose:
        """
        A funnel: while the hand is beside the place, it stays above, lest the fingers topple what they shall grasp.

        :param target: the place
        :return: the same, or higher
        """
        beside_m = float(np.linalg.norm((target.position_m - self.pose.position_m)[:2]))
        raised_m = FUNNEL_SLOPE * max(0.0, beside_m - FUNNEL_RADIUS_M)
        return Pose(target.position_m + raised_m * UP, target.rotation)

    def wait(self, gripper: float, n_steps: int) -> Actions:
        """
        :param gripper: ``OPEN`` or ``CLOSE``
        :param n_steps: how long
        """
        start = self.pose
        for _ in range(n_steps):
            yield self._action(*self._error(start), gripper)

    def close(self, max_steps: int = 15) -> Actions:
        """
        Close the fingers, until the object, or each other, stops them. The longer they were open, the later they start.

        :param max_steps: when it ends in any case, e.g. because they were closed
        """
        start, gap_m, moving = self.pose, self._gap_m(), False
        for _ in range(max_steps):
            yield self._action(*self._error(start), CLOSE)
            closed_m, gap_m = gap_m - self._gap_m(), self._gap_m()
            if moving and closed_m < STANDING_M:
                return
            moving = closed_m >= STANDING_M

    def _gap_m(self) -> float:
        left, right = self._env.named_observation()["robot0_gripper_qpos"]
        return float(left - right)

    def _error(self, target: Pose) -> tuple[np.ndarray, np.ndarray]:
        pose = self.pose
        return target.position_m - pose.position_m, rotation_vector(target.rotation @ pose.rotation.T)

    def _action(self, translation_m: np.ndarray, rotation_rad: np.ndarray, gripper: float) -> np.ndarray:
        gain, speed = self._operator.gain, self._operator.speed
        parts = gain * translation_m / FULL_TRANSLATION_M, gain * rotation_rad / FULL_ROTATION_RAD
        return np.concatenate([shortened(part, speed) for part in parts] + [[gripper]])


def pointing_down(yaw_rad: float) -> np.ndarray:
    """
    :param yaw_rad: about the vertical; 0 is how the arm begins an episode, the fingers opening along the world's y
    :return: (3, 3) rotation of a hand above a table
    """
    sine, cosine = np.sin(yaw_rad), np.cos(yaw_rad)
    return np.array([[-sine, cosine, 0.0], [cosine, sine, 0.0], [0.0, 0.0, -1.0]])


def yaw_of(rotation: np.ndarray) -> float:
    """
    :param rotation: (3, 3) of an object on a table
    :return: rad, the angle of its x axis in the plane of the table
    """
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def nearest_turn(angle_rad: float, reference_rad: float, period_rad: float) -> float:
    """
    :param angle_rad: one of the equivalent angles
    :param reference_rad: near to which one is wanted
    :param period_rad: after a turn by this the object looks the same, e.g. pi / 2 for a square
    :return: rad, the angle + k * period that is nearest to the reference
    """
    return angle_rad + period_rad * round((reference_rad - angle_rad) / period_rad)


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """
    :param rotation: (3, 3)
    :return: (3,) rad, axis times angle in [0, pi]
    """
    twice_sine_axis = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    angle = np.arctan2(np.linalg.norm(twice_sine_axis), np.trace(rotation) - 1.0)
    return twice_sine_axis / max(float(np.linalg.norm(twice_sine_axis)), 1e-9) * angle
