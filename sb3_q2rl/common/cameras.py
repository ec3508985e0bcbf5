"""The encoder of observations that have images: a small convolutional network per camera, vectors beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_q2rl.bc.images import CameraEncoder
from sb3_q2rl.common.images import image_keys


class CamerasExtractor(BaseFeaturesExtractor):
    """
    Each image has an encoder of its own; vectors pass as they are, behind the cameras' features. The sizes are those of
    Q2RL's image tasks.

    :param observation_space: A Dict of images (channels first) and vectors, or one image
    :param channels: Of each camera's convolutions
    :param bottleneck: Features of each camera
    :param normalized_image: As in SB3: images come in [0, 1] already
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        channels: Sequence[int] = (32, 64, 128, 256),
        bottleneck: int = 256,
        normalized_image: bool = False,
    ) -> None:
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"obs": observation_space}
        images = image_keys(observation_space)
        vectors = [key for key in parts if key not in images]
        n_vector = sum(get_flattened_obs_dim(parts[key]) for key in vectors)
        super().__init__(observation_space, len(images) * bottleneck + n_vector)
        self.vector_keys = vectors
        self.cameras = nn.ModuleDict(
            {key: CameraEncoder(parts[key].shape, channels, bottleneck) for key in images}  # type: ignore[arg-type]
        )

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        parts = obs if isinstance(obs, dict) else {"obs": obs}
        seen = [camera(parts[key] - 0.5) for key, camera in self.cameras.items()]
        return th.cat([*seen, *(parts[key].flatten(start_dim=1) for key in self.vector_keys)], dim=1)

    def start_from(self, cameras: nn.ModuleDict) -> None:
        """
        Copy the weights of encoders that are built as these are, camera by camera.

        :param cameras: Encoders by the key of their image; others than of the same sizes are left alone
        """
        for key in self.cameras.keys() & cameras.keys():
            weights = cameras[key].state_dict()
            mine = self.cameras[key].state_dict()
            if {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in mine.items()}:
                self.cameras[key].load_state_dict(weights)
