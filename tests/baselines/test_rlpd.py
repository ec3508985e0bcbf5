"""What RLPD's paper changes, each against a small computation of its own."""

from typing import Any

import numpy as np
import pytest
import torch as th
from test_baselines import demonstrations, rlpd
from worlds import reach

from sb3_q2rl.baselines import RLPD
from sb3_q2rl.baselines.mixed_batches import _evenly_spread


def started(**kwargs: Any) -> Any:
    model = rlpd(reach(n_envs=2), **kwargs)
    model.learn(40)
    return model


@pytest.mark.parametrize("kind", ["flat", "dict"])
def test_half_of_every_minibatch_is_demonstrated(kind):
    """The demonstrations' rewards are -1 and 0; those of the environment were changed to 7."""
    model = rlpd(reach(kind), demonstrations=demonstrations(kind), batch_size=24, policy_delay=3, gradient_steps=3)
    model.learn(30)
    model.replay_buffer.rewards[:] = 7
    batch = model._sample_batch(24)
    for minibatch in batch.split(3):
        assert (minibatch.rewards == 7).sum() == 4
        assert (minibatch.rewards <= 0).sum() == 4


@pytest.mark.parametrize(("n_first", "n"), [(4, 8), (3, 12), (5, 16), (1, 7), (6, 7)])
def test_every_part_of_a_mixed_batch_has_its_share(n_first, n):
    order = _evenly_spread(n_first, n)
    assert sorted(order.tolist()) == list(range(n))
    for start in range(n):
        for end in range(start + 1, n + 1):
            share = (order[start:end] < n_first).sum().item()
            assert abs(share - (end - start) * n_first / n) < 1


def test_the_demonstration_buffer_holds_each_step_once():
    model, demos = started(), demonstrations()
    buffer = model.replay_buffer.offline
    assert buffer.size() == len(demos)
    np.testing.assert_array_equal(buffer.observations[:, 0], demos.observations)
    np.testing.assert_array_equal(buffer.actions[:, 0], demos.actions)
    assert model.replay_buffer.size() == 20, "own experience only"


def test_actor_loss_is_the_mean_of_the_ensemble():
    model = started()
    batch = model._sample_batch(32)
    coefficient = model.log_ent_coef.detach().exp()
    th.manual_seed(3)
    loss = model._actor_loss(batch)
    th.manual_seed(3)
    actions, log_prob = model.actor.action_log_prob(batch.observations)
    each = th.stack([model.critic(batch.observations, actions, th.tensor([i]))[0] for i in range(3)])
    th.testing.assert_close(loss, (coefficient * log_prob - each.mean(dim=0)).mean())
    assert not th.isclose(loss, (coefficient * log_prob - each.amin(dim=0)).mean(), rtol=1e-4)


@pytest.mark.parametrize("entropy_backup", [True, False])
def test_entropy_in_the_backup(entropy_backup):
    """Critics of constant value 2: y = r + gamma (1 - d) (2 - ent_coef log pi), or without the last term."""
    model = started(entropy_backup=entropy_backup)
    with th.no_grad():
        for weights in model.critic_target.q_networks.output.parameters():
            weights.zero_()
    model.critic_target.set_scale(th.tensor(2.0), th.tensor(1.0))
    batch = model._sample_batch(32)
    th.manual_seed(3)
    target = model._td_target(batch)
    th.manual_seed(3)
    with th.no_grad():
        _, log_prob = model.actor.action_log_prob(batch.next_observations)
        bonus = -model.log_ent_coef.exp() * log_prob if entropy_backup else th.zeros(32)
    expected = batch.rewards[:, 0] + 0.99 * (1 - batch.dones[:, 0]) * (2 + bonus)
    th.testing.assert_close(target, expected)


def test_defaults_of_the_paper():
    model = RLPD(reach(), demonstrations=demonstrations(), device="cpu")
    assert model.target_entropy == -1.0  # two action dimensions
    assert model.log_ent_coef is not None
    assert model.log_ent_coef.exp().item() == 1.0
    assert model.critic.n_critics == 10
    assert model.critic.q_networks.norms is not None
    assert model.batch_size // model.policy_delay == 256
    assert (model.gradient_steps, model.n_target_critics) == (20, 2)


def test_odd_minibatches_are_refused():
    with pytest.raises(ValueError, match="Use a multiple of 8"):
        rlpd(reach(), batch_size=20, policy_delay=4, gradient_steps=4)
