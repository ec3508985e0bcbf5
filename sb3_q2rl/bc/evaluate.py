"""How often does a BC policy solve the task? With the interval that the number of episodes allows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.spaces import Box
from torch import nn

from sb3_q2rl.bc.policy import BCPolicy


class SuccessRate(NamedTuple):
    """
    :param rate: share of successful episodes
    :param low: lower end of the 95 % Wilson interval
    :param high: upper end
    :param n_episodes: episodes played
    """

    rate: float
    low: float
    high: float
    n_episodes: int

    def __str__(self) -> str:
        return f"{self.rate:.2f} [{self.low:.2f}, {self.high:.2f}] of {self.n_episodes}"


def wilson_interval(n_successes: int, n_episodes: int, z: float = 1.959964) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927): sound for few episodes and for rates near 0 and 1."""
    p, z2n = n_successes / n_episodes, z * z / n_episodes
    centre = (p + z2n / 2) / (1 + z2n)
    half = z / (1 + z2n) * math.sqrt(p * (1 - p) / n_episodes + z2n / (4 * n_episodes))
    return max(0.0, centre - half), min(1.0, centre + half)


def evaluate_bc(
    policy: BCPolicy, env: gym.Env, *, n_episodes: int = 100, seed: int = 0, deterministic: bool = True
) -> SuccessRate:
    """
    Play whole episodes; episode i is reset with ``seed + i``, so two policies meet the same situations.

    :param policy: the BC policy
    :param env: reports ``info["is_success"]``
    :param n_episodes: number of episodes
    :param seed: of the first episode, and of the sampled actions
    :param deterministic: act at the mode
    :raises ValueError: the environment does not report success, or its action space is no finite Box
    """
    n_successes = 0
    with th.random.fork_rng(devices=[]):
        th.manual_seed(seed)
        for episode in range(n_episodes):
            *_, last = play(policy, env, seed=seed + episode, deterministic=deterministic)
            if "is_success" not in last.info:
                raise ValueError(
                    '`env` does not report `info["is_success"]` when an episode ends: wrap it so that it does.'
                )
            n_successes += bool(last.info["is_success"])
    return SuccessRate(n_successes / n_episodes, *wilson_interval(n_successes, n_episodes), n_episodes)


class PlayedStep(NamedTuple):
    """
    :param observation: as the environment gave it
    :param action: (action_dim,) in [-1, 1]
    :param reward: the environment's
    :param terminated: the environment's
    :param next_observation: what came of it
    :param info: the environment's
    """

    observation: Any
    action: np.ndarray
    reward: float
    terminated: bool
    next_observation: Any
    info: dict[str, Any]


def play(policy: BCPolicy, env: gym.Env, *, seed: int, deterministic: bool = True) -> Iterator[PlayedStep]:
    """
    One episode, step by step.

    :param policy: the BC policy
    :param env: its action space need not be [-1, 1]
    :param seed: of the reset
    :param deterministic: act at the mode
    :raises ValueError: its action space is no finite Box
    """
    space = env.action_space
    if not isinstance(space, Box) or not np.isfinite([space.low, space.high]).all():
        raise ValueError(f"`env` has the action space {space}; a BC policy acts in a Box with finite bounds.")
    obs, _ = env.reset(seed=seed)
    state, episode_start, over = None, np.array([True]), False
    device = _device_of(policy)
    while not over:
        step = policy.step(_to_batch(obs, device), state, episode_start, deterministic=deterministic)
        action = step.actions[0].cpu().numpy()
        scaled = space.low + (action + 1.0) / 2.0 * (space.high - space.low)
        next_obs, reward, terminated, truncated, info = env.step(scaled.astype(space.dtype))
        yield PlayedStep(obs, action, float(reward), terminated, next_obs, info)
        obs, state, episode_start, over = next_obs, step.state, np.array([False]), terminated or truncated


def _device_of(policy: BCPolicy) -> th.device:
    """Where its weights are; the CPU for a policy without any."""
    if isinstance(policy, nn.Module):
        for tensor in (*policy.parameters(), *policy.buffers()):
            return tensor.device
    return th.device("cpu")


def _to_batch(obs: Any, device: th.device) -> th.Tensor | dict[str, th.Tensor]:
    if isinstance(obs, dict):
        return {key: _to_batch(value, device) for key, value in obs.items()}  # type: ignore[misc]
    return th.as_tensor(np.asarray(obs)[None], dtype=th.float32, device=device)
