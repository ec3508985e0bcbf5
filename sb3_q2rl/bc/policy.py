"""What the algorithms ask of a behaviour-cloned (BC) policy: one action, scored by the distribution it came from."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch as th

BCObs: TypeAlias = th.Tensor | dict[str, th.Tensor]


class BCStep(NamedTuple):
    """
    One decision of the BC policy for n environments. Actions, log-probability and entropy come from ONE distribution
    object, so that ``E[log_prob + entropy] = 0`` holds for sampled actions (Q-estimation relies on it).

    :param actions: (n, action_dim), in [-1, 1], the scale of SB3's replay buffers
    :param log_prob: (n,) joint over action dimensions, in nats; ``None``: the policy has no density
    :param entropy: (n,) of the same distribution, in nats; ``None``: the policy has no density
    :param state: recurrent state; row i belongs to environment i. ``None`` for memoryless policies
    """

    actions: th.Tensor
    log_prob: th.Tensor | None
    entropy: th.Tensor | None
    state: Any = None


@runtime_checkable
class BCPolicy(Protocol):
    """
    A frozen policy learnt by behaviour cloning. Observations are what the environment gave (never normalised by
    ``VecNormalize``), as float tensors on the policy's device: (n, *obs_shape), or a dict of those.
    """

    is_recurrent: bool

    def step(
        self, obs: BCObs, state: Any, episode_start: np.ndarray | th.Tensor, deterministic: bool = False
    ) -> BCStep:
        """
        :param obs: (n, *obs_shape) raw observations
        :param state: what the previous call returned, ``None`` at the very beginning
        :param episode_start: (n,) bool; row i's recurrent state is reset where it is True
        :param deterministic: act at the distribution's mode
        """
        ...

    def to(self, device: th.device | str) -> BCPolicy:
        """Move the policy to a device, in place."""
        ...
