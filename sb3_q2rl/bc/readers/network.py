"""Networks of other libraries, rebuilt from their tensors: a body, a mean, a scale, and how actions are squashed."""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Literal

import numpy as np
import torch as th
from torch import nn
from torch.distributions import AffineTransform, Distribution, Independent, Normal, TransformedDistribution

from sb3_q2rl.bc.callable_policy import CallableBCPolicy
from sb3_q2rl.bc.density import Density
from sb3_q2rl.bc.distributions import TanhNormal
from sb3_q2rl.bc.memoryless import MemorylessBCPolicy, freeze
from sb3_q2rl.bc.observations import flat_observation
from sb3_q2rl.bc.policy import BCObs, BCPolicy
from sb3_q2rl.bc.source import ReadOptions

Squash = Literal["none", "mean", "action"]
Tensors = MutableMapping[str, th.Tensor]


class Rescaled(TransformedDistribution):
    """
    a = scale * x + shift: a policy whose own [-1, 1] is a part of the environment's.

    :param distribution: of x, with a closed entropy and a mode
    :param scale: (action_dim,) positive
    :param shift: (action_dim,)
    """

    def __init__(self, distribution: Distribution, scale: th.Tensor, shift: th.Tensor):
        self.inner, self.scale = distribution, scale
        # The cache keeps x of a: TanhNormal then finds u of x in its own
        transform = AffineTransform(shift, scale, event_dim=1, cache_size=1)
        super().__init__(distribution, transform, validate_args=False)

    @property
    def mode(self) -> th.Tensor:
        """(n, action_dim)"""
        return self.transforms[0](self.inner.mode)

    def entropy(self) -> th.Tensor:
        """(n,) H[scale x + shift] = H[x] + sum log scale"""
        return self.inner.entropy() + self.scale.log().sum()


class ObservationInput(nn.Module):
    """
    From what the environment gives to what the network reads: flat, and normalised as during its training.

    :param dim: size of the network's input
    :param keys: for Dict observations: what to concatenate, in this order
    :param mean: (dim,) or ``None`` for zeros
    :param std: (dim,) what to divide by, with any small constant already added; given with a mean, and only so
    :param clip: largest magnitude after that
    :raises ValueError: one of the statistics without the other, of another size, or a ``std`` that is not positive
    """

    mean: th.Tensor
    std: th.Tensor

    def __init__(
        self,
        dim: int,
        keys: Sequence[str] | None = None,
        mean: Any = None,
        std: Any = None,
        clip: float | None = None,
    ):
        super().__init__()
        self.dim, self.clip = dim, clip
        self.keys = None if keys is None else tuple(keys)
        if (mean is None) != (std is None):
            there = "observation_std" if mean is None else "observation_mean"
            raise ValueError(
                f"Of the statistics of its observations only `{there}` is there: a policy was trained with both, or "
                "with neither. Pass the other one, too."
            )
        for name, values, default in (("mean", mean, 0.0), ("std", std, 1.0)):
            given = th.full((dim,), default) if values is None else th.as_tensor(np.asarray(values), dtype=th.float32)
            if given.shape != (dim,):
                raise ValueError(
                    f"`observation_{name}` has the shape {tuple(given.shape)}, but the policy reads observations of "
                    f"({dim},). Take the statistics of the data that it was trained on."
                )
            self.register_buffer(name, given)
        if not bool((self.std > 0).all()):
            raise ValueError("`observation_std` must be positive: put 1 where an observation is constant.")

    def forward(self, obs: BCObs) -> th.Tensor:
        normalised = (flat_observation(obs, self.dim, self.keys) - self.mean) / self.std
        return normalised if self.clip is None else normalised.clamp(-self.clip, self.clip)


class NetworkPolicy(MemorylessBCPolicy):
    """
    A diagonal Gaussian given by a network.

    :param inputs: how observations are read
    :param body: hidden layers
    :param mean: its last layer
    :param log_std: a layer, or (action_dim,) for scales that do not depend on the state
    :param log_std_range: what the log-scale is clamped to
    :param squash: ``"none"``: N(mean, std); ``"mean"``: N(tanh mean, std); ``"action"``: tanh of N(mean, std)
    :param action_scale: (action_dim,) or ``None``: a = scale * x + shift brings the network's x to our [-1, 1]
    :param action_shift: (action_dim,)
    """

    scale: th.Tensor
    shift: th.Tensor

    def __init__(
        self,
        inputs: ObservationInput,
        body: nn.Module,
        mean: nn.Linear,
        log_std: nn.Linear | th.Tensor,
        log_std_range: tuple[float, float] = (-20.0, 2.0),
        squash: Squash = "none",
        action_scale: th.Tensor | None = None,
        action_shift: th.Tensor | None = None,
    ):
        super().__init__()
        self.inputs, self.body, self.mean = inputs, body, mean
        if isinstance(log_std, nn.Linear):
            self.log_std: Any = log_std
        else:
            self.register_buffer("log_std", log_std.detach().float().flatten())
        self.log_std_range, self.squash = log_std_range, squash
        self.rescales = action_scale is not None
        dim = mean.out_features
        self.register_buffer("scale", th.ones(dim) if action_scale is None else action_scale)
        self.register_buffer("shift", th.zeros(dim) if action_shift is None else action_shift)

    def distribution(self, obs: BCObs) -> Distribution:
        features = self.body(self.inputs(obs))
        mean = self.mean(features)
        log_std = self.log_std(features) if isinstance(self.log_std, nn.Linear) else self.log_std.expand_as(mean)
        std = log_std.clamp(*self.log_std_range).exp()
        if self.squash == "action":
            squashed = TanhNormal(mean, std)
            return Rescaled(squashed, self.scale, self.shift) if self.rescales else squashed
        if self.squash == "mean":
            mean = mean.tanh()
        if self.rescales:
            mean, std = mean * self.scale + self.shift, std * self.scale
        return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)


