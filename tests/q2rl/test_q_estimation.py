"""Q-estimation against closed forms, its early stopping, and that it stays frozen."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import FlattenExtractor
from worlds import BanditBC, BanditEnv, NoDensity, WalkHome, gaussian, reach, small_model

from sb3_q2rl import QGatedSAC
from sb3_q2rl.common.extractors import StandardizedExtractor
from sb3_q2rl.q2rl.q_estimation import QEstimate

START = np.array([True])


@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_bandit_with_known_q(alpha):
    """pi_BC proportional to exp(Q / alpha): Q̂_BC, estimated from samples of pi_BC and their rewards, equals Q."""
    env = make_vec_env(lambda: BanditEnv(alpha=alpha), n_envs=8, seed=0)
    model = small_model(
        env,
        BanditBC(),
        n_bc_episodes=1200,
        bc_deterministic=False,
        bc_temperature=alpha,
        policy_kwargs={"value_net_arch": [32], "n_values": 3},
    )
    model.learn(1208)
    obs = th.linspace(-0.9, 0.9, 19).unsqueeze(1)
    with th.no_grad():
        step = BanditBC().step(obs, None, START)
        estimate = model.policy.q_estimate(obs, step)
    exact = BanditEnv(alpha=alpha).q_value(obs.numpy(), step.actions.numpy())
    # The samples' own noise is alpha (Q scatters with sqrt(D / 2) = 1 alpha about V); Q spans about 8 alpha
    assert np.ptp(exact) > 6 * alpha
    assert np.sqrt(np.mean((estimate.numpy() - exact) ** 2)) < 0.3 * alpha
    # V alone is far from Q: the density term does matter
    with th.no_grad():
        assert np.sqrt(np.mean((model.policy.q_estimate.value(obs).numpy() - exact) ** 2)) > 0.6 * alpha


def test_acting_at_the_mode_earns_no_bonus():
    """The mode's episodes are worth Q(s, mode), and so is the estimate; log pi + H alone adds alpha D/2 = alpha."""
    alpha = 3.0
    env = make_vec_env(lambda: BanditEnv(alpha=alpha), n_envs=8, seed=0)
    options = {"policy_kwargs": {"value_net_arch": [32], "n_values": 3}, "bc_temperature": alpha}
    model = small_model(env, BanditBC(), n_bc_episodes=400, bc_deterministic=True, **options)
    model.learn(408)
    obs = th.linspace(-0.9, 0.9, 19).unsqueeze(1)
    step = BanditBC().step(obs, None, START, deterministic=True)
    exact = BanditEnv(alpha=alpha).q_value(obs.numpy(), step.actions.numpy())
    with th.no_grad():
        estimate = model.policy.q_estimate(obs, step)
    assert (step.log_prob + step.entropy).min() > 0.9
    assert abs(estimate.numpy() - exact).max() < 0.3 * alpha


def test_log_prob_and_entropy_cancel_on_average():
    """E[log pi + H] = 0, so that the expectation of Q̂_BC is V_BC."""
    th.manual_seed(0)
    for policy, obs in ((WalkHome(), th.zeros(20_000, 2)), (gaussian(), th.ones(20_000, 2))):
        step = policy.step(obs, None, START)
        advantage = step.log_prob + step.entropy
        assert abs(advantage.mean()) < 4 * advantage.std() / 20_000**0.5
        assert advantage.std() == pytest.approx(1.0, rel=0.05)  # sqrt(D / 2), D = 2
        at_mode = policy.step(obs[:1], None, START, deterministic=True)
        assert at_mode.log_prob + at_mode.entropy == pytest.approx(1.0, abs=1e-5)  # D / 2


def estimate_net(obs_dim=1, n_members=3, encoder=FlattenExtractor):
    space = spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
    extractor = StandardizedExtractor(space, encoder(space))
    return QEstimate(space, spaces.Box(-1, 1, (1,), np.float32), extractor, net_arch=[32], n_members=n_members)


@pytest.mark.parametrize("n_members", [1, 3])
def test_fit_finds_a_function_whatever_its_scale(n_members):
    th.manual_seed(0)
    np.random.seed(0)
    net = estimate_net(n_members=n_members)
    obs = 1000 + 50 * th.randn(2000, 1)
    returns = -300 + 100 * th.sin((obs[:, 0] - 1000) / 30)
    fit = net.fit(lambda i: (obs[i], returns[i]), [10] * 200)
    assert fit.r2 > 0.97
    with th.no_grad():
        assert (net.value(obs) - returns).square().mean().sqrt() == pytest.approx(fit.rmse, rel=0.5)
    assert fit.rmse < 15


