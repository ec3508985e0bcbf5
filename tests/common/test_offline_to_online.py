"""The update loop against closed forms, an independent implementation, and SB3's own SAC."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.logger import configure
from test_critics import separate_mlp
from torch import nn
from worlds import random_batch, reach, small_model

from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC


class Ring(gym.Env):
    """Never stepped: it only lends its spaces. Four places in a ring, one-hot."""

    observation_space = spaces.Box(0, 1, (4,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)


class FixedPolicy(OfflineToOnlineSAC):
    """Learns the values of the policy that always answers 0.5."""

    def _next_actions(self, batch):
        return th.full_like(batch.actions, 0.5), th.zeros(len(batch.actions))


@pytest.mark.parametrize("ends_at_last_place", [False, True])
def test_chain_with_exact_q(ends_at_last_place):
    """
    r = place - a^2, and one place on, for ever. Every fifth step the clock cuts the episode: values must look through
    that. In the other half of the test leaving the last place is a real end, and values must not look beyond it.
    """
    gamma = 0.8
    policy_kwargs = {"net_arch": [64], "n_critics": 2}
    model = FixedPolicy(Ring(), gamma=gamma, learning_rate=3e-3, tau=0.05, policy_kwargs=policy_kwargs, device="cpu")
    model.set_logger(configure(None, []))
    rng = np.random.default_rng(0)
    place = 0
    for t in range(1200):
        action = rng.uniform(-1, 1, (1, 1)).astype(np.float32)
        reward = place - action[0] ** 2
        terminal = ends_at_last_place and place == 3
        timeout = t % 5 == 4 and not terminal
        obs, next_obs = np.eye(4, dtype=np.float32)[[place, (place + 1) % 4]]
        done = np.array([terminal or timeout])
        model.replay_buffer.add(obs[None], next_obs[None], action, reward, done, [{"TimeLimit.truncated": timeout}])
        place = (place + 1) % 4
    model.train(1000, 64)

    # V = R + gamma P V for the policy a = 0.5
    moves = np.roll(np.eye(4), 1, axis=1)
    if ends_at_last_place:
        moves[3] = 0
    rewards = np.arange(4) - 0.25
    values = np.linalg.solve(np.eye(4) - gamma * moves, rewards)
    for asked in (-0.8, 0.0, 0.5):
        exact = np.arange(4) - asked**2 + gamma * moves @ values
        with th.no_grad():
            q_values = model.critic(th.eye(4), th.full((4, 1), asked))
        np.testing.assert_allclose(q_values, np.stack([exact, exact]), atol=0.25)
    # Far apart from the values that a time limit mistaken for an end would give (and those of the other half)
    assert values.min() > 4.5 if not ends_at_last_place else values.max() < 4.0


class Reference:
    """The whole update, written down again: separate torch modules, torch.autograd, plain Adam."""

    def __init__(self, model):
        self.model = model
        n = model.critic.n_critics
        self.critics = [separate_mlp(model.critic.q_networks, k) for k in range(n)]
        self.targets = [separate_mlp(model.critic_target.q_networks, k) for k in range(n)]
        hidden, *_ = [m for m in model.actor.latent_pi if isinstance(m, nn.Linear)]
        self.hidden, self.mu, self.log_std = (self.twin(x) for x in (hidden, model.actor.mu, model.actor.log_std))
        self.actor_parameters = [p for layer in (self.hidden, self.mu, self.log_std) for p in layer.parameters()]
        self.critic_adam = th.optim.Adam([p for critic in self.critics for p in critic.parameters()], lr=1e-2)
        self.actor_adam = th.optim.Adam(self.actor_parameters, lr=2e-2)
        extractor = model.critic.features_extractor
        self.mean, self.std = extractor.mean_obs.clone(), extractor.std_obs.clone()
        self.q_mean, self.q_std = float(model.critic.q_mean), float(model.critic.q_std)

    @staticmethod
    def twin(linear):
        copy = nn.Linear(linear.in_features, linear.out_features)
        copy.load_state_dict(linear.state_dict())
        return copy

    def features(self, obs):
        return (obs - self.mean) / self.std

    def q_values(self, nets, obs, actions):
        x = th.cat([self.features(obs), actions], dim=1)
        return th.stack([net(x).squeeze(1) * self.q_std + self.q_mean for net in nets])

    def pi(self, obs):
        h = th.relu(self.hidden(self.features(obs)))
        return self.mu(h), self.log_std(h).exp()

    @staticmethod
    def squashed_log_prob(mean, std, gaussian, actions):
        normal = -0.5 * ((gaussian - mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)
        return (normal - (1 - actions**2 + 1e-6).log()).sum(dim=1)

    def sample(self, obs):
        mean, std = self.pi(obs)
        gaussian = mean + std * th.randn(mean.shape)
        return gaussian.tanh(), self.squashed_log_prob(mean, std, gaussian, gaussian.tanh())

    def update(self, batch, n_critic_steps, weight, ent_coef, n_target_critics):
        size = len(batch.actions) // n_critic_steps
        for k in range(n_critic_steps):
            part = slice(k * size, (k + 1) * size)
            with th.no_grad():
                actions, log_prob = self.sample(batch.next_observations[part])
                members = th.randperm(len(self.targets))[:n_target_critics].tolist()
                nets = [self.targets[i] for i in members]
                next_q = self.q_values(nets, batch.next_observations[part], actions).min(dim=0).values
                target = next_q - ent_coef * log_prob
                target = batch.rewards[part, 0] + self.model.gamma * (1 - batch.dones[part, 0]) * target
            q = self.q_values(self.critics, batch.observations[part], batch.actions[part])
            self.critic_adam.zero_grad()
            sum(((q_i - target) ** 2).mean() for q_i in q).backward()
            self.critic_adam.step()
            for online, behind in zip(self.critics, self.targets, strict=True):
                for p, t in zip(online.parameters(), behind.parameters(), strict=True):
                    t.data = (1 - self.model.tau) * t.data + self.model.tau * p.data
        actions, log_prob = self.sample(batch.observations)
        q = self.q_values(self.critics, batch.observations, actions).min(dim=0).values
        mean, std = self.pi(batch.observations)
        bc_actions = batch.bc_actions.clamp(-0.99, 0.99)
        nll = -self.squashed_log_prob(mean, std, th.atanh(bc_actions), bc_actions).mean()
        loss = (1 - weight) * (ent_coef * log_prob - q).mean() + weight * nll
        self.actor_adam.zero_grad()
        loss.backward()
        self.actor_adam.step()


@pytest.mark.parametrize("ent_coef", [0.0, 0.3])
@pytest.mark.parametrize(("policy_delay", "n_target_critics"), [(1, 1), (1, 2), (4, 1), (4, 2)])
def test_update_against_an_independent_implementation(policy_delay, n_target_critics, ent_coef):
    model = small_model(
        policy_delay=policy_delay, gradient_steps=policy_delay, ent_coef=ent_coef, tau=0.3, bc_loss_weight=0.4,
        learning_rate=1e-2, actor_learning_rate=2e-2, n_target_critics=n_target_critics,
    )  # fmt: skip
    model.set_logger(configure(None, []))
    model.critic.features_extractor.set_statistics(3 + 2 * th.randn(50, 2))
    model.critic.set_scale(th.tensor(-4.0), th.tensor(3.0))
    for target, online in zip(model.critic_target.buffers(), model.critic.buffers(), strict=True):
        target.copy_(online)
    for parameter in model.critic_target.parameters():  # otherwise the first target is the critic itself
        parameter.data += 0.05 * th.randn_like(parameter)
    reference = Reference(model)
    batches = [random_batch(16) for _ in range(3)]
    queue = list(batches)
    model._sample_batch = lambda batch_size: queue.pop(0)

    th.manual_seed(5)
    OfflineToOnlineSAC.train(model, 3 * policy_delay, 16)
    th.manual_seed(5)
    for batch in batches:
        reference.update(batch, policy_delay, 0.4, ent_coef, n_target_critics)

    assert not queue
    for nets, ensemble in ((reference.critics, model.critic), (reference.targets, model.critic_target)):
        for k, net in enumerate(nets):
            learnt = separate_mlp(ensemble.q_networks, k)
            for a, b in zip(learnt.parameters(), net.parameters(), strict=True):
                th.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)
    latent = next(m for m in model.actor.latent_pi if isinstance(m, nn.Linear))
    learnt = [p for layer in (latent, model.actor.mu, model.actor.log_std) for p in layer.parameters()]
    for a, b in zip(learnt, reference.actor_parameters, strict=True):
        th.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("ent_coef", ["auto", "auto_0.5", 0.2])
def test_with_sacs_options_it_is_sac(monkeypatch, ent_coef):
    """Two critics, both in the target, no LayerNorm: the same parameters as SB3's SAC after a few updates."""
    # SB3 draws its noise in another order. Without noise the order cannot matter
    monkeypatch.setattr(th.distributions.Normal, "rsample", lambda self, sample_shape=(): self.loc)
    common = {
        "ent_coef": ent_coef,
        "gamma": 0.9,
        "tau": 0.2,
        "batch_size": 16,
        "seed": 0,
        "device": "cpu",
        "learning_rate": 1e-2,
    }
    policy_kwargs = {"net_arch": [16], "n_critics": 2}
    sac = SAC("MlpPolicy", reach(), policy_kwargs=policy_kwargs, **common)
    ours = OfflineToOnlineSAC(reach(), policy_kwargs={**policy_kwargs, "layer_norm": False}, **common)
    for theirs, own in ((sac.critic, ours.critic), (sac.critic_target, ours.critic_target)):
        layers: list[Any] = [*own.q_networks.hidden, own.q_networks.output]
        for k, q_net in enumerate(theirs.q_networks):
            linears = [m for m in q_net.modules() if isinstance(m, nn.Linear)]
            for linear, layer in zip(linears, layers, strict=True):
                layer.weight.data[k], layer.bias.data[k, 0] = linear.weight.data.T, linear.bias.data
    ours.actor.load_state_dict(sac.actor.state_dict(), strict=False)
    batches = [random_batch(16) for _ in range(4)]
    for model, name in ((sac, "sac"), (ours, "ours")):
        model.set_logger(configure(None, []))
        queue = list(batches)
        monkeypatch.setattr(model.replay_buffer, "sample", lambda *_, queue=queue, **__: queue.pop(0))
        model.train(4, 16)
        assert not queue, name
    for k, q_net in enumerate(sac.critic.q_networks):
        twin = separate_mlp(ours.critic.q_networks, k)
        for a, b in zip(twin.parameters(), q_net.parameters(), strict=True):
            th.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    for name, parameter in sac.actor.named_parameters():
        th.testing.assert_close(ours.actor.get_parameter(name), parameter, atol=1e-5, rtol=1e-4)
    if ent_coef != 0.2:
        th.testing.assert_close(ours.log_ent_coef, sac.log_ent_coef)


