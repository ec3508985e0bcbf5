"""Q-initialisation: what critics and actor know when the gate opens for the first time."""

import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from worlds import CameraReachEnv, NoDensity, TwoWays, WalkHome, camera_gaussian, random_batch, reach, small_model

from sb3_q2rl.bc.distributions import TanhNormal, mode
from sb3_q2rl.bc.memoryless import MemorylessBCPolicy


def learn_and_look(model, n_steps, look):
    """What ``look(rows, columns)`` returns at the end of Q-initialisation, for the transitions of the BC episodes."""
    found = []
    initialise = model._initialise

    def initialise_and_look(rows, columns):
        initialise(rows, columns)
        found.append(look(rows, columns))

    model._initialise = initialise_and_look
    model.learn(n_steps)
    (only,) = found
    return only


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

    def actor_rate():
        return model.actor.optimizer.param_groups[0]["lr"]

    def look(*_):
        assert 0 < actor_rate() < 1e-7  # it was annealed
        buffer = model.replay_buffer
        obs, actions = th.tensor(buffer.observations[:6]).view(-1, 2), th.tensor(buffer.actions[:6]).view(-1, 2)
        targets = th.tensor(buffer.mc_returns)[:6].view(-1)  # at the mode log pi + H is constant: centred, nothing
        with th.no_grad():
            return model.critic(obs, actions).mean(0), targets, model.actor(obs, True), actions

    q_values, targets, rl_actions, bc_actions = learn_and_look(model, 260, look)
    assert actor_rate() == 1e-4
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

    def look(rows, columns):
        estimated = []
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
        return estimated

    estimated = learn_and_look(model, 140, look)
    if type(bc_policy) is NoDensity or bc_policy.is_recurrent:
        assert all(abs(q_value) < 0.5 for q_value, _ in estimated)
        return
    assert estimated[0][1] == pytest.approx(0, abs=1e-3)
    assert estimated[2][1] < estimated[1][1] - 0.5 < -0.7
    for q_value, nats in estimated:
        assert q_value == pytest.approx(nats, abs=0.5)


class SquashedWalk(MemorylessBCPolicy):
    """As SB3's policies: bounded by a tanh, which reaches the bounds in float32."""

    def distribution(self, obs):
        return TanhNormal(-9 * obs, th.ones(len(obs), 2))


@pytest.mark.usefixtures("quick_fit")
def test_densities_at_the_edge_of_the_action_space_stay_finite():
    model = small_model(reach(n_envs=2), SquashedWalk(), bc_deterministic=False, bc_temperature=0.1)
    model.learn(60)
    assert model.has_started
    assert (model.replay_buffer.actions == 1).any()
    batch = model._sample_batch(64)._replace(actions=th.ones(64, 2))
    with th.no_grad():
        actions, advantage = model._other_actions(batch, SquashedWalk().distribution(batch.observations))
        assert th.isfinite(advantage).all()
        assert (actions.abs() < 1).all()
        assert th.isfinite(model.critic(batch.observations, actions)).all()


@pytest.mark.usefixtures("quick_fit")
@pytest.mark.parametrize("bc_policy", [WalkHome(), TwoWays()])
def test_the_clone_goes_the_likeliest_way_and_learns_no_noise_by_heart(bc_policy):
    model = small_model(
        reach(n_envs=4), bc_policy, bc_deterministic=False, n_bc_episodes=4, q_init_steps=1000, batch_size=64,
        learning_rate=3e-3, policy_kwargs={"net_arch": [64, 64]},
    )  # fmt: skip

    def look(rows, columns):
        obs = model.replay_buffer.observations_at(rows, columns)
        with th.no_grad():
            proposed = model.actor(obs, deterministic=True)
        executed = th.as_tensor(model.replay_buffer.bc_actions[rows, columns])
        return [float((proposed - a).square().mean()) for a in (mode(bc_policy.distribution(obs)), executed)]

    to_the_mode, to_what_was_executed = learn_and_look(model, 60, look)
    assert to_the_mode < 0.3 * to_what_was_executed
    assert to_the_mode < 0.02


@pytest.mark.usefixtures("quick_fit")
@pytest.mark.parametrize("bottleneck", [64, 32])
def test_encoders_start_as_the_bc_policys_where_they_have_its_sizes(bottleneck):
    policy = camera_gaussian()
    model = small_model(
        make_vec_env(CameraReachEnv), policy, q_init_steps=0,
        policy_kwargs={"features_extractor_kwargs": {"channels": [16, 32, 32, 32], "bottleneck": bottleneck}},
    )  # fmt: skip
    image = th.rand(1, 3, 36, 36)
    obs = {"camera": image, "state": th.zeros(1, 2)}

    def look(*_):
        with th.no_grad():
            return [net.features_extractor(obs)[:, :bottleneck] for net in (model.critic, model.critic_target)]

    features = learn_and_look(model, 60, look)
    expected = policy.cameras["camera"](image - 0.5)
    assert len(features) == 2
    for seen in features:
        assert (seen.shape == expected.shape and th.allclose(seen, expected)) == (bottleneck == 64)
