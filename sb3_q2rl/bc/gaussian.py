"""Our own trainable BC policy: an MLP, behind encoders of images, with a diagonal-Gaussian or mixture head."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from sb3_q2rl.bc.checkpoint import read_checkpoint, write_checkpoint
from sb3_q2rl.bc.images import CameraEncoder, channels_first
from sb3_q2rl.bc.memoryless import MemorylessBCPolicy, freeze
from sb3_q2rl.bc.observations import flat_observation
from sb3_q2rl.bc.policy import BCObs

# Normalised observations are cut here: far from the demonstrations the network would only extrapolate.
_OBS_CLIP = 10.0
# Of each camera's encoder: small, so that demonstrations by the dozen suffice and a file stays below 1 MB
_CAMERA_CHANNELS, _CAMERA_FEATURES = (16, 32, 32, 32), 64


class GaussianBCPolicy(MemorylessBCPolicy):
    """
    pi(a|s) over raw actions, the scale [-1, 1] of the demonstrations: one diagonal Gaussian, or a mixture of them,
    with means inside [-1, 1] (tanh) and scales inside [sigma_min, sigma_max].

    The executed action is the sample clipped to [-1, 1]; the log-probability is that of the sample before clipping.
    Only so does ``E[log_prob + entropy] = 0`` hold, and with it the meaning of Q-estimation.

    :param obs_dim: size of the (concatenated) observation vector, images left out
    :param action_dim: number of action dimensions
    :param net_arch: hidden layers (ReLU)
    :param n_components: 1 for a Gaussian, more for a mixture
    :param sigma_min: floor of the scales. Without one, log-probabilities of a policy that knows its few
        demonstrations by heart explode
    :param sigma_max: ceiling of the scales
    :param obs_keys: for Dict observations: the keys to flatten and concatenate, in this order
    :param image_shapes: key -> (channels, height, width) of those entries of a Dict observation that are images, with
        values from 0 to 255. Each has an encoder of its own
    :raises ValueError: sizes, number of components or scales out of range
    """

    FORMAT = "sb3_q2rl.gaussian_bc"
    FORMAT_VERSION = 1
    obs_mean: th.Tensor
    obs_std: th.Tensor

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        *,
        net_arch: Sequence[int] = (256, 256),
        n_components: int = 1,
        sigma_min: float = 0.05,
        sigma_max: float = 1.0,
        obs_keys: Sequence[str] | None = None,
        image_shapes: Mapping[str, Sequence[int]] | None = None,
    ):
        super().__init__()
        if min(obs_dim, action_dim, n_components, *net_arch) < 1:
            raise ValueError(
                f"`obs_dim`={obs_dim}, `action_dim`={action_dim}, `n_components`={n_components} and `net_arch`="
                f"{tuple(net_arch)} must all be at least 1."
            )
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"`sigma_min`={sigma_min} must be above 0 and below `sigma_max`={sigma_max}.")
        dotted = [key for key in image_shapes or () if "." in key]
        if dotted:
            raise ValueError(
                f"The images {dotted} have a dot in their names, which torch's modules forbid: rename them."
            )
        self.obs_dim = obs_dim
        self.action_dim = action_dim
        self.net_arch = tuple(net_arch)
        self.n_components = n_components
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.obs_keys = None if obs_keys is None else tuple(obs_keys)
        self.image_shapes = {key: tuple(shape) for key, shape in (image_shapes or {}).items()}
        self.training_record: dict[str, Any] = {}

        self.cameras = nn.ModuleDict(
            {key: CameraEncoder(s, _CAMERA_CHANNELS, _CAMERA_FEATURES) for key, s in self.image_shapes.items()}
        )
        widths = [obs_dim + _CAMERA_FEATURES * len(self.cameras), *self.net_arch]
        layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.trunk = nn.Sequential(*layers)
        n_means = n_components * action_dim
        n_logits = n_components if n_components > 1 else 0
        self.head = nn.Linear(widths[-1], 2 * n_means + n_logits)
        if n_components > 1:
            # Components that start alike stay alike for long: the mixture would sit at the average of the modes.
            nn.init.uniform_(self.head.bias.data[:n_means], -1.0, 1.0)
        self.register_buffer("obs_mean", th.zeros(obs_dim))
        self.register_buffer("obs_std", th.ones(obs_dim))

    def set_obs_statistics(self, mean: np.ndarray, std: np.ndarray) -> None:
        """
        :param mean: (obs_dim,)
        :param std: (obs_dim,); an entry of (nearly) zero is a constant and is left unscaled
        """
        scale = np.where(std < 1e-6, 1.0, std)
        self.obs_mean.copy_(th.as_tensor(mean))
        self.obs_std.copy_(th.as_tensor(scale))

    def distribution(self, obs: BCObs) -> Distribution:
        """
        :param obs: (n, obs_dim) or a dict
        :return: batch of n distributions over (action_dim,)
        :raises ValueError: wrong shape, or a key is missing
        """
        missing = [key for key in self.image_shapes if not isinstance(obs, dict) or key not in obs]
        if missing:
            has = f"it has {list(obs)}" if isinstance(obs, dict) else f"which is one array of {tuple(obs.shape)}"
            raise ValueError(f"The BC policy reads the images {missing}, which the observation lacks; {has}.")
        seen = self.see({key: obs[key] for key in self.image_shapes})  # type: ignore[index]
        return self.distribution_of(flat_observation(obs, self.obs_dim, self.obs_keys), seen)

    def see(self, images: Mapping[str, th.Tensor]) -> dict[str, th.Tensor]:
        """
        :param images: key -> (n, height, width, channels) or (n, channels, height, width), 0 to 255; or features of
            them that this method gave earlier (:class:`BCFeatures`), which stay as they are
        :return: key -> (n, features)
        :raises ValueError: other sizes
        """
        return {
            key: images[key]
            if images[key].shape[1:] == (_CAMERA_FEATURES,)
            else camera(channels_first(images[key], self.image_shapes[key]).float() / 255.0 - 0.5)
            for key, camera in self.cameras.items()
            if key in images
        }

    def distribution_of(self, vectors: th.Tensor, seen: Mapping[str, th.Tensor]) -> Distribution:
        """
        :param vectors: (n, obs_dim)
        :param seen: What :meth:`see` made of the images
        :return: batch of n distributions over (action_dim,)
        """
        normalised = ((vectors - self.obs_mean) / self.obs_std).clamp(-_OBS_CLIP, _OBS_CLIP)
        features = [seen[key] for key in self.cameras]
        out = self.head(self.trunk(th.cat([normalised, *features], dim=1)))
        n_means = self.n_components * self.action_dim
        shape = (len(out), self.n_components, self.action_dim)
        means = th.tanh(out[:, :n_means]).view(shape)
        # Between floor and ceiling on a log scale, by a sigmoid: gradients survive at both ends, unlike a clamp's.
        log_min, log_max = math.log(self.sigma_min), math.log(self.sigma_max)
        sigmas = th.exp(log_min + (log_max - log_min) * th.sigmoid(out[:, n_means : 2 * n_means])).view(shape)
        if self.n_components == 1:
            return Independent(Normal(means[:, 0], sigmas[:, 0], validate_args=False), 1, validate_args=False)
        components = Independent(Normal(means, sigmas, validate_args=False), 1, validate_args=False)
        weights = Categorical(logits=out[:, 2 * n_means :], validate_args=False)
        return MixtureSameFamily(weights, components, validate_args=False)

    def to_checkpoint(self) -> dict[str, Any]:
        """Everything needed to build the policy again, as plain values and tensors."""
        return {
            "format": self.FORMAT,
            "format_version": self.FORMAT_VERSION,
            "config": {
                "obs_dim": self.obs_dim,
                "action_dim": self.action_dim,
                "net_arch": list(self.net_arch),
                "n_components": self.n_components,
                "sigma_min": self.sigma_min,
                "sigma_max": self.sigma_max,
                "obs_keys": None if self.obs_keys is None else list(self.obs_keys),
                "image_shapes": {key: list(shape) for key, shape in self.image_shapes.items()},
            },
            "state_dict": {name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()},
            "training_record": self.training_record,
        }

    @classmethod
    def from_checkpoint(cls, checkpoint: dict[str, Any]) -> GaussianBCPolicy:
        """
        :param checkpoint: what :meth:`to_checkpoint` returned
        :return: the policy, frozen, in eval mode, on the CPU
        :raises ValueError: another format or version, missing or misshapen weights, NaN in the weights
        """
        came = (checkpoint.get("format"), checkpoint.get("format_version"))
        if came != (cls.FORMAT, cls.FORMAT_VERSION):
            raise ValueError(
                f"The checkpoint's format and version are {came}, expected {(cls.FORMAT, cls.FORMAT_VERSION)}. "
                "It is of another kind, of a newer sb3_q2rl, or damaged."
            )
        try:
            # The random initial weights are overwritten at once: do not spend the caller's random numbers on them.
            with th.random.fork_rng(devices=[]):
                policy = cls(**checkpoint["config"])
            policy.load_state_dict(checkpoint["state_dict"])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"The BC checkpoint is incomplete or was altered: {error}") from error
        freeze(policy, "The BC checkpoint")
        policy.training_record = dict(checkpoint.get("training_record", {}))
        return policy

    def save(self, path: str | Path) -> Path:
        """Write the checkpoint, whole or not at all."""
        return write_checkpoint(self.to_checkpoint(), path)

    @classmethod
    def load(cls, path: str | Path) -> GaussianBCPolicy:
        """Read a checkpoint; see :func:`read_checkpoint` and :meth:`from_checkpoint` for the errors."""
        return cls.from_checkpoint(read_checkpoint(path))
