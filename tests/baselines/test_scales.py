"""Networks that start on the scale of the data, whatever the units of the environment: one rule for all."""

import numpy as np
import pytest
import torch as th
from test_baselines import demonstrations, ibrl, rlpd
from worlds import ReachEnv, WalkHome, reach, small_model

from sb3_q2rl import Demonstrations
from sb3_q2rl.common.scales import scale_of


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


def test_without_a_finished_episode_nothing_is_changed():
    """No warm-up episode ends before the first update: nothing is known."""
    model = ibrl(reach(), n_bc_episodes=0)
    model.learn(3)
    assert (model.critic.q_mean.item(), model.critic.q_std.item()) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("returns", "mean", "std"),
    [
        ([-500.0, -300.0], -400.0, 100.0),
        ([1000.0, 1002.0, 1004.0], 1002.0, np.sqrt(8 / 3)),  # a small spread, but one
        ([-500.0] * 4, -500.0, 500.0),  # no episode succeeded: success would be about so far away
        ([-500.0, -500.0001, -500.0], -500.0, 500.0),  # rounding is no spread
        ([0.0] * 5, 0.0, 1.0),  # rewards of 0 and 1, and never 1
        ([7.0], 7.0, 7.0),
    ],
)
def test_scale_of(returns, mean, std):
    found_mean, found_std = scale_of(th.tensor(returns))
    assert found_mean.item() == pytest.approx(mean, abs=1e-3)
    assert found_std.item() == pytest.approx(std, rel=1e-4)


class NeverThere(ReachEnv):
    """Success is out of reach, and each step costs the same."""

    def __init__(self, reward: float) -> None:
        super().__init__(radius=0.0)
        self.reward = reward

    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        return obs, self.reward, terminated, truncated, info


@pytest.mark.usefixtures("quick_fit")
@pytest.mark.parametrize(("reward", "mean", "std"), [(-5.0, -500.0, 500.0), (0.0, 0.0, 1.0)])
def test_returns_that_are_all_alike_are_scaled_alike_everywhere(reward, mean, std):
    model = small_model(NeverThere(reward), WalkHome())
    model.learn(60)
    demos = demonstrations()
    rewards = np.full(len(demos), reward, np.float32)
    fields = {name: getattr(demos, name) for name in demos.__dataclass_fields__ if name != "rewards"}
    ends = fields["terminated"] | fields["truncated"]
    fields |= {"terminated": np.zeros(len(demos), bool), "truncated": ends}
    rival = rlpd(reach(), demonstrations=Demonstrations(rewards=rewards, **fields))
    for critic in (model.critic, model.critic_target, rival.critic, rival.critic_target):
        assert critic.q_mean.item() == pytest.approx(mean, rel=1e-4)
        assert critic.q_std.item() == pytest.approx(std, rel=1e-4)