class TanhActor(nn.Module):
    """
    a = scale * tanh(network(s)) + shift.

    :param inputs: how observations are read
    :param body: hidden layers
    :param mean: its last layer
    :param action_scale: (action_dim,)
    :param action_shift: (action_dim,)
    """

    scale: th.Tensor
    shift: th.Tensor

    def __init__(
        self,
        inputs: ObservationInput,
        body: nn.Module,
        mean: nn.Linear,
        action_scale: th.Tensor | None = None,
        action_shift: th.Tensor | None = None,
    ):
        super().__init__()
        self.inputs, self.body, self.mean = inputs, body, mean
        self.register_buffer("scale", th.ones(mean.out_features) if action_scale is None else action_scale)
        self.register_buffer("shift", th.zeros(mean.out_features) if action_shift is None else action_shift)

    def forward(self, obs: BCObs) -> th.Tensor:
        return self.scale * self.mean(self.body(self.inputs(obs))).tanh() + self.shift


def finished(policy: NetworkPolicy | TanhActor, source: str, options: ReadOptions) -> BCPolicy:
    """
    :param policy: with its weights
    :param source: what to call it in an error
    :param options: its ``density`` is for an actor without one
    :raises ValueError: shapes that do not fit together, NaN or infinity in the weights
    """
    policy.eval()  # a forward pass in training mode would change the statistics of batch normalisation
    try:
        _check_shapes(policy)
    except RuntimeError as error:
        raise ValueError(f"{source} is damaged: its layers do not fit together ({error}).") from error
    freeze(policy, source)
    if isinstance(policy, TanhActor):
        return CallableBCPolicy(policy, options.density or Density())
    return policy


def _check_shapes(policy: NetworkPolicy | TanhActor) -> None:
    obs: Any = th.zeros(2, policy.inputs.dim)
    if policy.inputs.keys is not None:
        obs = {key: obs if i == 0 else obs[:, :0] for i, key in enumerate(policy.inputs.keys)}
    with th.no_grad():
        policy(obs) if isinstance(policy, TanhActor) else policy.distribution(obs)


def linear(weight: th.Tensor, bias: th.Tensor) -> nn.Linear:
    """
    :param weight: (out, in)
    :param bias: (out,)
    :raises ValueError: other shapes
    """
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"A linear layer has a weight of shape {tuple(weight.shape)} and a bias of {tuple(bias.shape)}; "
            "expected (out, in) and (out,)."
        )
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # no random numbers of the caller's are spent
    layer.weight = nn.Parameter(weight.detach().float().clone(), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach().float().clone(), requires_grad=False)
    return layer


def take_linear(tensors: Tensors, name: str) -> nn.Linear | None:
    """
    :param tensors: its ``name.weight`` and ``name.bias`` are taken out
    :param name: of the layer
    :return: ``None`` if it is not there
    """
    if f"{name}.weight" not in tensors or f"{name}.bias" not in tensors or tensors[f"{name}.weight"].ndim != 2:
        return None
    return linear(tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias"))


def take_linears(tensors: Tensors, prefix: str) -> list[nn.Linear]:
    """
    :param tensors: the layers of a ``torch.nn.Sequential`` are taken out
    :param prefix: its name
    :return: its linear layers, in their order
    """
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.weight")
    numbers = sorted(int(match[1]) for match in map(pattern.fullmatch, tensors) if match)
    layers = [take_linear(tensors, f"{prefix}.{number}") for number in numbers]
    return [layer for layer in layers if layer is not None]


def hidden(layers: Sequence[nn.Linear], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """
    :param layers: hidden layers
    :param activation: after each of them
    """
    return nn.Sequential(*(module for layer in layers for module in (layer, activation())))


def inputs_of(body: nn.Module, mean: nn.Linear, options: ReadOptions, stored: Sequence[Any] = (None, None)) -> Any:
    """
    :param body: hidden layers
    :param mean: the last layer
    :param options: what the user said about observations
    :param stored: mean and std that the checkpoint holds; the user's go before them
    :return: :class:`ObservationInput` of the size that the first layer reads
    """
    first = next((layer for layer in body.modules() if isinstance(layer, nn.Linear)), mean)
    given = (options.observation_mean, options.observation_std)
    statistics = (other if value is None else value for value, other in zip(given, stored, strict=True))
    keys = options.observation_keys
    return ObservationInput(first.in_features, list(keys) if keys is not None else None, *statistics)  # type: ignore[arg-type]


def scale_of(low: Any, high: Any) -> tuple[th.Tensor, th.Tensor]:
    """
    :param low: (action_dim,) what the environment's -1 is
    :param high: (action_dim,)
    :return: scale and shift that bring actions between them to [-1, 1]
    """
    low, high = (th.as_tensor(np.asarray(bound), dtype=th.float32) for bound in (low, high))
    return 2.0 / (high - low), -(high + low) / (high - low)
