"""One episode of an expert, with everything that robomimic's files keep of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, cast

import gymnasium as gym
import numpy as np

from sb3_q2rl.demos.expert import Actions, Expert, Operator

Observation = dict[str, np.ndarray]


class Recordable(Protocol):
    """
    What recordings need of an environment, besides gymnasium's.

    :param reward_scale: its rewards are ``reward_scale`` * raw + ``reward_bias``; files hold the raw ones
    :param reward_bias: see there
    """

    reward_scale: float
    reward_bias: float

    @property
    def model_xml(self) -> str | None:
        """:return: the model of this episode, None where every episode has the same"""

    @property
    def env_args(self) -> dict[str, Any]:
        """:return: robomimic's attribute ``env_args`` before it becomes JSON"""

    def named_observation(self) -> Observation:
        """:return: the present state, by robomimic's names"""

    def get_state(self) -> np.ndarray:
        """:return: (1 + nq + nv,) float64: time, qpos, qvel"""


class Episode(NamedTuple):
    """
    n steps.

    :param seed: of ``env.reset``
    :param success: did it end in success?
    :param states: (n, 1 + nq + nv) float64, before each action
    :param actions: (n, action_dim) float32, as executed, noise included
    :param rewards: (n,) raw, before the environment scales and shifts them
    :param observations: n + 1 of them
    :param model_xml: the model of this episode, None where every episode has the same
    """

    seed: int
    success: bool
    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    observations: list[Observation]
    model_xml: str | None


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
    :param env: with its time limit; without its wrappers it is :class:`Recordable`
    :param expert: of this environment
    :param seed: of the start, the operator and the noise
    :param noise: standard deviation of the Gaussian noise on those entries of the actions that move the arm; their
        range is [-1, 1]
    :return: the episode, up to success or the time limit
    """
    simulated = cast(Recordable, env.unwrapped)
    operator_rng, noise_rng = np.random.default_rng(seed).spawn(2)
    observation, _ = env.reset(seed=seed)
    states, actions, rewards, observations = [], [], [], [_named(simulated, observation)]
    success = over = False
    intended = _attempts(expert, env.unwrapped, Operator.draw(operator_rng))
    while not over:
        action = np.array(next(intended))
        action[: expert.arm_dim] += noise * noise_rng.standard_normal(expert.arm_dim)
        action = action.clip(-1.0, 1.0).astype(np.float32)
        states.append(simulated.get_state())
        actions.append(action)
        observation, reward, success, truncated, _ = env.step(action)
        rewards.append((float(reward) - simulated.reward_bias) / simulated.reward_scale)
        observations.append(_named(simulated, observation))
        over = success or truncated
    return Episode(
        seed, success, np.stack(states), np.stack(actions), np.array(rewards), observations, simulated.model_xml
    )


def _attempts(expert: Expert, env: gym.Env, operator: Operator) -> Actions:
    while True:
        yield from expert.attempt(env, operator)


def _named(env: Recordable, observation: np.ndarray | Observation) -> Observation:
    """The state by names, and the images of environments that have them."""
    images = observation if isinstance(observation, dict) else {}
    return {**env.named_observation(), **images}
