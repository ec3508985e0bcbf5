"""IBRL: who is chosen, what the TD target bootstraps on, and what the BC policy's memory does in both."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from test_baselines import demonstrations, ibrl
from torch import nn
from worlds import WalkHome, gaussian, reach

from sb3_q2rl import BCStep
from sb3_q2rl.baselines import IBRL
from sb3_q2rl.baselines.ibrl import rl_is_chosen


class Counter(WalkHome):
    """Its action tells how many steps of the episode it has seen: (0.01 t, -0.01 t)."""

    def __init__(self) -> None:
        super().__init__(is_recurrent=True)

    def step(self, obs: Any, state: Any, episode_start: Any, deterministic: bool = False) -> BCStep:
        step = super().step(obs, state, episode_start, deterministic)
        count = 0.01 * step.state.unsqueeze(1)
        return step._replace(actions=th.cat([count, -count], dim=1))


def constant_critics(model: Any, better: str) -> None:
    """Q(s, a) = a[0], or -a[0], whatever the state: who of two is better is plain."""

    def forward(obs: Any, actions: th.Tensor, members: Any = None) -> th.Tensor:
        n = model.critic.n_critics if members is None else len(members)
        return (actions[:, 0] if better == "larger" else -actions[:, 0]).expand(n, -1)

    model.critic_target.forward = forward


# ---------------------------------------------------------------- the choice


def test_the_higher_value_is_chosen_and_ties_go_to_bc():
    q_rl, q_bc = th.tensor([1.0, 0.0, 0.5]), th.tensor([0.0, 1.0, 0.5])
    assert rl_is_chosen(q_rl, q_bc).tolist() == [True, False, False]


def test_the_soft_choice_is_one_softmax():
    th.manual_seed(0)
    beta, q = 10.0, th.tensor([0.1, 0.0])
    drawn = rl_is_chosen(q[0].expand(200_000), q[1].expand(200_000), beta).float().mean()
    once = th.softmax(beta * q, dim=0)[0]
    twice = th.softmax(th.softmax(beta * q, dim=0), dim=0)[0]
    assert abs(drawn - once) < 0.005
    assert abs(drawn - twice) > 0.05


@pytest.mark.parametrize("better", ["larger", "smaller"])
def test_the_better_proposal_acts(better):
    model = ibrl(reach(n_envs=2))
    model.learn(60)
    constant_critics(model, better)
    decision = model.decide(np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32), deterministic=True)
    rl, bc = decision.rl[:, 0], decision.bc.actions[:, 0]
    assert 0 < (rl > bc).sum() < 50 or not th.equal(rl, bc)
    th.testing.assert_close(decision.actions[:, 0], th.maximum(rl, bc) if better == "larger" else th.minimum(rl, bc))


def test_evaluation_does_not_choose_softly():
    model = ibrl(reach(n_envs=2), softmax_beta=0.001)
    model.learn(60)
    obs = np.zeros((200, 2), np.float32)
    assert len(set(model.decide(obs, deterministic=True).rl_acts.tolist())) == 1
    assert len(set(model.decide(obs, deterministic=False).rl_acts.tolist())) == 2


# ---------------------------------------------------------------- warm-up


def test_bc_plays_whole_episodes_first():
    model = ibrl(reach(n_envs=3), n_bc_episodes=6)
    finished = []  # episodes until each update
    learn = model._critic_loss
    model._critic_loss = lambda batch: finished.append(model.replay_buffer.n_bc_episodes) or learn(batch)
    model.learn(150)
    assert model.has_started
    # Three environments end their second episode at the same step or nearly so
    assert 6 <= finished[0] <= 8
    first = int(model.num_timesteps / 3) - len(finished)
    buffer = model.replay_buffer
    np.testing.assert_allclose(buffer.actions[:first], buffer.bc_actions[:first], atol=1e-6)
    assert (buffer.actions[first + 1 :] != buffer.bc_actions[first + 1 :]).any()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_bc_episodes", -1),
        ("exploration_std", -0.1),
        ("noise_clip", -0.3),
        ("softmax_beta", 0.0),
        ("softmax_beta", -1),
    ],
)
def test_numbers_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=f"`{name}` is {value}"):
        ibrl(reach(), **{name: value})


def test_a_loaded_model_without_its_buffer_does_not_warm_up_again(tmp_path):
    model = ibrl(reach())
    model.learn(60)
    model.save(tmp_path / "model")
    assert IBRL.load(tmp_path / "model", device="cpu").has_started


def test_no_warm_up():
    model = ibrl(reach(), n_bc_episodes=0, demonstrations=demonstrations())
    model.learn(20)
    assert model._n_updates == 20


# ---------------------------------------------------------------- bootstrapping


def target_by_hand(model: Any, batch: Any, next_bc: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """(y if RL acts next, y if BC acts next) with Q(s, a) = a[0]."""
    with th.no_grad():
        rl = model._with_noise(model.policy.actor_target(batch.next_observations, deterministic=True))
    y = [batch.rewards[:, 0] + batch.discounts[:, 0] * (1 - batch.dones[:, 0]) * a[:, 0] for a in (rl, next_bc)]
    return y[0], y[1]


@pytest.mark.parametrize("normalize", [False, True])
def test_td_target_takes_the_better_of_both(normalize):
    """A memoryless policy: its action at s' is known everywhere, time limits and the newest step included."""
    bc = WalkHome()
    env: Any = reach(n_envs=3)
    model = ibrl(VecNormalize(env, norm_reward=False) if normalize else env, bc_policy=bc, demonstrations=None)
    model.learn(150)
    constant_critics(model, "larger")
    th.manual_seed(1)
    batch = model._sample_batch(300)
    assert batch.next_bc_actions is not None
    assert batch.next_bc_actions[batch.dones[:, 0] == 0].isnan().any(), "no time limit in this batch"
    raw = model._unnormalized(batch.next_observations)
    next_bc = bc.distribution(raw).mean.clamp(-1, 1)
    th.manual_seed(2)
    y_rl, y_bc = target_by_hand(model, batch, next_bc)
    th.manual_seed(2)
    th.testing.assert_close(model._td_target(batch), th.maximum(y_rl, y_bc), atol=1e-4, rtol=1e-4)
    assert (y_rl > y_bc).any()
    assert (y_rl < y_bc).any()