def test_batch_is_cut_in_disjoint_parts_that_cover_it():
    batch = random_batch(12)._replace(observations={"x": th.arange(12)})
    parts = batch.split(3)
    assert [part.observations["x"].tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    th.testing.assert_close(th.cat([part.actions for part in parts]), batch.actions)
    assert parts[0].mc_returns is None


def test_learning_rates_follow_their_own_schedules():
    model = small_model(learning_rate=lambda progress: 1e-3 * progress, actor_learning_rate=2e-4)
    model.set_logger(configure(None, []))
    model._current_progress_remaining = 0.25
    model._update_learning_rates()
    assert model.critic.optimizer.param_groups[0]["lr"] == pytest.approx(2.5e-4)
    assert model.actor.optimizer.param_groups[0]["lr"] == pytest.approx(2e-4)


def test_the_actor_does_not_shape_the_critics_encoder():
    model = small_model(reach("image"))
    actor_parameters = {id(p) for group in model.actor.optimizer.param_groups for p in group["params"]}
    encoder = list(model.critic.features_extractor.parameters())
    assert encoder
    assert not actor_parameters & {id(p) for p in encoder}
    obs = th.randint(0, 255, (4, 3, 36, 36), dtype=th.uint8)
    model.actor.action_log_prob(obs)[1].sum().backward()
    assert all(parameter.grad is None for parameter in encoder)
