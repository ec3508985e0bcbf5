from typing import Any, cast

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_q2rl.common.critics import EnsembleCritic, EnsembleLayerNorm, EnsembleLinear, EnsembleMLP
from sb3_q2rl.common.extractors import StandardizedExtractor


def separate_mlp(ensemble: EnsembleMLP, member: int) -> nn.Sequential:
    """Member k rebuilt from torch's own layers."""
    layers: list[nn.Module] = []
    linears: list[Any] = [*ensemble.hidden, ensemble.output]
    for i, linear in enumerate(linears):
        plain = nn.Linear(*linear.weight.shape[1:])
        plain.weight.data = linear.weight[member].T.detach().clone()
        plain.bias.data = linear.bias[member, 0].detach().clone()
        layers.append(plain)
        if i < len(ensemble.hidden):
            if ensemble.norms is not None:
                norm, norms = nn.LayerNorm(linear.weight.shape[2]), cast(EnsembleLayerNorm, ensemble.norms[i])
                norm.weight.data = norms.weight[member, 0].detach().clone()
                norm.bias.data = norms.bias[member, 0].detach().clone()
                layers.append(norm)
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def test_each_member_is_an_mlp_of_its_own():
    th.manual_seed(0)
    for layer_norm in (True, False):
        ensemble = EnsembleMLP(4, 7, [16, 8], layer_norm=layer_norm)
        for parameter in ensemble.parameters():
            parameter.data += 0.1 * th.randn_like(parameter)
        x = th.randn(5, 7)
        out = ensemble(x)
        assert out.shape == (4, 5)
        for k in range(4):
            th.testing.assert_close(out[k], separate_mlp(ensemble, k)(x).squeeze(1))
        th.testing.assert_close(ensemble(x, th.tensor([3, 1])), out[[3, 1]])


def test_members_do_not_share_gradients():
    ensemble = EnsembleMLP(3, 2, [4])
    ensemble(th.randn(6, 2))[1].sum().backward()
    for parameter in ensemble.parameters():
        assert parameter.grad is not None
        assert parameter.grad[[0, 2]].abs().max() == 0
        assert parameter.grad[1].abs().max() > 0


def test_initialised_as_torch_initialises_linear_layers():
    th.manual_seed(0)
    weight = cast(EnsembleLinear, EnsembleMLP(50, 64, [64]).hidden[0]).weight
    reference = th.stack([nn.Linear(64, 64).weight for _ in range(50)])
    np.testing.assert_allclose(weight.std().item(), reference.std().item(), rtol=0.02)
    np.testing.assert_allclose(weight.abs().max().item(), reference.abs().max().item(), rtol=0.01)


def test_critic_scale_shifts_and_scales_the_value():
    space = spaces.Box(-1, 1, (3,))
    extractor = StandardizedExtractor(space, FlattenExtractor(space))
    critic = EnsembleCritic(space, spaces.Box(-1, 1, (2,)), [8], extractor, 3, n_critics=2)
    obs, actions = th.randn(4, 3), th.randn(4, 2)
    before = critic(obs, actions)
    critic.set_scale(th.tensor(-200.0), th.tensor(50.0))
    th.testing.assert_close(critic(obs, actions), before * 50 - 200)


@pytest.mark.parametrize("n_critics", [1, 2, 7])
def test_lowest_is_the_minimum_with_its_gradient(n_critics):
    th.manual_seed(0)
    space = spaces.Box(-1, 1, (3,))
    critic = EnsembleCritic(space, spaces.Box(-1, 1, (2,)), [16], FlattenExtractor(space), 3, n_critics=n_critics)
    critic.set_scale(th.tensor(-200.0), th.tensor(50.0))
    critic.double()  # in single precision the order of a sum decides, which differs from processor to processor
    obs, actions = th.randn(40, 3, dtype=th.double), th.randn(40, 2, dtype=th.double, requires_grad=True)
    plain, grouped = critic(obs, actions).amin(dim=0), critic.lowest(obs, actions)
    th.testing.assert_close(grouped, plain)
    weights = th.randn(40, dtype=th.double)
    inputs = [actions, *critic.q_networks.parameters()]
    expected = th.autograd.grad((weights * plain).sum(), inputs)
    th.testing.assert_close(th.autograd.grad((weights * grouped).sum(), inputs), expected)
