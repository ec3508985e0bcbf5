"""CQL's conservative term, Cal-QL's floor, WSRL's warm-up: against closed forms and slow independent computations."""

import dataclasses
import math

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from test_baselines import demonstrations as of_kind
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform
from worlds import reach

from sb3_q2rl import Demonstrations
from sb3_q2rl.baselines.cal_ql import CalQL
from sb3_q2rl.baselines.cql import CQL
from sb3_q2rl.baselines.wsrl import WSRL
from sb3_q2rl.common.checkpoint import CheckpointCallback, latest_checkpoint, resume, save_checkpoint
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

ALL = [CQL, CalQL, WSRL]
MARK = 0.375  # the first coordinate of every demonstrated action: online actions never have exactly this value


def demonstrations(n_episodes=3, length=8):
    generator = np.random.default_rng(0)
    ends = np.arange(1, n_episodes + 1) * length
    n = n_episodes * length
    actions = generator.uniform(-0.9, 0.9, (n, 2)).astype(np.float32)
    actions[:, 0] = MARK
    terminated = np.zeros(n, bool)
    terminated[ends - 1] = True
    return Demonstrations(
        observations=generator.normal(size=(n, 2)).astype(np.float32),
        next_observations=generator.normal(size=(n, 2)).astype(np.float32),
        actions=actions,
        rewards=generator.uniform(-1, 0, n).astype(np.float32),
        terminated=terminated,
        truncated=np.zeros(n, bool),
        episode_ends=ends,
    )


def small(algorithm, env=None, **kwargs):
    kwargs = {"demonstrations": demonstrations(), "batch_size": 16, "buffer_size": 500, "pretrain_steps": 5, **kwargs}
    kwargs = {**({"warmup_steps": 20} if algorithm is WSRL else {"learning_starts": 10}), **kwargs}
    sizes = {"net_arch": [16], "n_critics": 3, **kwargs.pop("policy_kwargs", {})}
    env = reach() if env is None else env
    return algorithm(env, seed=0, device="cpu", policy_kwargs=sizes, **kwargs)


def offline_batch(model, size=6):
    return model.replay_buffer.sample_mixed(size, 1.0)


def from_demonstrations(batch):
    return batch.actions[:, 0] == MARK


def parameters(model):
    return th.cat([value.flatten() for value in model.policy.state_dict().values() if isinstance(value, th.Tensor)])


def policy_distribution(model, obs):
    """pi(.|obs) for one observation, built from the actor's weights by torch alone."""
    mean, log_std, _ = model.actor.get_action_dist_params(obs.unsqueeze(0))
    gaussian = Independent(Normal(mean[0], log_std[0].exp()), 1)
    return TransformedDistribution(gaussian, TanhTransform(cache_size=1))


# ---------------------------------------------------------------------- the conservative term


def test_proposals_have_the_densities_that_torch_gives_them():
    model = small(CQL, n_action_samples=4)
    batch = offline_batch(model)
    with th.no_grad():
        actions, log_density = model._proposals(batch)
        assert actions.shape == (6, 12, 2)
        th.testing.assert_close(log_density[:, :4], th.full((6, 4), math.log(0.5**2)))
        for i in range(6):
            for first, obs in ((4, batch.observations[i]), (8, batch.next_observations[i])):
                ours = slice(first, first + 4)
                expected = policy_distribution(model, obs).log_prob(actions[i, ours])
                th.testing.assert_close(log_density[i, ours], expected, rtol=1e-3, atol=1e-3)
    assert len(actions.flatten(0, 1).unique(dim=0)) == 72


def slow_gap(model, batch, actions, floor=None):
    """One transition, one critic, one action after the other."""
    n = model.n_action_samples
    gaps = th.zeros(model.critic.n_critics, len(batch.actions))
    for member in range(model.critic.n_critics):
        for i, obs in enumerate(batch.observations):

            def q(action, obs=obs, member=member):
                return model.critic(obs.unsqueeze(0), action.unsqueeze(0), th.tensor([member]))[0, 0]

            total = th.zeros(())
            for j, action in enumerate(actions[i]):
                following = batch.next_observations[i] if j >= 2 * n else obs
                density = th.tensor(0.25) if j < n else policy_distribution(model, following).log_prob(action).exp()
                value = q(action)
                if floor is not None and j >= n:
                    value = max(value, floor[i])
                total = total + value.exp() / density
            gaps[member, i] = th.log(total / (3 * n)) - q(batch.actions[i])
    return gaps


