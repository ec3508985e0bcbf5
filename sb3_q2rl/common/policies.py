"""SAC's policy with a batched critic ensemble, and an actor that reads the critic's encoder."""

from __future__ import annotations

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    FlattenExtractor,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import nn
from torch.distributions import Normal

from sb3_q2rl.common.cameras import CamerasExtractor
from sb3_q2rl.common.critics import EnsembleCritic
from sb3_q2rl.common.extractors import Encoded, StandardizedExtractor


class UncheckedSquashedGaussian(SquashedDiagGaussianDistribution):
    """SB3's tanh-Gaussian without torch's check of every argument, which takes time and makes a GPU wait."""

    def proba_distribution(self, mean_actions: th.Tensor, log_std: th.Tensor) -> UncheckedSquashedGaussian:
        self.distribution = Normal(mean_actions, log_std.exp(), validate_args=False)
        return self


class DetachedActor(Actor):
    """
    The actor sees features that only the critic's loss shapes (DrQ, https://arxiv.org/abs/2004.13649), unless
    ``Encoded`` tells otherwise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.action_dist, SquashedDiagGaussianDistribution):
            self.action_dist = UncheckedSquashedGaussian(get_action_dim(self.action_space))

    def extract_features(self, obs: PyTorchObs | Encoded, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        if isinstance(obs, Encoded):
            return obs.features if obs.actor_shapes_encoder else obs.features.detach()
        with th.no_grad():
            return super().extract_features(obs, features_extractor)


# tanh(x) = 1 has no finite x: actions are pulled this far inside before their atanh or a likelihood of them is taken
MAX_ACTION = 0.99


class EnsembleSACPolicy(SACPolicy):
    """
    Actor and critics of the off-policy algorithms in this package.

    :param observation_space: Observation space
    :param action_space: Action space
    :param lr_schedule: Learning rate schedule
    :param net_arch: Hidden layers, ``[256, 256]`` or ``dict(pi=[...], qf=[...])``
    :param activation_fn: Activation function
    :param use_sde: State dependent exploration
    :param log_std_init: Initial log standard deviation, with ``use_sde``
    :param use_expln: See SAC
    :param clip_mean: See SAC
    :param features_extractor_class: Encoder of the observations, shared by actor and critics, trained by the critics
    :param features_extractor_kwargs: Its arguments
    :param normalize_images: Divide uint8 images by 255
    :param optimizer_class: Optimizer; Adam runs fused
    :param optimizer_kwargs: Its arguments, without the learning rate
    :param n_critics: Ensemble size
    :param layer_norm: Layer normalisation in the critics
    """

    critic: EnsembleCritic  # type: ignore[assignment]
    critic_target: EnsembleCritic  # type: ignore[assignment]

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        use_sde: bool = False,
        log_std_init: float = -3,
        use_expln: bool = False,
        clip_mean: float = 2.0,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 10,
        layer_norm: bool = True,
    ) -> None:
        self.layer_norm = layer_norm
        if optimizer_kwargs is None and optimizer_class is th.optim.Adam:
            optimizer_kwargs = {"fused": True}
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch,
            activation_fn=activation_fn,
            use_sde=use_sde,
            log_std_init=log_std_init,
            use_expln=use_expln,
            clip_mean=clip_mean,
            features_extractor_class=features_extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            n_critics=n_critics,
            share_features_extractor=True,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        self.critic = self.make_critic()
        self.critic_target = self.make_critic()
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.requires_grad_(False)
        self.critic_target.set_training_mode(False)
        self.actor = self.make_actor(features_extractor=self.critic.features_extractor)
        actor_parameters = [p for name, p in self.actor.named_parameters() if not name.startswith("features_extractor")]

        learning_rate = lr_schedule(1)
        self.critic.optimizer = self.optimizer_class(
            self.critic.parameters(),
            lr=learning_rate,  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )
        self.actor.optimizer = self.optimizer_class(
            actor_parameters,
            lr=learning_rate,  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def make_features_extractor(self) -> StandardizedExtractor:
        return StandardizedExtractor(self.observation_space, super().make_features_extractor()).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "layer_norm": self.layer_norm}

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        return DetachedActor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> EnsembleCritic:  # type: ignore[override]
        return EnsembleCritic(**self._critic_arguments(features_extractor)).to(self.device)

    def _critic_arguments(self, features_extractor: BaseFeaturesExtractor | None) -> dict[str, Any]:
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        del kwargs["share_features_extractor"]
        return {**kwargs, "layer_norm": self.layer_norm}


class EnsembleSACCnnPolicy(EnsembleSACPolicy):
    """For image observations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": CamerasExtractor, **kwargs})


class EnsembleSACMultiInputPolicy(EnsembleSACPolicy):
    """For Dict observations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": CamerasExtractor, **kwargs})
