"""Densities for policies that only give actions (deterministic, diffusion, flow, ...): beyond the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch as th
from torch.distributions import Independent, Normal

Kind = Literal["none", "fixed", "gaussian", "kernel"]
KINDS = get_args(Kind)


@dataclass(frozen=True)
class Density:
    """
    How to score the actions of a policy that cannot do it itself. Q̂_BC = V_BC + alpha (log pi + H) needs both terms.

    - ``"none"``: no density term, Q̂_BC = V_BC. Nothing is assumed; the BC action counts as typical in every state.
    - ``"fixed"``: a Gaussian of standard deviation ``scale`` around the policy's action. With a sampled BC action, it
      also explores by that much. At its mean the term is the constant alpha D/2.
    - ``"gaussian"``: ``n_samples`` actions are drawn in every state and a diagonal Gaussian is matched to their mean
      and variance. Right for one mode; between two modes it sees density where there is none.
    - ``"kernel"``: a Gaussian kernel on each of ``n_samples`` drawn actions, bandwidth by Scott's rule. Several modes
      are kept; needs more samples the more action dimensions there are.

    The last two take one batch of ``n_samples`` actions a state for every decision, and execute one of them.
    Log-density and entropy come from the same samples, so that their sum is zero on average, as for an exact density.

    :param kind: one of the above
    :param scale: standard deviation of ``"fixed"``; floor of the standard deviation (bandwidth) of the sampled ones
    :param n_samples: of the sampled ones
    :raises ValueError: unknown kind, ``scale`` not positive, fewer than 4 samples
    """

    kind: Kind = "none"
    scale: float = 0.1
    n_samples: int = 32

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`density` is {self.kind!r}; expected one of {', '.join(map(repr, KINDS))}.")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"`scale` of the density is {self.scale}; a standard deviation is positive.")
        if self.n_samples < 4:
            raise ValueError(f"`n_samples` of the density is {self.n_samples}; a spread needs at least 4.")

    @classmethod
    def of(cls, value: Density | str | Mapping[str, Any] | None) -> Density:
        """
        :param value: a Density, its kind, its fields (from YAML), or ``None`` for ``"none"``
        :raises ValueError: something else, or other fields
        """
        if isinstance(value, Density):
            return value
        fields = {"kind": value} if isinstance(value, str) else dict(value or {})
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"`density` has the fields {sorted(fields)}; known: kind, scale, n_samples.") from error

    @property
    def is_sampled(self) -> bool:
        """Does it need several actions in each state?"""
        return self.kind in ("gaussian", "kernel")


def gaussian_scores(samples: th.Tensor, floor: float) -> tuple[th.Tensor, th.Tensor]:
    """
    Score samples by the diagonal Gaussian of their own mean and (maximum-likelihood) variance.

    :param samples: (n, K, action_dim)
    :param floor: of the standard deviation
    :return: log-densities (n, K), entropy (n,). Where no floor applies, their sum is zero on average over K, exactly
    """
    std = samples.std(dim=1, correction=0).clamp_min(floor)
    gaussian = Independent(Normal(samples.mean(dim=1), std, validate_args=False), 1, validate_args=False)
    return gaussian.log_prob(samples.transpose(0, 1)).T, gaussian.entropy()


def kernel_scores(samples: th.Tensor, floor: float) -> tuple[th.Tensor, th.Tensor]:
    """
    Score each sample by the kernel density of the others (leave one out: a sample's own kernel would flatter it).

    :param samples: (n, K, action_dim)
    :param floor: of the bandwidth
    :return: log-densities (n, K), entropy (n,): minus their mean, so that the sum is zero on average, exactly
    """
    n_samples, dim = samples.shape[1:]
    scott = n_samples ** (-1.0 / (dim + 4))
    bandwidth = (scott * samples.std(dim=1)).clamp_min(floor).unsqueeze(1)
    scaled = samples / bandwidth
    squares = th.cdist(scaled, scaled).square()
    itself = th.eye(n_samples, dtype=th.bool, device=samples.device)
    log_kernels = (-0.5 * squares).masked_fill(itself, -th.inf)
    normaliser = bandwidth.log().sum(dim=-1) + 0.5 * dim * math.log(2 * math.pi) + math.log(n_samples - 1)
    log_density = log_kernels.logsumexp(dim=2) - normaliser
    return log_density, -log_density.mean(dim=1)
