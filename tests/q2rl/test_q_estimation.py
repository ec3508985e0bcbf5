"""Q-estimation against closed forms, its early stopping, and that it stays frozen."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import FlattenExtractor
from worlds import BanditBC, BanditEnv, NoDensity, WalkHome, gaussian, random_batch, reach, small_model

from sb3_q2rl import QGatedSAC
from sb3_q2rl.bc.distributions import TanhNormal, step_from
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


def test_both_networks_start_from_the_bc_episodes():
    """Q-initialisation: the critics give the returns, the actor the BC actions, of the episodes they started from."""
    model = small_model(
        reach(n_envs=4),
        n_bc_episodes=40,
        q_init_steps=500,
        batch_size=64,
        learning_rate=3e-3,
        policy_kwargs={"value_net_arch": [32], "n_values": 3},
    )
    estimated = []
    initialise = model._initialise

    def actor_rate():
        return model.actor.optimizer.param_groups[0]["lr"]

    def note(*args):
        initialise(*args)
        assert 0 < actor_rate() < 1e-7  # it was annealed
        buffer = model.replay_buffer
        obs, actions = th.tensor(buffer.observations[:6]).view(-1, 2), th.tensor(buffer.actions[:6]).view(-1, 2)
        targets = th.tensor(buffer.mc_returns)[:6].view(-1)  # at the mode log pi + H is constant: centred, nothing
        with th.no_grad():
            estimated.append((model.critic(obs, actions).mean(0), targets, model.actor(obs, True), actions))

    model._initialise = note
    model.learn(260)
    assert actor_rate() == 1e-4
    q_values, targets, rl_actions, bc_actions = estimated[0]
    assert (q_values - targets).square().mean() < 0.2 * targets.var()
    assert (rl_actions - bc_actions).abs().mean() < 0.1


def test_the_clone_learns_its_mean_alike_where_it_is_certain_and_where_it_is_not():
    """beta-NLL: d loss / d mean_i(s) is (mean - action) / sigma of the likelihood's (mean - action) / sigma^2."""
    model = small_model()
    means = th.tensor([[0.3, -0.2], [0.1, 0.9], [-0.7, 0.0]], requires_grad=True)
    sigmas = th.tensor([[0.01, 0.2], [0.1, 0.4], [1.0, 0.3]])
    actions = th.tensor([[0.2, 0.1], [-0.3, 0.5], [0.4, -0.6]])
    model.actor.action_dist.proba_distribution(means, sigmas.log())
    model._cloning_loss(random_batch(len(actions))._replace(bc_actions=actions)).backward()
    expected = (means.detach() - th.atanh(actions)) / sigmas / sigmas.mean(dim=0) / len(actions)
    th.testing.assert_close(means.grad, expected)


@pytest.mark.usefixtures("quick_fit")
@pytest.mark.parametrize("bc_policy", [WalkHome(), NoDensity(), WalkHome(is_recurrent=True)])
def test_critics_start_as_the_estimate_of_actions_that_the_bc_policy_does_not_take(bc_policy):
    """Else the gate would take any action to be as good. Where nobody knows their density it does."""
    model = small_model(
        reach(n_envs=4), bc_policy, n_bc_episodes=20, q_init_steps=600, batch_size=64, learning_rate=3e-3,
        policy_kwargs={"net_arch": [64, 64], "n_critics": 2},
    )  # fmt: skip
    estimated = []
    initialise = model._initialise

    def note(rows, columns):
        initialise(rows, columns)
        obs = model.replay_buffer.observations_at(rows, columns)
        distribution = bc_policy.distribution(obs)
        for distance in (0.0, 0.3, 0.8):
            away = (distribution.mean + distance * th.tensor([1.0, -1.0]) / 2**0.5).clamp(-1, 1)
            nats = distribution.log_prob(away) + distribution.entropy() - 1  # centred at the mode
            with th.no_grad():
                q_values = model.critic(obs, away).mean(0)
            std = model.policy.q_estimate.return_std
            values = model.policy.q_estimate.value(obs)
            estimated.append((float((q_values - values).mean()), float(nats.clamp(-std, std).mean())))

    model._initialise = note
    model.learn(140)
    if type(bc_policy) is NoDensity or bc_policy.is_recurrent:
        assert all(abs(q_value) < 0.5 for q_value, _ in estimated)
        return
    assert estimated[0][1] == pytest.approx(0, abs=1e-3)
    assert estimated[2][1] < estimated[1][1] - 0.5 < -0.7
    for q_value, nats in estimated:
        assert q_value == pytest.approx(nats, abs=0.5)


class SquashedWalk(WalkHome):
    """As SB3's policies: bounded by a tanh, which reaches the bounds in float32."""

    def distribution(self, obs):
        return TanhNormal(-9 * obs, th.ones(len(obs), 2))

    def step(self, obs, state, episode_start, deterministic=False):
        return step_from(self.distribution(obs), deterministic)


@pytest.mark.usefixtures("quick_fit")
def test_densities_at_the_edge_of_the_action_space_stay_finite():
    model = small_model(reach(n_envs=2), SquashedWalk(), bc_deterministic=False, bc_temperature=0.1)
    model.learn(60)
    assert model.has_started
    assert (model.replay_buffer.actions == 1).any()
    batch = model._sample_batch(64)._replace(actions=th.ones(64, 2))
    with th.no_grad():
        actions, advantage = model._other_actions(batch, batch.observations)
        assert th.isfinite(advantage).all()
        assert (actions.abs() < 1).all()
        assert th.isfinite(model.critic(batch.observations, actions)).all()
