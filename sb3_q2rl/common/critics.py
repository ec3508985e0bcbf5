"""An ensemble of MLPs as one network: every layer is one batched matrix product over all members."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch as th
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_q2rl.common.extractors import Encoded, StandardizedExtractor


class EnsembleLinear(nn.Module):
    """
    ``n_members`` independent linear layers, each initialised as ``nn.Linear`` does.

    :param n_members: Number of layers side by side
    :param in_features: Input size
    :param out_features: Output size
    """

    def __init__(self, n_members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(th.empty(n_members, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(th.empty(n_members, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: th.Tensor, members: th.Tensor | None = None) -> th.Tensor:
        """(n, batch, in) -> (n, batch, out); ``members`` picks which layers x's first axis belongs to."""
        if members is None:
            return th.baddbmm(self.bias, x, self.weight)
        return th.baddbmm(self.bias[members], x, self.weight[members])


class EnsembleLayerNorm(nn.Module):
    """Layer normalisation with a scale and a shift of its own for each member."""

    def __init__(self, n_members: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(th.ones(n_members, 1, features))
        self.bias = nn.Parameter(th.zeros(n_members, 1, features))

    def forward(self, x: th.Tensor, members: th.Tensor | None = None) -> th.Tensor:
        weight, bias = (self.weight, self.bias) if members is None else (self.weight[members], self.bias[members])
        return th.addcmul(bias, F.layer_norm(x, x.shape[-1:]), weight)


class EnsembleMLP(nn.Module):
    """
    ``n_members`` MLPs side by side.

    :param n_members: Ensemble size
    :param input_dim: Size of the input vector
    :param net_arch: Hidden layer sizes
    :param activation_fn: Activation after every hidden layer
    :param layer_norm: Normalise before every activation. It bounds extrapolation (RLPD, https://arxiv.org/abs/2302.02948)
    :param n_outputs: Outputs of each member
    """

    def __init__(
        self,
        n_members: int,
        input_dim: int,
        net_arch: Sequence[int],
        activation_fn: type[nn.Module] = nn.ReLU,
        layer_norm: bool = True,
        n_outputs: int = 1,
    ) -> None:
        super().__init__()
        self.n_members = n_members
        sizes = [input_dim, *net_arch]
        self.hidden = nn.ModuleList(EnsembleLinear(n_members, i, o) for i, o in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(EnsembleLayerNorm(n_members, o) for o in net_arch) if layer_norm else None
        # In place where that is possible: what it overwrites is needed by nobody
        self.activation = nn.ReLU(inplace=True) if activation_fn is nn.ReLU else activation_fn()
        self.output = EnsembleLinear(n_members, sizes[-1], n_outputs)

    def outputs(self, x: th.Tensor, members: th.Tensor | None = None) -> th.Tensor:
        """
        :param x: (batch, input_dim), the same input for every member
        :param members: Indices of the members to evaluate; all of them by default
        :return: (n_members or len(members), batch, n_outputs)
        """
        n_members = self.n_members if members is None else len(members)
        x = x.expand(n_members, *x.shape)
        for i, layer in enumerate(self.hidden):
            x = layer(x, members)
            if self.norms is not None:
                x = self.norms[i](x, members)
            x = self.activation(x)
        return self.output(x, members)

    def forward(self, x: th.Tensor, members: th.Tensor | None = None) -> th.Tensor:
        """Members of one output: (n_members or len(members), batch), see :meth:`outputs`."""
        return self.outputs(x, members).squeeze(-1)


class EnsembleCritic(BaseModel):
    """
    Q-functions Q_i(s, a) that share the input and nothing else.

    :param observation_space: Observation space
    :param action_space: Action space
    :param net_arch: Hidden layer sizes of each critic
    :param features_extractor: Turns observations into vectors on one scale
    :param features_dim: Size of those vectors
    :param activation_fn: Activation function
    :param normalize_images: Divide uint8 images by 255
    :param n_critics: Ensemble size
    :param layer_norm: Normalise before every activation
    :param n_outputs: Of each critic; what they mean is a subclass's to say
    """

    features_extractor: StandardizedExtractor
    q_mean: th.Tensor
    q_std: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: StandardizedExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        n_critics: int = 10,
        layer_norm: bool = True,
        n_outputs: int = 1,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        self.n_critics = n_critics
        self.q_networks = EnsembleMLP(
            n_critics, features_dim + get_action_dim(action_space), net_arch, activation_fn, layer_norm, n_outputs
        )
        self.register_buffer("q_mean", th.zeros(()))
        self.register_buffer("q_std", th.ones(()))

    def set_scale(self, mean: th.Tensor, std: th.Tensor) -> None:
        """
        Let the networks' outputs of about [-1, 1] stand for mean ± std: Adam need not walk to values of hundreds.

        :param mean: Of the values to expect, a scalar
        :param std: Likewise
        """
        self.q_mean.copy_(mean)
        self.q_std.copy_(std)

    def encode(self, obs: PyTorchObs) -> Encoded:
        """
        :param obs: (batch, *obs_shape), or a dict of those
        :return: what the methods of these critics, and their actor's, take in its place
        """
        return Encoded(self.extract_features(obs, self.features_extractor))

    def forward(self, obs: PyTorchObs | Encoded, actions: th.Tensor, members: th.Tensor | None = None) -> th.Tensor:
        """
        :param obs: (batch, *obs_shape), or a dict of those, or what :meth:`encode` made of them
        :param actions: (batch, action_dim) in [-1, 1]
        :param members: Indices of the critics to evaluate; all of them by default
        :return: (n_critics or len(members), batch)
        """
        return self.value_of(self.inputs(obs, actions), members)

    def inputs(self, obs: PyTorchObs | Encoded, actions: th.Tensor) -> th.Tensor:
        """What the networks read: (batch, features_dim + action_dim)."""
        seen = obs if isinstance(obs, Encoded) else self.encode(obs)
        return th.cat([seen.features, actions], dim=1)

    def value_of(self, x: th.Tensor, members: th.Tensor | None = None) -> th.Tensor:
        """
        :param x: (batch, features_dim + action_dim), see :meth:`inputs`
        :param members: Indices of the critics to evaluate; all of them by default
        :return: (n_critics or len(members), batch)
        """
        return self.q_networks(x, members) * self.q_std + self.q_mean

    def lowest(self, obs: PyTorchObs | Encoded, actions: th.Tensor) -> th.Tensor:
        """
        min_i Q_i(s, a). Nine critics of ten have no part in its gradient: find the lowest one first, then differentiate
        only that. (Not on a GPU, which would have to wait for the sizes of the groups, and has flops to spare.)

        :param obs: (batch, *obs_shape), or a dict of those
        :param actions: (batch, action_dim) in [-1, 1]
        :return: (batch,)
        """
        if actions.is_cuda:
            return self(obs, actions).amin(dim=0)
        x = self.inputs(obs, actions)
        with th.no_grad():
            winner = self.value_of(x).argmin(dim=0)
        groups = [(winner == k).nonzero().squeeze(1) for k in range(self.n_critics)]
        values = [self.value_of(x[rows], th.tensor([k])).squeeze(0) for k, rows in enumerate(groups) if len(rows) > 0]
        return th.zeros(len(x), dtype=x.dtype).index_copy(0, th.cat(groups), th.cat(values))


class QuantileCritic(EnsembleCritic):
    """
    Critics that learn the distribution of the return, each by ``n_quantiles`` of its quantiles at the levels
    (m + 1/2) / n_quantiles (TQC, https://arxiv.org/abs/2005.04269). Their value is the mean over the quantiles.

    :param n_quantiles: Of each critic
    :param kwargs: See :class:`EnsembleCritic`
    """

    def __init__(self, *, n_quantiles: int = 25, **kwargs: Any) -> None:
        super().__init__(n_outputs=n_quantiles, **kwargs)

    def quantiles(self, obs: PyTorchObs | Encoded, actions: th.Tensor, members: th.Tensor | None = None) -> th.Tensor:
        """
        :param obs: (batch, *obs_shape), or a dict of those
        :param actions: (batch, action_dim) in [-1, 1]
        :param members: Indices of the critics to evaluate; all of them by default
        :return: (n_critics or len(members), batch, n_quantiles)
        """
        return self.q_networks.outputs(self.inputs(obs, actions), members) * self.q_std + self.q_mean

    def value_of(self, x: th.Tensor, members: th.Tensor | None = None) -> th.Tensor:
        return self.q_networks.outputs(x, members).mean(dim=2) * self.q_std + self.q_mean
