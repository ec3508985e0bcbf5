"""How often does it succeed? For the model as it acts, for its actor alone, and for the BC policy alone."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_q2rl.bc.evaluate import wilson_interval
from sb3_q2rl.common.acting import Who
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC


class Evaluation(NamedTuple):
    """
    :param n_success: Episodes whose last ``info["is_success"]`` was true
    :param n_episodes: Episodes played
    :param mean_reward: Mean undiscounted return
    :param mean_share: Mean of :func:`share_done`: above the success rate where a task has parts
    """

    n_success: int
    n_episodes: int
    mean_reward: float
    mean_share: float

    @property
    def success_rate(self) -> float:
        return self.n_success / self.n_episodes

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the success rate."""
        return wilson_interval(self.n_success, self.n_episodes)


def share_done(info: dict[str, Any]) -> float:
    """
    How much of its task an episode did. The kitchen reports the share of its sub-tasks as ``info["success"]``, which is
    what papers score it by; everywhere else it is ``info["is_success"]``.

    :param info: Of the episode's last step
    :return: In [0, 1]
    """
    return float(info.get("success", info.get("is_success", False)))


class _Acting:
    """What ``evaluate_policy`` needs of a model, with somebody else at the wheel."""

    def __init__(self, model: OfflineToOnlineSAC, who: Who) -> None:
        self.model = model
        self.who = who

    def predict(self, observation: Any, **kwargs: Any) -> tuple[Any, Any]:
        return self.model.predict(observation, who=self.who, **kwargs)


def check_environment(model: OfflineToOnlineSAC, env: gym.Env | VecEnv) -> None:
    """
    :param model: The model
    :param env: Where it shall be evaluated
    :raises ValueError: other observations than the model knows, or not normalised alike
    """
    check_observations(model, env)
    normalizer = unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None
    if (normalizer is None) != (model.get_vec_normalize_env() is None):
        raise ValueError(
            f"`env` is {'not ' if normalizer is None else ''}wrapped in VecNormalize, other than the environment that "
            "the model learns in. Wrap both or none: VecNormalize(eval_env, training=False, norm_reward=False)."
        )


def check_observations(model: OfflineToOnlineSAC, env: gym.Env | VecEnv) -> None:
    """
    :param model: The model
    :param env: Where it shall act
    :raises ValueError: other observations than the model knows
    """
    known, shown = _sizes(model.observation_space), _sizes(env.observation_space)
    seen_by_bc = getattr(model._bc, "image_shapes", {})  # BCFeatures: the model takes features, and images all the same
    if any(shown.get(key) != size and not (key in seen_by_bc and key in shown) for key, size in known.items()):
        raise ValueError(
            f"`env` has the observation space {env.observation_space}, but the model learns from "
            f"{model.observation_space}. Make it as the environment that the model learns in, with the same wrappers."
        )


def _sizes(space: spaces.Space) -> dict[str, int]:
    """Of every part. Images keep theirs when SB3 puts their channels first."""
    parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    return {key: math.prod(part.shape or ()) for key, part in parts.items()}


def evaluate(
    model: OfflineToOnlineSAC,
    env: gym.Env | VecEnv,
    n_episodes: int = 20,
    who: Who = "model",
    deterministic: bool = True,
) -> Evaluation:
    """
    Play whole episodes without learning.

    :param model: The model
    :param env: An environment of its own, or a vector of them
    :param n_episodes: How many
    :param who: ``"model"``, ``"rl"`` or ``"bc"``, see :meth:`OfflineToOnlineSAC.predict`
    :param deterministic: Without exploration
    :raises ValueError: the environment does not tell success, has other observations than the model knows, or does not
        normalise as the model learnt to see
    """
    if n_episodes < 1:
        raise ValueError(f"`n_episodes` is {n_episodes}; at least one must be played.")
    check_environment(model, env)
    successes: list[bool] = []
    shares: list[float] = []

    def note_success(step: dict[str, Any], _: dict[str, Any]) -> None:
        if step["done"]:
            if "is_success" not in step["info"]:
                raise ValueError(
                    "The environment's info has no `is_success` at an episode's end, so success cannot be counted. "
                    f"It has {sorted(step['info'])}. Add it in a wrapper."
                )
            successes.append(bool(step["info"]["is_success"]))
            shares.append(share_done(step["info"]))

    rewards, _ = evaluate_policy(
        _Acting(model, who),  # type: ignore[arg-type]
        env,
        n_eval_episodes=n_episodes,
        deterministic=deterministic,
        callback=note_success,
        return_episode_rewards=True,
        warn=False,
    )
    rewards = rewards[:n_episodes]  # type: ignore[index]
    n = len(rewards)
    return Evaluation(sum(successes[:n]), n, sum(rewards) / n, sum(shares[:n]) / n)
