"""From what an environment gives to what a robomimic network reads: names, shapes, images, statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch as th
from torch import nn

from sb3_q2rl.bc.policy import BCObs
from sb3_q2rl.data.robomimic import DEFAULT_OBS_KEYS
from sb3_q2rl.data.robosuite_objects import Conversion

# What an image's values are divided by, as robomimic does; other modalities are vectors and stay as they are
_FULL_SCALE = {"rgb": 255.0, "depth": 1.0}


class RobomimicObservations(nn.Module):
    """
    :param shapes: key of the checkpoint -> the shape that its network reads; images are (channels, height, width)
    :param modalities: "rgb", "depth", ... -> keys of the checkpoint
    :param observation_keys: a list: how a flat observation is composed of the checkpoint's keys; a mapping: the
        checkpoint's key -> the environment's
    :param statistics: key -> "mean" and "std" (since robomimic 0.4 "offset" and "scale"), each (1, *shape)
    :param convert_object: applied to the environment's ``object`` observation, see :func:`object_conversion`
    :raises ValueError: ``observation_keys`` or ``statistics`` do not match the checkpoint's keys
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        modalities: Mapping[str, Sequence[str]],
        observation_keys: Sequence[str] | Mapping[str, str] | None = None,
        statistics: Mapping[str, Mapping[str, Any]] | None = None,
        convert_object: Conversion | None = None,
    ):
        super().__init__()
        self.shapes = dict(shapes)
        self.convert_object = convert_object
        self.full_scale = {
            key: _FULL_SCALE[modality]
            for modality, keys in modalities.items()
            if modality in _FULL_SCALE
            for key in keys
        }
        self.env_keys = {key: key for key in shapes}
        # The usual four have a usual order; any other composition of a flat observation would be a guess
        self.flat_keys: tuple[str, ...] | None = DEFAULT_OBS_KEYS if set(shapes) == set(DEFAULT_OBS_KEYS) else None
        if isinstance(observation_keys, Mapping):
            _require(set(observation_keys) <= set(shapes), observation_keys, shapes)
            self.env_keys.update(observation_keys)
        elif observation_keys is not None:
            _require(sorted(observation_keys) == sorted(shapes), observation_keys, shapes)
            self.flat_keys = tuple(observation_keys)
        self.is_normalised = statistics is not None
        if statistics is not None:
            self._set_statistics(statistics)

    def _set_statistics(self, statistics: Mapping[str, Mapping[str, Any]]) -> None:
        if not set(self.shapes) <= set(statistics):
            raise ValueError(
                f"The checkpoint's normalisation statistics are of {sorted(statistics)}, but its network reads "
                f"{sorted(self.shapes)}. The file is incomplete: train or export it again."
            )
        for key, shape in self.shapes.items():
            for name, old_name in (("offset", "mean"), ("scale", "std")):
                value = statistics[key].get(name, statistics[key].get(old_name))
                self.register_buffer(_buffer(key, name), th.as_tensor(value, dtype=th.float32).reshape(shape))

    def forward(self, obs: BCObs) -> dict[str, th.Tensor]:
        """
        :param obs: (n, dim), or a dict of (n, *shape); images in 0..255, channels first or last
        :return: key of the checkpoint -> (n, *shape), float32
        :raises ValueError: missing keys, or other shapes than in training
        """
        if not isinstance(obs, dict):
            obs = self._split(obs)
        else:
            missing = [key for key in self.env_keys.values() if key not in obs]
            if missing:
                raise ValueError(
                    f"The robomimic policy reads {self._wanted()}, but the observation has {list(obs)}: {missing} "
                    "missing. Say which is which: `BCPolicyAdapter.from_checkpoint(path, observation_keys="
                    "{checkpoint's key: environment's key})`."
                )
            obs = {key: obs[env_key] for key, env_key in self.env_keys.items()}
        return {key: self._prepared(key, value) for key, value in obs.items()}

    def _split(self, obs: th.Tensor) -> dict[str, th.Tensor]:
        if len(self.shapes) == 1:
            return dict.fromkeys(self.shapes, obs)
        if self.flat_keys is None:
            raise ValueError(
                f"The robomimic policy reads the keys {self._wanted()}, but one array of {tuple(obs.shape[1:])} came. "
                "Give the environment's observation as a dict, or, where it has no images, say in which order the "
                f"array holds them: `BCPolicyAdapter.from_checkpoint(path, observation_keys={list(self.shapes)})`."
            )
        sizes = [math.prod(self.shapes[key]) for key in self.flat_keys]
        if obs.ndim != 2 or obs.shape[1] != sum(sizes):
            raise ValueError(
                f"The robomimic policy reads {self._wanted()}, together ({sum(sizes)},), but a batch of shape "
                f"{tuple(obs.shape)} came, not (n, {sum(sizes)}). Use it with the task that it was trained on."
            )
        return dict(zip(self.flat_keys, obs.split(sizes, dim=1), strict=True))

    def _prepared(self, key: str, value: th.Tensor) -> th.Tensor:
        shape = self.shapes[key]
        value = value.float()
        if key in self.full_scale:
            value = (_channels_first(value, shape) / self.full_scale[key]).clamp(0.0, 1.0)
        elif value.ndim > 0 and value[:1].numel() == math.prod(shape):
            value = value.reshape(-1, *shape)
        if value.shape[1:] != shape:
            raise ValueError(
                f"The robomimic policy was trained on {key!r} of shape {shape}, but {self.env_keys[key]!r} came as "
                f"{tuple(value.shape[1:])}. Use it with the task, cameras and image sizes that it was trained on."
            )
        if key == "object" and self.convert_object is not None:
            value = self.convert_object(value)
        if self.is_normalised:
            value = (value - getattr(self, _buffer(key, "offset"))) / getattr(self, _buffer(key, "scale"))
        return value

    def _wanted(self) -> str:
        return ", ".join(f"{self.env_keys[key]} {shape}" for key, shape in self.shapes.items())


def _buffer(key: str, name: str) -> str:
    return f"{key}_{name}".replace(".", "/")  # torch forbids dots


def _channels_first(image: th.Tensor, shape: tuple[int, ...]) -> th.Tensor:
    channels, height, width = shape
    return image.movedim(-1, 1) if image.shape[1:] == (height, width, channels) else image


def _require(fits: bool, observation_keys: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if not fits:
        raise ValueError(
            f"`observation_keys` is {observation_keys!r}, but the checkpoint's keys are {list(shapes)}. Give a list of "
            "all of them (their order in a flat observation), or a mapping from some of them to the environment's."
        )