def test_early_stopping_prefers_not_to_learn_noise():
    th.manual_seed(0)
    np.random.seed(0)
    net = estimate_net(obs_dim=20)
    obs, returns = th.randn(60, 20), th.randn(60)
    fit = net.fit(lambda i: (obs[i], returns[i]), [2] * 30, max_steps=1500)
    assert fit.n_steps <= 200
    with th.no_grad():
        assert net.value(obs).std() < 0.9 * returns.std()


def test_luck_is_not_learnt_by_heart():
    """Observations tell which episode it is, but not how it will end: no better than the mean, and no worse either."""
    th.manual_seed(0)
    np.random.seed(0)
    net = estimate_net(obs_dim=20)
    episode = th.arange(50).repeat_interleave(100)
    obs = th.randn(50, 20)[episode] + 0.3 * th.randn(5000, 20)
    returns = (th.randn(50) > 0).float()[episode]
    fit = net.fit(lambda i: (obs[i], returns[i]), [100] * 50)
    assert fit.r2 > -0.1


class LearntEncoder(FlattenExtractor):
    """As a camera's: one encoder, that all members of the ensemble read and teach."""

    def __init__(self, space):
        super().__init__(space)
        self.net = th.nn.Sequential(th.nn.Linear(self.features_dim, 64), th.nn.ReLU(), th.nn.Linear(64, 1))
        self._features_dim = 1

    def forward(self, obs):
        return self.net(super().forward(obs))


@pytest.mark.parametrize("encoder", [FlattenExtractor, LearntEncoder])
def test_held_out_error_is_that_of_whole_unseen_episodes(encoder):
    """The return depends on the episode alone and the observation tells which: known episodes are easy, others not."""
    th.manual_seed(0)
    np.random.seed(0)
    net = estimate_net(obs_dim=40, encoder=encoder)
    episode = th.arange(40).repeat_interleave(25)
    obs = th.eye(40)[episode] + 0.01 * th.randn(1000, 40)
    returns = th.randn(40)[episode]
    fit = net.fit(lambda i: (obs[i], returns[i]), [25] * 40, max_steps=600, patience=100)
    assert fit.r2 < 0.3  # a split by steps would claim nearly 1


def test_no_value_is_beyond_the_returns_that_were_seen():
    th.manual_seed(0)
    np.random.seed(0)
    net = estimate_net()
    obs = th.linspace(-1, 1, 400).unsqueeze(1)
    returns = -50 + 50 * obs[:, 0]
    net.fit(lambda i: (obs[i], returns[i]), [40] * 10, max_steps=300)
    far = th.tensor([[-30.0], [0.0], [30.0]])
    with th.no_grad():
        below, inside, above = net.value(far)
        assert net._normalised_values(far).mean(dim=0)[2] > 3  # the network itself goes on and on
    assert (float(below), float(above)) == (-100, 0)
    assert float(inside) == pytest.approx(-50, abs=5)


def test_one_episode_is_enough_to_fit():
    th.manual_seed(0)
    net = estimate_net()
    obs = th.linspace(-1, 1, 40).unsqueeze(1)
    returns = 100 + 10 * obs[:, 0]
    net.fit(lambda i: (obs[i], returns[i]), [40], max_steps=300)
    with th.no_grad():
        assert (net.value(obs) - returns).square().mean() < 0.1 * returns.var()


@pytest.mark.usefixtures("quick_fit")
def test_the_estimate_never_changes_again(tmp_path):
    model = small_model(reach(n_envs=2), gaussian(), bc_deterministic=False)
    model.learn(100)
    estimate = model.policy.q_estimate
    before = {name: value.clone() for name, value in estimate.state_dict().items() if isinstance(value, th.Tensor)}
    actor = [parameter.clone() for parameter in model.actor.parameters()]
    model.learn(100, reset_num_timesteps=False)
    assert any((a != b).any() for a, b in zip(actor, model.actor.parameters(), strict=True))

    model.save(tmp_path / "model")
    loaded = QGatedSAC.load(tmp_path / "model", env=reach(n_envs=2), device="cpu")
    assert loaded.has_started
    loaded.learn(50)
    for q_estimate in (estimate, loaded.policy.q_estimate):
        assert not any(parameter.requires_grad for parameter in q_estimate.parameters())
        assert before
        for name, value in before.items():
            th.testing.assert_close(q_estimate.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.usefixtures("quick_fit")
def test_a_policy_without_density_is_compared_by_its_value_alone():
    model = small_model(bc_policy=NoDensity())
    model.learn(60)
    obs = th.tensor([[0.3, -0.8]])
    with th.no_grad():
        decision = model.decide(obs.numpy(), deterministic=True)
    th.testing.assert_close(decision.q_bc, model.policy.q_estimate.value(obs))
    assert (model.replay_buffer.bc_log_prob == 0).all()
