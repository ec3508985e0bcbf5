"""IBRL's policy: an actor with dropout, and a slow copy of it for the TD target."""

from __future__ import annotations

from typing import Any

import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import Actor
from torch import nn

from sb3_q2rl.common.policies import EnsembleSACCnnPolicy, EnsembleSACMultiInputPolicy, EnsembleSACPolicy


class IBRLPolicy(EnsembleSACPolicy):
    """
    An actor with dropout, and a slow copy of it.

    :param args: See :class:`EnsembleSACPolicy`
    :param n_critics: Ensemble size
    :param actor_dropout: Probability with which each hidden unit of the actor is silent in an update
    :param kwargs: See :class:`EnsembleSACPolicy`
    """

    actor_target: Actor
    warm_up_is_over: th.Tensor

    def __init__(self, *args: Any, n_critics: int = 5, actor_dropout: float = 0.5, **kwargs: Any) -> None:
        self.actor_dropout = actor_dropout
        super().__init__(*args, **{"n_critics": n_critics, **kwargs})

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self.actor_target = self.make_actor(self.critic_target.features_extractor)
        self.actor_target.load_state_dict(self.actor.state_dict())
        self.actor_target.requires_grad_(False)
        # Among the parameters: whoever is given these acts as their model does
        self.register_buffer("warm_up_is_over", th.tensor(False))

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        actor = super().make_actor(features_extractor)
        layers: list[nn.Module] = []
        for layer in actor.latent_pi:
            layers += [layer, nn.Dropout(self.actor_dropout)] if isinstance(layer, nn.Linear) else [layer]
        actor.latent_pi = nn.Sequential(*layers)
        return actor

    @th.no_grad()
    def follow_actor(self, tau: float) -> None:
        """Move the slow copy of the actor towards it; its encoder follows with the target critics'."""
        for part in ("latent_pi", "mu"):
            slow, fast = getattr(self.actor_target, part), getattr(self.actor, part)
            for behind, ahead in zip(slow.parameters(), fast.parameters(), strict=True):
                behind.lerp_(ahead, tau)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "actor_dropout": self.actor_dropout}


class IBRLCnnPolicy(IBRLPolicy, EnsembleSACCnnPolicy):
    """For image observations."""


class IBRLMultiInputPolicy(IBRLPolicy, EnsembleSACMultiInputPolicy):
    """For Dict observations."""
