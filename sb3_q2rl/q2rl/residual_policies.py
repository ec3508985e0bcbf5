"""The policies of QGatedResidualSAC: an actor that corrects what the BC policy proposes."""

from __future__ import annotations

import math
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_q2rl.common.policies import MAX_ACTION, DetachedActor
from sb3_q2rl.q2rl.policies import GatedSACCnnPolicy, GatedSACMultiInputPolicy, GatedSACPolicy


class ResidualActor(DetachedActor):
    """
    a = tanh(atanh(a_BC) + f(s, a_BC) + std xi), xi ~ N(0, 1), and f is 0 at first: it starts as the BC policy, whatever
    distribution that has. In the place of the observation its methods take the pair (obs, a_BC).

    :param features_dim: Of the observation's features
    :param residual_std: Standard deviation of the exploration, before the tanh
    :param kwargs: As SB3's actor
    """

    def __init__(self, *, features_dim: int, residual_std: float, action_space: spaces.Box, **kwargs: Any) -> None:
        action_dim = math.prod(action_space.shape)
        super().__init__(features_dim=features_dim + action_dim, action_space=action_space, **kwargs)
        self.features_dim = features_dim
        assert isinstance(self.mu, nn.Linear)
        nn.init.zeros_(self.mu.weight)
        nn.init.zeros_(self.mu.bias)
        del self.log_std  # a density that says nothing but "as the BC policy" would teach it to be certain
        self.register_buffer("log_std", th.full((action_dim,), math.log(residual_std)))

    def get_action_dist_params(  # type: ignore[override]  # the pair
        self, obs: tuple[PyTorchObs, th.Tensor]
    ) -> tuple[th.Tensor, th.Tensor, dict[str, th.Tensor]]:
        if not isinstance(obs, tuple):
            raise TypeError(
                "This actor corrects what the BC policy proposes, and was given an observation alone. Its algorithm, "
                "QGatedResidualSAC, gives both: ask the model: model.predict()."
            )
        observation, proposal = obs
        features = self.extract_features(observation, self.features_extractor)
        residual = self.mu(self.latent_pi(th.cat([features, proposal], dim=1)))
        mean = th.atanh(proposal.clamp(-MAX_ACTION, MAX_ACTION)) + residual
        return mean, self.log_std.expand_as(mean), {}


class GatedResidualPolicy(GatedSACPolicy):
    """
    :param args: See :class:`GatedSACPolicy`
    :param residual_std: Exploration of the actor around what it would do, before the tanh
    :param kwargs: See :class:`GatedSACPolicy`; ``use_sde`` has no meaning here
    :raises ValueError: ``residual_std`` is not positive, or ``use_sde``
    """

    def __init__(self, *args: Any, residual_std: float = 0.1, use_sde: bool = False, **kwargs: Any) -> None:
        if not residual_std > 0:
            raise ValueError(f"`residual_std` is {residual_std}; it is a standard deviation, so above 0, such as 0.1.")
        if use_sde:
            raise ValueError("`use_sde` explores by itself, and this actor around the BC policy: leave it False.")
        self.residual_std = residual_std
        super().__init__(*args, **kwargs)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> ResidualActor:
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return ResidualActor(**kwargs, residual_std=self.residual_std).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "residual_std": self.residual_std}


class GatedResidualCnnPolicy(GatedResidualPolicy, GatedSACCnnPolicy):
    """For image observations."""


class GatedResidualMultiInputPolicy(GatedResidualPolicy, GatedSACMultiInputPolicy):
    """For Dict observations."""
