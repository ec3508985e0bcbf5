"""One episode of an expert, with everything that robomimic's files keep of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import gymnasium as gym
import numpy as np

from sb3_q2rl.demos.expert import Actions, Expert, Operator
from sb3_q2rl.envs.robomimic import RobomimicEnv

Observation = dict[str, np.ndarray]
POSE_DIM = 6  # of an action; what follows commands the gripper


class Episode(NamedTuple):
    """
    n steps.

    :param seed: of ``env.reset``
    :param success: did it end in success?
    :param states: (n, 1 + nq + nv) float64, before each action
    :param actions: (n, 7) float32, as executed, noise included
    :param observations: n + 1 of them
    :param model_xml: the model of this episode
    """

    seed: int
    success: bool
    states: np.ndarray
    actions: np.ndarray
    observations: list[Observation]
    model_xml: str


def episode_seeds(seed: int) -> Iterator[int]:
    """
    Seeds that nobody meets by counting, so that later evaluations do not begin in the states of the demonstrations.

    :param seed: of all episodes
    :return: one after the other, without end
    """
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(2**24, 2**31))


def play(env: gym.Env, expert: Expert, seed: int, noise: float) -> Episode:
    """
    :param env: with its time limit
    :param expert: of this environment
    :param seed: of the start, the operator and the noise
    :param noise: standard deviation of the Gaussian noise on the six pose entries of the actions, whose range is
        [-1, 1]
    :return: the episode, up to success or the time limit
    """
    simulated = env.unwrapped
    assert isinstance(simulated, RobomimicEnv)
    operator_rng, noise_rng = np.random.default_rng(seed).spawn(2)
    observation, _ = env.reset(seed=seed)
    states, actions, observations = [], [], [_named(simulated, observation)]
    success = over = False
    intended = _attempts(expert, simulated, Operator.draw(operator_rng))
    while not over:
        action = np.array(next(intended))
        action[:POSE_DIM] += noise * noise_rng.standard_normal(POSE_DIM)
        action = action.clip(-1.0, 1.0).astype(np.float32)
        states.append(simulated.get_state())
        actions.append(action)
        observation, _, success, truncated, _ = env.step(action)
        observations.append(_named(simulated, observation))
        over = success or truncated
    return Episode(seed, success, np.stack(states), np.stack(actions), observations, simulated.model_xml)


def _attempts(expert: Expert, env: RobomimicEnv, operator: Operator) -> Actions:
    while True:
        yield from expert(env, operator)


def _named(env: RobomimicEnv, observation: np.ndarray | Observation) -> Observation:
    """The state by names, and the images of environments that have them."""
    images = observation if isinstance(observation, dict) else {}
    return {**env.named_observation(), **images}
