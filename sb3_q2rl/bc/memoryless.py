"""What all BC policies share that are one network from an observation to a distribution over actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from torch import nn
from torch.distributions import Distribution

from sb3_q2rl.bc.distributions import step_from
from sb3_q2rl.bc.policy import BCObs, BCStep


class MemorylessBCPolicy(nn.Module, ABC):
    """A policy pi(a|s) with a density. Subclasses say what the distribution is."""

    is_recurrent = False

    @abstractmethod
    def distribution(self, obs: BCObs) -> Distribution:
        """
        :param obs: (n, *obs_shape) or a dict
        :return: batch of n distributions over (action_dim,), in the scale [-1, 1]
        """

    @th.no_grad()
    def step(
        self, obs: BCObs, state: Any, episode_start: np.ndarray | th.Tensor, deterministic: bool = False
    ) -> BCStep:
        """
        :param obs: (n, *obs_shape) or a dict
        :param state: unused, the policy has no memory
        :param episode_start: unused
        :param deterministic: act at the mode, scored by the same distribution
        """
        return step_from(self.distribution(obs), deterministic)


class DistributionBCPolicy(MemorylessBCPolicy):
    """
    Any function that gives distributions.

    :param function: see :meth:`BCPolicyAdapter.from_distribution`
    """

    def __init__(self, function: Callable[[Any], Distribution]):
        super().__init__()
        self.function = function  # a Module becomes a sub-module
        self.eval()  # dropout or batch statistics of training would make another policy of it

    def distribution(self, obs: BCObs) -> Distribution:
        distribution = self.function(obs)
        n = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
        if tuple(distribution.batch_shape) != (n,) or len(distribution.event_shape) != 1:
            raise ValueError(
                f"The BC policy's distribution has the batch shape {tuple(distribution.batch_shape)} and the event "
                f"shape {tuple(distribution.event_shape)} for {n} observations; expected ({n},) and (action_dim,), so "
                "that log-probabilities are joint over the action's dimensions. Wrap it: "
                "torch.distributions.Independent(distribution, 1)."
            )
        return distribution


def freeze(policy: nn.Module, source: str) -> None:
    """
    Make a loaded policy ready: evaluation mode, no gradients, sound weights.

    :param policy: in place
    :param source: what to call it in an error
    :raises ValueError: NaN or infinity in the weights
    """
    bad = [name for name, tensor in policy.state_dict().items() if not bool(th.isfinite(tensor).all())]
    if bad:
        raise ValueError(f"{source} holds NaN or infinity in {', '.join(bad)}: train the policy again.")
    policy.eval().requires_grad_(False)
