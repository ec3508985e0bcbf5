"""Networks that start on the scale of the data, whatever the units of the environment."""

import numpy as np
import pytest
import torch as th
from test_baselines import demonstrations, ibrl, rlpd
from worlds import reach


def test_rlpd_starts_on_the_scale_of_the_demonstrations():
    model = rlpd(reach())
    returns = model.replay_buffer.offline.mc_returns
    for critic in (model.critic, model.critic_target):
        assert critic.q_mean.item() == pytest.approx(returns.mean(), rel=1e-5)
        assert critic.q_std.item() == pytest.approx(returns.std(), rel=1e-5)
        seen = critic.features_extractor(th.as_tensor(demonstrations().observations))
        np.testing.assert_allclose(seen.mean(0), [0, 0], atol=1e-5)
        np.testing.assert_allclose(seen.std(0, correction=0), [1, 1], atol=1e-5)


def test_ibrl_starts_on_the_scale_of_its_warm_up():
    model = ibrl(reach(n_envs=2), n_bc_episodes=4, learning_rate=0.0)
    model.learn(60)
    assert model.has_started
    assert model.critic.q_mean.item() < -1, "returns of -1 a step"
    before = model.critic.q_mean.clone()
    model.learn(30, reset_num_timesteps=False)
    assert th.equal(model.critic.q_mean, before), "set once"


def test_returns_that_are_all_alike_and_no_finished_episode():
    """No warm-up episode ends before the first update: nothing is known, nothing is changed."""
    model = ibrl(reach(), n_bc_episodes=0)
    model.learn(3)
    assert (model.critic.q_mean.item(), model.critic.q_std.item()) == (0.0, 1.0)
    demos = demonstrations()
    alike = type(demos)(
        **{name: getattr(demos, name) for name in demos.__dataclass_fields__ if name != "rewards"},
        rewards=np.zeros(len(demos), np.float32),
    )
    model = rlpd(reach(), demonstrations=alike)
    assert (model.critic.q_mean.item(), model.critic.q_std.item()) == (0.0, 1.0)