def test_a_recurrent_policy_bootstraps_on_what_it_did_next():
    """The counter's action names the step: at s_{t+m} of an episode it is 0.01 (t + m + 1)."""
    model = ibrl(reach(n_envs=3), bc_policy=Counter(), n_bc_episodes=3)
    model.learn(150)
    batch = model._sample_batch(300)
    known = ~batch.next_bc_actions.isnan().any(dim=1)
    m = (batch.discounts[:, 0].log() / np.log(0.99)).round()
    th.testing.assert_close(batch.next_bc_actions[known, 0], (batch.bc_actions[:, 0] + 0.01 * m)[known])
    assert (~known & (batch.dones[:, 0] == 0)).any(), "no time limit in this batch"
    # Where its action is not known, the actor alone is bootstrapped on
    constant_critics(model, "larger")
    th.manual_seed(2)
    y_rl, y_bc = target_by_hand(model, batch, batch.next_bc_actions)
    th.manual_seed(2)
    expected = th.where(known, th.maximum(y_rl, y_bc), y_rl)
    th.testing.assert_close(model._td_target(batch), expected)


def test_demonstrations_are_labelled_by_the_policy_along_each_episode():
    demos = demonstrations()
    model = ibrl(reach(), bc_policy=Counter(), demonstrations=demos)
    steps = np.concatenate([np.arange(n) + 1 for n in demos.episode_lengths])
    buffer = model.replay_buffer
    np.testing.assert_allclose(buffer.bc_actions[: len(demos), 0, 0], 0.01 * steps, atol=1e-6)
    np.testing.assert_array_equal(buffer.actions[: len(demos), 0], demos.actions)
    assert buffer.n_bc_episodes == 0, "demonstrations are no warm-up"


def test_hindsight_goals_are_asked_about():
    model = ibrl(reach("goal", 2), bc_policy=WalkHome(), replay_buffer_class=HerReplayBuffer, n_steps=1)
    model.learn(90)
    assert model._n_updates > 0
    batch = model._sample_batch(20)
    expected = WalkHome().distribution(batch.next_observations).mean.clamp(-1, 1)
    th.testing.assert_close(model._next_bc_actions(batch), expected)


# ---------------------------------------------------------------- the learner


def test_the_actor_climbs_the_lowest_critic():
    model = ibrl(reach(), exploration_std=0.0, policy_kwargs={"actor_dropout": 0.0})
    model.learn(60)
    batch = model.replay_buffer.sample(32)
    actions = model.actor(batch.observations, deterministic=True)
    th.testing.assert_close(model._actor_loss(batch), -model.critic(batch.observations, actions).amin(0).mean())


def test_noise_is_clipped():
    model = ibrl(reach(), exploration_std=10.0, noise_clip=0.3)
    noisy = model._with_noise(th.zeros(1000, 2))
    assert noisy.abs().max().item() == pytest.approx(0.3)
    assert model._with_noise(th.full((1000, 2), 0.9)).max() <= 1


def test_dropout_in_updates_and_not_in_acting():
    model = ibrl(reach(), policy_kwargs={"net_arch": [64]})
    assert [type(layer) for layer in model.actor.latent_pi] == [nn.Linear, nn.Dropout, nn.ReLU]
    obs = th.ones(1, 2)
    model.policy.set_training_mode(True)
    assert not th.equal(model.actor(obs, True), model.actor(obs, True))
    model.predict(np.ones(2, np.float32), deterministic=True)
    assert th.equal(model.actor(obs, True), model.actor(obs, True))


def test_the_slow_actor_follows():
    model = ibrl(reach(), tau=0.25)
    before = [p.clone() for p in model.policy.actor_target.mu.parameters()]
    assert all(th.equal(a, b) for a, b in zip(before, model.actor.mu.parameters(), strict=True))
    with th.no_grad():
        for parameter in model.actor.mu.parameters():
            parameter.add_(1.0)
    model.policy.follow_actor(0.25)
    for a, b in zip(before, model.policy.actor_target.mu.parameters(), strict=True):
        th.testing.assert_close(b, a + 0.25)


def test_another_bc_policy_is_announced(tmp_path):
    model = ibrl(reach(), bc_policy=WalkHome())
    model.learn(60)
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="another BC policy"):
        IBRL.load(tmp_path / "model", bc_policy=WalkHome(skill=0.2), device="cpu")


def test_defaults_of_the_paper():
    model = IBRL(reach(), bc_policy=gaussian(), device="cpu")
    assert (model.critic.n_critics, model.n_target_critics, model.n_steps) == (5, 2, 3)
    assert model.batch_size // model.policy_delay == 256
    assert model.policy.actor_dropout == 0.5
