"""A task that the robot can judge by itself: the tool is where the lab file's ``goal`` says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium.utils.ezpickle import EzPickle

from sb3_q2rl.envs.franka.franka_actions import ACTION_DIM
from sb3_q2rl.envs.franka.franka_env import FrankaEnv, observation_slices
from sb3_q2rl.envs.franka.operators import Signals
from sb3_q2rl.robot.lab import Goal

# The tool comes down when it is so near above the goal, as fingers and pegs do
ABOVE_M = 0.01
# Of an action, at most, while coming down: what meets a hole must not meet it at full speed
GENTLE = 0.5


class GoalEnv(FrankaEnv):
    """
    A :class:`FrankaEnv` on a robot without a simulator's knowledge; success is to be at the goal.

    :param goal: where
    :param kwargs: of :class:`FrankaEnv`
    """

    def __init__(self, goal: Goal, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        EzPickle.__init__(self, goal, **kwargs)
        self.goal = goal

    def judge(self, signals: Signals) -> tuple[bool, bool]:
        success, failure = super().judge(signals)
        to_goal_m = np.abs(np.array(self.goal.position_m) - tool_position(self, self._observation))
        return success or bool((to_goal_m <= self.goal.tolerance_m).all()), failure


def tool_position(env: FrankaEnv, observation: Any) -> np.ndarray:
    """
    :param env: a :class:`FrankaEnv`
    :param observation: of it, from the state or from images
    :return: (3,) m, the tool centre point in the base's frame
    """
    with_objects = env.obs_mode == "state" and env.simulator is not None
    slices = observation_slices(env.task.name, env.config, objects=with_objects)
    vector = observation["state"] if isinstance(observation, dict) else observation
    return np.asarray(vector[slices["robot_pos"]], dtype=np.float64)


def scripted_actions(env: GoalEnv, rng: np.random.Generator, noise: float) -> Iterator[np.ndarray]:
    """
    Over the goal, then down to it. Each action is for the environment's latest observation.

    :param env: where to act, after ``reset``
    :param rng: of the noise
    :param noise: standard deviation on actions in [-1, 1]: demonstrations shall differ
    :return: actions without end
    """
    goal_m = np.array(env.goal.position_m)
    while True:
        way_m = goal_m - tool_position(env, env._observation)
        beside_m = float(np.linalg.norm(way_m[:2]))
        action = np.zeros(ACTION_DIM)
        action[:2] = way_m[:2] / env.config.translation_scale_m
        if beside_m < ABOVE_M or way_m[2] > 0:
            action[2] = np.clip(way_m[2] / env.config.translation_scale_m, -GENTLE, GENTLE)
        action[:3] = np.clip(action[:3], -1.0, 1.0) + noise * rng.standard_normal(3)
        action[6] = 1.0  # what is inserted is held
        yield np.clip(action, -1.0, 1.0)
