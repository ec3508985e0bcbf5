"""How often does it succeed? For the model as it acts, for its actor alone, and for the BC policy alone."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import gymnasium as gym
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC, Who


class Evaluation(NamedTuple):
    """
    :param n_success: Episodes whose last ``info["is_success"]`` was true
    :param n_episodes: Episodes played
    :param mean_reward: Mean undiscounted return
    """

    n_success: int
    n_episodes: int
    mean_reward: float

    @property
    def success_rate(self) -> float:
        return self.n_success / self.n_episodes

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's score interval of the success rate, 95 % by default. It is sound at 0 and at 1, too."""
        n, p = self.n_episodes, self.success_rate
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


class _Acting:
    """What ``evaluate_policy`` needs of a model, with somebody else at the wheel."""

    def __init__(self, model: OfflineToOnlineSAC, who: Who) -> None:
        self.model = model
        self.who = who

    def predict(self, observation: Any, **kwargs: Any) -> tuple[Any, Any]:
        return self.model.predict(observation, who=self.who, **kwargs)


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
    :raises ValueError: the environment does not tell success
    """
    successes: list[bool] = []

    def note_success(step: dict[str, Any], _: dict[str, Any]) -> None:
        if step["done"]:
            if "is_success" not in step["info"]:
                raise ValueError(
                    "The environment's info has no `is_success` at an episode's end, so success cannot be counted. "
                    f"It has {sorted(step['info'])}. Add it in a wrapper."
                )
            successes.append(bool(step["info"]["is_success"]))

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
    return Evaluation(sum(successes[: len(rewards)]), len(rewards), sum(rewards) / len(rewards))
