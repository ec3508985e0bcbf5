"""The conservative terms of CQL and Cal-QL against d3rlpy's own: the same weights, the same sampled actions."""

import math
from types import SimpleNamespace

import pytest
import torch as th
from test_cql import offline_batch, small

from sb3_q2rl.baselines.cal_ql import CalQL
from sb3_q2rl.baselines.cql import CQL

pytest.importorskip("d3rlpy", reason="compares with d3rlpy's losses: pip install d3rlpy")
from d3rlpy.algos.qlearning.torch.cal_ql_impl import CalQLImpl
from d3rlpy.algos.qlearning.torch.cql_impl import CQLImpl
from d3rlpy.models.torch.policies import ActionOutput

N = 5


def of_d3rlpy(impl, model, batch):
    """d3rlpy's loss of each critic with our networks in the place of its own, and the actions that it drew."""
    asked = []

    def policy(obs):
        mean, log_std, _ = model.actor.get_action_dist_params(obs)
        return ActionOutput(mean, th.tanh(mean), log_std)

    def q_values(obs, actions, reduction):
        assert reduction == "none"
        asked.append(actions)
        return model.critic(obs, actions).unsqueeze(2)

    agent = impl.__new__(impl)
    agent._modules = SimpleNamespace(policy=policy)
    agent._q_func_forwarder = SimpleNamespace(compute_expected_q=q_values)
    agent._n_action_samples, agent._action_size, agent._device = N, 2, "cpu"
    agent._conservative_weight, agent._alpha_threshold = 1.0, 0.0
    loss = agent._compute_conservative_loss(
        batch.observations, batch.actions, batch.next_observations, batch.mc_returns.unsqueeze(1)
    )
    of_pi, of_next_pi, uniform, _ = asked
    return loss, th.cat([part.reshape(-1, N, 2) for part in (uniform, of_pi, of_next_pi)], dim=1)


def density_of_ours(model, obs, actions):
    mean, log_std, _ = model.actor.get_action_dist_params(obs)
    distribution = model.actor.action_dist.proba_distribution(mean, log_std)
    return th.stack([distribution.log_prob(actions[:, k]) for k in range(N)], dim=1)


@pytest.mark.parametrize(("algorithm", "impl"), [(CQL, CQLImpl), (CalQL, CalQLImpl)])
@pytest.mark.parametrize("floor", [-1e6, 0.0, 10.0])
def test_the_terms_agree(algorithm, impl, floor):
    model = small(algorithm, n_action_samples=N)
    batch = offline_batch(model)._replace(mc_returns=floor + th.linspace(-3, 3, 6))
    with th.no_grad():
        expected, actions = of_d3rlpy(impl, model, batch)
        log_density = th.cat(
            [
                th.full((6, N), 2 * math.log(0.5)),
                density_of_ours(model, batch.observations, actions[:, N : 2 * N]),
                density_of_ours(model, batch.next_observations, actions[:, 2 * N :]),
            ],
            dim=1,
        )
        model._proposals = lambda batch: (actions, log_density)
        gap = model._conservative_gap(batch).mean(dim=1)
    # d3rlpy sums over the samples, we take their mean, as the integral wants it: a constant apart
    th.testing.assert_close(gap + math.log(3 * N), expected, rtol=1e-4, atol=1e-3)