@pytest.mark.parametrize("floor", [None, 0.1])
def test_the_gap_equals_a_slow_computation(floor):
    model = small(CQL if floor is None else CalQL, n_action_samples=3)
    batch = offline_batch(model)
    floors = None if floor is None else th.linspace(-floor, floor, 6)
    if floors is not None:
        batch = batch._replace(mc_returns=floors)
    th.manual_seed(3)
    with th.no_grad():
        actions, _ = model._proposals(batch)
        th.manual_seed(3)
        gap = model._conservative_gap(batch)
        th.testing.assert_close(gap, slow_gap(model, batch, actions, floors), rtol=1e-3, atol=1e-3)


def test_the_loss_is_the_td_error_and_the_weighted_gap():
    model = small(CQL, cql_alpha=3.0)
    batch = offline_batch(model)

    def loss_of(function):
        th.manual_seed(5)
        return function(batch)

    th.manual_seed(5)
    gap = model._conservative_gap(batch).mean(dim=1).sum()
    td_error = OfflineToOnlineSAC._critic_loss(model, batch)  # the same generator goes on: the gap is drawn first
    th.testing.assert_close(loss_of(model._critic_loss), td_error + 3 * gap)
    # With weight 0 only the TD error is left, and with the gradient of the gap Q(data) rises over Q(elsewhere)
    model.cql_alpha = 0.0
    th.testing.assert_close(loss_of(model._critic_loss), td_error)


def test_a_constant_q_function_leaves_the_log_of_the_volume():
    model = small(CQL, n_action_samples=20_000)
    batch = offline_batch(model, 2)
    with th.no_grad():
        model.critic.q_networks.output.weight.zero_()
        model.critic.q_networks.output.bias.fill_(7.0)
        gap = model._conservative_gap(batch)
        actions, log_density = model._proposals(batch)
    # log of the integral of exp(7) over [-1, 1]^2, less 7; the importance weights of pi are noisy in the corners
    th.testing.assert_close(gap, th.full_like(gap, math.log(4)), atol=0.15, rtol=0)
    # and the inverse density alone, of each of the three kinds
    for kind in log_density.split(20_000, dim=1):
        assert abs((-kind).exp().mean().item() - 4) < 0.8
    assert actions.abs().max() <= 1


def test_the_gradient_raises_the_data_over_other_actions():
    model = small(CQL, policy_kwargs={"layer_norm": False})
    batch = offline_batch(model, 16)
    optimizer = th.optim.Adam(model.critic.parameters(), lr=1e-2)
    gaps = []
    for _ in range(200):
        gap = model._conservative_gap(batch).mean()
        optimizer.zero_grad()
        gap.backward()
        optimizer.step()
        gaps.append(gap.item())
    assert gaps[-1] < gaps[0] - 1
    assert all(parameter.grad is None for parameter in model.actor.mu.parameters())


# ---------------------------------------------------------------------- the TD target


@pytest.mark.parametrize("max_target_backup", [False, True])
def test_td_target_without_entropy(max_target_backup):
    model = small(
        CQL, ent_coef=5.0, gamma=0.9, max_target_backup=max_target_backup, n_action_samples=7, n_target_critics=3
    )
    batch = offline_batch(model)
    th.manual_seed(2)
    if max_target_backup:
        several, _ = model._policy_samples(batch.next_observations)
        q = th.stack([model.critic_target(batch.next_observations, several[:, k]).amin(dim=0) for k in range(7)])
        next_q = q.amax(dim=0)
    else:
        actions, _ = model.actor.action_log_prob(batch.next_observations)
        next_q = model.critic_target(batch.next_observations, actions).amin(dim=0)
    expected = batch.rewards[:, 0] + 0.9 * (1 - batch.dones[:, 0]) * next_q
    th.manual_seed(2)
    th.testing.assert_close(model._td_target(batch), expected.detach())


# ---------------------------------------------------------------------- Cal-QL's floor


