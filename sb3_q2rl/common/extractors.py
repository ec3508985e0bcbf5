"""Observations on one scale for every network, fixed once."""

from __future__ import annotations

import dataclasses
from typing import cast

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_q2rl.common.images import image_keys

# An observation so many standard deviations away tells only that it is far away
CLIP = 10.0


@dataclasses.dataclass(frozen=True)
class Encoded:
    """
    What the critics' encoder made of observations. Actor and critics take it in their place, so that an image that all
    of them read is looked at once.

    :param features: (batch, features_dim)
    :param actor_shapes_encoder: Does the actor's gradient reach the encoder? Online the critics' alone does
    """

    features: th.Tensor
    actor_shapes_encoder: bool = False


class StandardizedExtractor(BaseFeaturesExtractor):
    """
    Standardises vector observations before another extractor; images pass as they are. The statistics are set once and
    frozen: frozen networks read these features too, so the scale must not run as ``VecNormalize``'s does.

    :param observation_space: Observation space
    :param extractor: What reads the standardised observations
    """

    def __init__(self, observation_space: spaces.Space, extractor: BaseFeaturesExtractor) -> None:
        super().__init__(observation_space, extractor.features_dim)
        self.extractor = extractor
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"obs": observation_space}
        images = image_keys(observation_space)
        self.keys = [key for key, part in parts.items() if isinstance(part, spaces.Box) and key not in images]
        for key in self.keys:
            self.register_buffer(f"mean_{key}", th.zeros(cast(spaces.Box, parts[key]).shape))
            self.register_buffer(f"std_{key}", th.ones(cast(spaces.Box, parts[key]).shape))

    def set_statistics(self, obs: PyTorchObs) -> None:
        """
        :param obs: Many observations, (n, *obs_shape) or a dict of those, as this extractor will see them
        """
        parts = obs if isinstance(obs, dict) else {"obs": obs}
        for key in self.keys:
            values = parts[key].float()
            std = values.std(dim=0, correction=0)
            self.get_buffer(f"mean_{key}").copy_(values.mean(dim=0))
            self.get_buffer(f"std_{key}").copy_(th.where(std < 1e-6, 1.0, std))

    def _standardized(self, key: str, values: th.Tensor) -> th.Tensor:
        if key not in self.keys:
            return values
        return ((values - self.get_buffer(f"mean_{key}")) / self.get_buffer(f"std_{key}")).clamp(-CLIP, CLIP)

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        if isinstance(obs, dict):
            return self.extractor({key: self._standardized(key, values) for key, values in obs.items()})
        return self.extractor(self._standardized("obs", obs))