def twin_gaps(mc_returns):
    cql, cal_ql = small(CQL), small(CalQL)
    cal_ql.policy.load_state_dict(cql.policy.state_dict())
    batch = offline_batch(cql)._replace(mc_returns=th.full((6,), mc_returns))
    gaps = []
    for model in (cql, cal_ql):
        th.manual_seed(1)
        gaps.append(model._conservative_gap(batch))
    return cql, batch, *gaps


@pytest.mark.parametrize("nothing", [-math.inf, math.nan])
def test_without_a_floor_it_is_cql(nothing):
    _, _, of_cql, of_cal_ql = twin_gaps(nothing)
    th.testing.assert_close(of_cal_ql, of_cql, rtol=0, atol=0)


def test_under_a_high_floor_the_policy_actions_count_as_the_returns():
    model, batch, _, gap = twin_gaps(50.0)
    th.manual_seed(1)
    actions, log_density = model._proposals(batch)
    n = model.n_action_samples
    q_uniform = th.stack([model.critic(batch.observations, actions[:, k]) for k in range(n)], dim=2)
    values = th.cat([q_uniform, th.full((3, 6, 2 * n), 50.0)], dim=2) - log_density
    q_data = model.critic(batch.observations, batch.actions)
    th.testing.assert_close(gap, values.logsumexp(dim=2) - math.log(3 * n) - q_data, rtol=1e-4, atol=1e-4)


def test_an_infinite_floor_replaces_every_policy_value():
    model = small(CalQL)
    batch = offline_batch(model)._replace(mc_returns=th.full((6,), math.inf))
    q_values = th.randn(3, 6, 30)
    calibrated = model._calibrated(q_values, batch)
    assert calibrated[:, :, 10:].isinf().all()
    th.testing.assert_close(calibrated[:, :, :10], q_values[:, :, :10])


def test_no_gradient_below_the_floor():
    model = small(CalQL)
    batch = offline_batch(model)._replace(mc_returns=th.zeros(6))
    q_values = th.cat([th.full((1, 6, 20), -1.0), th.full((1, 6, 10), 1.0)], dim=2).requires_grad_()
    model._calibrated(q_values, batch).sum().backward()
    # 10 uniform ones, not calibrated; 10 of the policy below the floor; 10 above it
    expected = th.cat([th.ones(10), th.zeros(10), th.ones(10)]).expand(1, 6, 30)
    th.testing.assert_close(q_values.grad, expected)


# ---------------------------------------------------------------------- the offline phase, and mixed batches


class Values(KVWriter):
    def __init__(self):
        self.written = []

    def write(self, key_values, key_excluded, step=0):
        self.written.append(dict(key_values))

    def close(self):
        pass


@pytest.mark.parametrize("algorithm", ALL)
def test_pretrain_learns_from_demonstrations_alone_and_logs(algorithm):
    model = small(algorithm, demonstrations=None)
    writer = Values()
    model.set_logger(Logger(None, [writer]))
    seen = []
    loss = model._critic_loss
    model._critic_loss = lambda batch: seen.append(batch) or loss(batch)
    before = parameters(model)
    assert model.pretrain(demonstrations(), steps=6, log_interval=4) is model
    assert model.is_pretrained
    assert model.num_timesteps == 0
    assert len(seen) == model._n_updates == 6
    assert all(from_demonstrations(batch).all() for batch in seen)
    assert not th.equal(parameters(model), before)
    assert [values["pretrain/steps"] for values in writer.written] == [4, 6]
    assert all(np.isfinite(values["train/conservative_gap"]) for values in writer.written)


def test_a_normalizer_takes_its_scale_from_the_offline_data():
    env = VecNormalize(reach(n_envs=2), norm_reward=False)
    model = small(CQL, env, demonstrations=demonstrations(n_episodes=40))
    seen = []
    loss = model._critic_loss
    model._critic_loss = lambda batch: seen.append(batch) or loss(batch)
    model.pretrain()
    observations = demonstrations(n_episodes=40).observations
    np.testing.assert_allclose(env.obs_rms.mean, observations.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(env.obs_rms.var, observations.var(axis=0), rtol=1e-4)
    batch = seen[0]
    row = np.flatnonzero((demonstrations(40).actions == batch.actions[0].numpy()).all(axis=1))[0]
    expected = (observations[row] - observations.mean(axis=0)) / observations.std(axis=0)
    np.testing.assert_allclose(batch.observations[0], expected, atol=1e-3)


@pytest.mark.parametrize("algorithm", [CQL, CalQL])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_online_batches_are_mixed(algorithm, n_envs):
    model = small(algorithm, reach(n_envs=n_envs), offline_ratio=0.25, gradient_steps=2, policy_delay=2)
    model.learn(40 * n_envs)
    assert model.is_pretrained
    assert model.num_timesteps == 40 * n_envs
    assert th.isfinite(parameters(model)).all()
    batch = model._sample_batch(16)
    assert from_demonstrations(batch).sum() == 4
    assert [from_demonstrations(minibatch).sum() for minibatch in batch.split(2)] == [2, 2]


def test_rows_of_a_mixed_batch_belong_together():
    model = small(CQL)
    model.learn(20)
    expected = demonstrations()
    batch = model._sample_batch(16)
    for row in from_demonstrations(batch).nonzero()[:, 0].tolist():
        there = int(np.flatnonzero((expected.actions == batch.actions[row].numpy()).all(axis=1))[0])
        np.testing.assert_array_equal(batch.observations[row], expected.observations[there])
        np.testing.assert_array_equal(batch.next_observations[row], expected.next_observations[there])
        assert batch.rewards[row].item() == expected.rewards[there]
        assert batch.dones[row].item() == expected.terminated[there]


@pytest.mark.parametrize("algorithm", ALL)
def test_saved_and_resumed(tmp_path, algorithm):
    model = small(algorithm)
    model.pretrain()
    model.learn(30)
    save_checkpoint(model, tmp_path)
    loaded = resume(algorithm, tmp_path, reach(), device="cpu")
    assert loaded.is_pretrained
    assert (loaded.replay_buffer.offline is None) == (algorithm is WSRL)
    n_updates = model._n_updates
    for each in (model, loaded):
        each.set_random_seed(4)
        each.get_env().seed(4)
        each._last_obs = None
        each.learn(20, reset_num_timesteps=False)
    assert loaded._n_updates == model._n_updates > n_updates  # and no second offline phase
    th.testing.assert_close(parameters(loaded), parameters(model))


def test_pretrain_takes_images_as_they_were_recorded():
    recorded = of_kind("image", 3)
    recorded = dataclasses.replace(
        recorded,
        observations=np.moveaxis(recorded.observations, 1, -1),
        next_observations=np.moveaxis(recorded.next_observations, 1, -1),
    )
    model = small(CQL, reach("image"), demonstrations=None)
    model.pretrain(recorded, steps=2)
    expected = small(CQL, reach("image"), demonstrations=of_kind("image", 3))
    np.testing.assert_array_equal(model.replay_buffer.offline.observations, expected.replay_buffer.offline.observations)


class Stop(BaseException):
    """As Ctrl-C."""


def test_stopped_anywhere_it_goes_on_in_the_same_model():
    model = small(CQL, VecNormalize(reach(), norm_reward=False), pretrain_steps=3)
    loss, n_left = model._actor_loss, iter([False, False, False, False, True])

    def interrupted(batch):
        if next(n_left, False):
            raise Stop
        return loss(batch)

    model._actor_loss = interrupted
    with pytest.raises(Stop):
        model.pretrain(steps=10)
    seen = model._vec_normalize_env.obs_rms.count
    model.learn(1)  # goes on to the ten steps that were asked for
    assert model.is_pretrained
    assert model._n_updates == 10
    assert model._vec_normalize_env.obs_rms.count <= seen + 3, "the demonstrations were shown again"


def test_a_directory_in_use_is_refused_before_the_offline_phase(tmp_path):
    other = small(CQL, pretrain_steps=0)
    other.learn(40)
    save_checkpoint(other, tmp_path)
    model = small(CQL)
    with pytest.raises(ValueError, match="holds step_000000040 of another run"):
        model.learn(10, CheckpointCallback(tmp_path))
    assert model._n_updates == 0


@pytest.mark.parametrize("algorithm", ALL)
def test_an_interrupted_offline_phase_goes_on_where_it_was(tmp_path, algorithm):
    def start():
        return small(algorithm, pretrain_steps=10, gradient_steps=2, policy_delay=2)

    def stop(step):
        if step == 8:
            raise Stop

    whole = start().learn(1)
    stopped = start()  # which seeds torch and numpy again
    train = stopped.train
    stopped.train = lambda *args: stop(stopped._n_updates) or train(*args)
    with pytest.raises(Stop):
        stopped.learn(1, [CheckpointCallback(tmp_path, save_freq=3)])
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step_000000000_offline_000000003",
        "step_000000000_offline_000000006",
    ]
    loaded = resume(algorithm, tmp_path, reach(), device="cpu")
    assert not loaded.is_pretrained
    assert loaded._n_updates == 6
    assert loaded.policy_delay == 2
    loaded.learn(1, CallbackList([CheckpointCallback(tmp_path, save_freq=3)]))
    assert loaded._n_updates == whole._n_updates
    th.testing.assert_close(parameters(loaded), parameters(whole), rtol=0, atol=0)
    pretrained = resume(algorithm, tmp_path, reach(), device="cpu")
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == ["step_000000000_offline_000000010", "step_000000001"]  # and the newest when learn() ended
    assert latest_checkpoint(tmp_path).name == "step_000000001"
    assert pretrained.is_pretrained
    assert pretrained._n_updates == 10
    pretrained.pretrain(demonstrations(), steps=4)  # another phase, from its first step
    assert pretrained._n_updates == 14


# ---------------------------------------------------------------------- WSRL


class Watch(BaseCallback):
    """The parameters at every step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def _on_step(self):
        self.seen.append((parameters(self.model), self.model._n_updates))
        return True


@pytest.mark.parametrize("n_envs", [1, 2])
def test_the_frozen_policy_acts_until_the_warmup_ends(n_envs):
    model = small(WSRL, reach(n_envs=n_envs), warmup_steps=30)
    model.pretrain(steps=8)
    pretrained = parameters(model)
    watch = Watch()
    sampled = []
    sample = model._sample_batch
    model._sample_batch = lambda size: sampled.append((model.num_timesteps, sample(size))) or sampled[-1][1]
    model.learn(30, watch)
    # The update of the step that ends the warm-up comes after its callback
    assert all(th.equal(seen, pretrained) and n_updates == 8 for seen, n_updates in watch.seen)
    assert [step for step, _ in sampled] == [30]
    assert not model.is_warming_up
    model.learn(4 * n_envs)  # counting anew; no second warm-up
    assert len(sampled) > 1
    assert not th.equal(parameters(model), pretrained)
    assert not any(from_demonstrations(batch).any() for _, batch in sampled)
    assert model.replay_buffer.offline is None


def test_warmup_actions_are_samples_of_the_pretrained_actor():
    model = small(WSRL, warmup_steps=10)
    model.pretrain()
    obs = np.array([[0.5, -0.5]], np.float32)
    model._last_obs, model._last_episode_starts = obs, np.array([True])
    th.manual_seed(9)
    _, scaled = model._sample_action(learning_starts=100)
    th.manual_seed(9)
    with th.no_grad():
        expected = model.actor(th.as_tensor(obs), deterministic=False)
    np.testing.assert_allclose(scaled, expected.numpy(), atol=1e-6)


def test_a_warmup_that_was_interrupted_goes_on_where_it_was(tmp_path):
    model = small(WSRL, warmup_steps=30)
    model.learn(20)
    n_updates = model._n_updates
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = WSRL.load(tmp_path / "model", env=reach(), device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.learn(9)
    assert loaded.is_warming_up
    assert loaded._n_updates == n_updates
    loaded.learn(11)
    assert loaded._n_updates > n_updates


def test_offline_losses_of_wsrl():
    gaps = {}
    for loss in ("cal_ql", "cql", "td"):
        model = small(WSRL, offline_loss=loss)
        batch = offline_batch(model)._replace(mc_returns=th.full((6,), 30.0))
        model._is_pretraining = True
        th.manual_seed(1)
        gaps[loss] = model._critic_loss(batch).item()
        model._is_pretraining = False
        th.manual_seed(1)
        online = model._critic_loss(batch)
        th.manual_seed(1)
        # Online it is the TD error of SAC with one action and no entropy, whatever the offline phase was
        with th.no_grad():
            actions, _ = model.actor.action_log_prob(batch.next_observations)
            drawn = th.randperm(3)[:2]
            next_q = model.critic_target(batch.next_observations, actions)[drawn].min(dim=0).values
            target = batch.rewards[:, 0] + 0.99 * (1 - batch.dones[:, 0]) * next_q
        expected = sum(((q - target) ** 2).mean() for q in model.critic(batch.observations, batch.actions))
        th.testing.assert_close(online, expected)
    assert gaps["cal_ql"] > gaps["cql"] + 10  # the floor of 30 in the logsumexp
    assert gaps["cql"] > gaps["td"]


# ---------------------------------------------------------------------- what can be wrong


@pytest.mark.parametrize(
    ("algorithm", "options", "message"),
    [
        (CQL, {"n_action_samples": 0}, "`n_action_samples` is 0"),
        (CQL, {"cql_alpha": -1.0}, "`cql_alpha` is -1.0"),
        (CQL, {"offline_ratio": 1.5}, "`offline_ratio` is 1.5"),
        (CQL, {"pretrain_steps": -1}, "`pretrain_steps` is -1"),
        (CQL, {"replay_buffer_class": HerReplayBuffer}, "`replay_buffer_class`=HerReplayBuffer"),
        (WSRL, {"warmup_steps": -1}, "`warmup_steps` is -1"),
        (WSRL, {"offline_loss": "iql"}, "`offline_loss` is 'iql'"),
    ],
)
def test_errors_teach(algorithm, options, message):
    with pytest.raises(ValueError, match=message):
        small(algorithm, **options)


def test_pretrain_errors_teach():
    model = small(CQL, demonstrations=None)
    with pytest.raises(ValueError, match="`demonstrations` are missing"):
        model.pretrain()
    with pytest.raises(ValueError, match="`steps` is 0"):
        model.pretrain(demonstrations(), steps=0)
    model = small(CQL, demonstrations=None, pretrain_steps=0)
    with pytest.warns(UserWarning, match="no demonstrations for `offline_ratio`=0.5"):
        model.learn(12)


def test_without_its_buffer_a_loaded_wsrl_warms_up_again(tmp_path):
    model = small(WSRL, warmup_steps=20)
    model.learn(40)
    model.save(tmp_path / "model")
    loaded = WSRL.load(tmp_path / "model", env=reach(), device="cpu")
    n_updates = loaded._n_updates
    loaded.learn(19, reset_num_timesteps=False)
    assert loaded._n_updates == n_updates
    loaded.learn(11, reset_num_timesteps=False)
    assert loaded._n_updates > n_updates


def test_wsrl_from_a_clone():
    model = small(
        WSRL, offline_loss="bc", pretrain_steps=300, policy_kwargs={"net_arch": [32]}, actor_learning_rate=1e-2
    )
    batch = offline_batch(model)
    model._is_pretraining = True
    loss = model._actor_loss(batch)
    rows = zip(batch.observations, batch.actions, strict=True)
    by_hand = [policy_distribution(model, obs).log_prob(action) for obs, action in rows]
    th.testing.assert_close(loss, -th.stack(by_hand).mean(), rtol=1e-4, atol=1e-4)
    # The critics learn what the clone is worth: one action of its own follows, not the best of several
    th.manual_seed(5)
    actions, _ = model._next_actions(batch)
    th.manual_seed(5)
    th.testing.assert_close(actions, model.actor.action_log_prob(batch.next_observations)[0])
    model._is_pretraining = False
    model.pretrain()
    # All demonstrations begin with MARK
    played, _ = model.predict(demonstrations().observations, deterministic=True)
    assert np.abs(model.policy.scale_action(played)[:, 0] - MARK).mean() < 0.1


def test_the_entropy_coefficient_learns_at_the_actors_rate():
    model = small(CQL, learning_rate=3e-4, actor_learning_rate=1e-5)
    model.pretrain()
    rates = [one.param_groups[0]["lr"] for one in (model.critic.optimizer, model.actor.optimizer)]
    assert rates == [3e-4, 1e-5]
    assert model.ent_coef_optimizer.param_groups[0]["lr"] == 1e-5


def test_offline_batches_have_a_size_of_their_own():
    model = small(WSRL, pretrain_batch_size=7)
    seen = []
    loss = model._critic_loss
    model._critic_loss = lambda batch: seen.append(len(batch.actions)) or loss(batch)
    model.pretrain()
    assert seen == [7] * 5
    with pytest.raises(ValueError, match="`pretrain_batch_size` is 0"):
        small(WSRL, pretrain_batch_size=0)
