"""QGatedTQC is QGatedSAC with TQC's critics: their loss and target are sb3-contrib's, the rest is Q2RL's."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import configure
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import nn
from worlds import WalkHome, gaussian, reach, small_model

from sb3_q2rl import QGatedTQC
from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.q2rl.policies import GatedTQCPolicy
from sb3_q2rl.q2rl.q_gated_tqc import quantile_huber_loss

pytestmark = pytest.mark.usefixtures("quick_fit")

SMALL = {"n_bc_episodes": 3, "q_init_steps": 5, "batch_size": 16, "gradient_steps": 1, "policy_delay": 1, "seed": 0}
SIZES: dict[str, Any] = {"net_arch": [16], "n_quantiles": 5, "value_net_arch": [16], "n_values": 2}


def small_tqc(env: Any = None, policy_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    kwargs = {"bc_policy": WalkHome(), **SMALL, **kwargs}
    return QGatedTQC(env or reach(), policy_kwargs={**SIZES, **(policy_kwargs or {})}, device="cpu", **kwargs)


def random_batch(n: int, seed: int = 0) -> BCSamples:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> th.Tensor:
        return th.as_tensor(rng.normal(size=shape), dtype=th.float32)

    dones = th.as_tensor(rng.random((n, 1)) < 0.3, dtype=th.float32)
    return BCSamples(
        normal(n, 2), normal(n, 2).tanh(), normal(n, 2), dones, 5 * normal(n, 1), bc_actions=normal(n, 2).tanh()
    )


@pytest.mark.parametrize("ent_coef", [0.2, "auto_0.5"])
def test_without_the_bc_loss_it_learns_as_sb3_contribs_tqc(monkeypatch, ent_coef):
    """The same weights and batches: the same critics, targets and actor after a few updates."""
    sb3_contrib = pytest.importorskip("sb3_contrib", reason="compares with sb3-contrib's TQC: needs the extra `zoo`")
    # TQC draws its noise in another order. Without noise the order cannot matter
    monkeypatch.setattr(th.distributions.Normal, "rsample", lambda self, sample_shape=(): self.loc)
    common = {"ent_coef": ent_coef, "gamma": 0.9, "tau": 0.2, "batch_size": 16, "seed": 0, "device": "cpu"}
    sizes = {"net_arch": [16], "n_critics": 3, "n_quantiles": 7}
    tqc = sb3_contrib.TQC(
        "MlpPolicy", reach(), policy_kwargs=sizes, top_quantiles_to_drop_per_net=2, learning_rate=1e-2, **common
    )
    ours: Any = QGatedTQC(
        reach(), bc_policy=WalkHome(), policy_kwargs={**sizes, "layer_norm": False}, bc_loss_weight=0.0,
        learning_rate=1e-2, actor_learning_rate=None, gradient_steps=1, policy_delay=1, **common,
    )  # fmt: skip
    for theirs, own in ((tqc.critic, ours.critic), (tqc.critic_target, ours.critic_target)):
        layers: list[Any] = [*own.q_networks.hidden, own.q_networks.output]
        for k, q_net in enumerate(theirs.q_networks):
            linears = [m for m in q_net.modules() if isinstance(m, nn.Linear)]
            for linear, layer in zip(linears, layers, strict=True):
                layer.weight.data[k], layer.bias.data[k, 0] = linear.weight.data.T, linear.bias.data
    ours.actor.load_state_dict(tqc.actor.state_dict(), strict=False)
    batches = [random_batch(16, seed) for seed in range(4)]
    with th.no_grad():
        mine = ours.critic.quantiles(batches[0].observations, batches[0].actions).transpose(0, 1)
        th.testing.assert_close(mine, tqc.critic(batches[0].observations, batches[0].actions))
    ours.policy.q_estimate.is_fitted = True
    monkeypatch.setattr(ours.replay_buffer, "can_sample", lambda: True)
    for model in (tqc, ours):
        model.set_logger(configure(None, []))
        queue = list(batches)
        monkeypatch.setattr(model.replay_buffer, "sample", lambda *_, queue=queue, **__: queue.pop(0))
        model.train(4, 16)
        assert not queue
    for theirs, own in ((tqc.critic, ours.critic), (tqc.critic_target, ours.critic_target)):
        layers = [*own.q_networks.hidden, own.q_networks.output]
        for k, q_net in enumerate(theirs.q_networks):
            linears = [m for m in q_net.modules() if isinstance(m, nn.Linear)]
            for linear, layer in zip(linears, layers, strict=True):
                th.testing.assert_close(layer.weight[k].T, linear.weight, atol=1e-5, rtol=1e-4)
                th.testing.assert_close(layer.bias[k, 0], linear.bias, atol=1e-5, rtol=1e-4)
    for name, parameter in tqc.actor.named_parameters():
        th.testing.assert_close(ours.actor.get_parameter(name), parameter, atol=1e-5, rtol=1e-4)


def test_loss_of_a_few_quantiles_by_hand():
    """Levels 1/4 and 3/4, targets 0 and 3: Huber of the distance, times the level below it or its complement above."""
    quantiles, targets = th.tensor([[[0.5, 2.0]]]), th.tensor([[0.0, 3.0]])
    by_hand = 0.75 * 0.125 + 0.25 * (2.5 - 0.5) + 0.25 * (2.0 - 0.5) + 0.75 * 0.5
    assert quantile_huber_loss(quantiles, targets).item() == pytest.approx(by_hand / 4)


def test_least_loss_is_at_the_quantiles_of_the_targets():
    """Far apart, Huber is the absolute value: the minimum lies at the quantiles of 0, 100, ..., 900."""
    targets = 100 * th.arange(10.0).repeat(1, 1)
    quantiles = th.nn.Parameter(th.zeros(1, 1, 5) + 450)
    optimizer = th.optim.Adam([quantiles], lr=2.0)
    for _ in range(1500):
        optimizer.zero_grad()
        quantile_huber_loss(quantiles, targets).backward()
        optimizer.step()
    np.testing.assert_allclose(quantiles.detach()[0, 0], [100, 300, 450, 600, 800], atol=60)


@pytest.mark.parametrize(("drop", "n_target_critics"), [(0, 3), (1, None), (4, 2)])
def test_target_leaves_the_largest_quantiles_out(drop, n_target_critics):
    """Against plain Python: sort what the drawn critics say of a state, drop the top, discount the rest."""
    model = small_tqc(
        top_quantiles_to_drop_per_net=drop, n_target_critics=n_target_critics, policy_kwargs={"n_critics": 3},
        ent_coef=0.3, gamma=0.9,
    )  # fmt: skip
    model.critic_target.set_scale(th.tensor(-20.0), th.tensor(7.0))
    batch = random_batch(6)
    th.manual_seed(3)
    target = model._td_target(batch)
    th.manual_seed(3)
    with th.no_grad():
        actions, log_prob = model.actor.action_log_prob(batch.next_observations)
        drawn = th.randperm(3)[:n_target_critics].tolist()
        said = model.critic_target.quantiles(batch.next_observations, actions)
    n_kept = (5 - drop) * len(drawn)
    assert target.shape == (n_kept, 6)
    for i in range(6):
        values = sorted(value for k in drawn for value in said[k, i].tolist())[:n_kept]
        alive = 1 - batch.dones[i].item()
        expected = [batch.rewards[i].item() + 0.9 * alive * (value - 0.3 * log_prob[i].item()) for value in values]
        np.testing.assert_allclose(target[:, i], expected, rtol=1e-4, atol=1e-4)


def test_gate_asks_the_lowest_critic_and_the_actor_climbs_the_mean():
    model = small_tqc(reach(n_envs=2), policy_kwargs={"n_critics": 3})
    model.learn(100)
    obs = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    decision = model.decide(obs, deterministic=True)
    with th.no_grad():
        each = model.critic.quantiles(th.as_tensor(obs), decision.rl).mean(dim=2)
        th.testing.assert_close(decision.q_rl, each.amin(dim=0))
        th.testing.assert_close(model.critic.lowest(th.as_tensor(obs), decision.rl), each.amin(dim=0))
        th.testing.assert_close(model._policy_value(th.as_tensor(obs), decision.rl), each.mean(dim=0))
    assert th.equal(decision.rl_acts, decision.q_rl > decision.q_bc)


def test_all_quantiles_start_at_the_estimate():
    """Q-initialisation has one target a transition: every quantile comes to lie there."""
    model = small_tqc(
        reach(n_envs=4), n_bc_episodes=40, q_init_steps=600, batch_size=64, learning_rate=3e-3, bc_policy=gaussian()
    )
    seen = []
    initialise = model._initialise

    def note(rows: Any, columns: Any) -> None:
        initialise(rows, columns)
        batch = model.replay_buffer.gather(rows, columns)
        with th.no_grad():
            values = model._bc_values(rows, columns) + model.policy.q_estimate.advantage(
                batch.bc_log_prob, batch.bc_entropy
            )
            seen.append((model.critic.quantiles(batch.observations, batch.actions), values))

    model._initialise = note
    model.learn(520)
    quantiles, values = seen[0]
    error = (quantiles - values.reshape(1, -1, 1)).square().mean(dim=(0, 1))
    assert (error < 0.25 * values.var()).all(), error


def test_one_quantile_is_a_value():
    """With one quantile the critic is an ordinary one, and the loss is half of Huber's."""
    model = small_tqc(policy_kwargs={"n_quantiles": 1}, top_quantiles_to_drop_per_net=0)
    model.learn(50)
    batch = random_batch(8)
    with th.no_grad():
        assert model.critic(batch.observations, batch.actions).shape == (2, 8)
        loss = model._value_loss(batch, th.zeros(8))
        values = model.critic(batch.observations, batch.actions)
    th.testing.assert_close(loss, 0.5 * th.nn.functional.huber_loss(values, th.zeros(2, 8)))


@pytest.mark.parametrize("kind", ["flat", "dict", "image", "goal"])
def test_runs_on_observations_of_every_kind(kind):
    options = {"replay_buffer_class": HerReplayBuffer, "n_steps": 1} if kind == "goal" else {"n_steps": 2}
    model = small_tqc(reach(kind, n_envs=2), **options)
    model.learn(100)
    assert model.has_started
    assert model._n_updates > 0
    values = th.cat([v.flatten() for v in model.policy.state_dict().values() if isinstance(v, th.Tensor)])
    assert th.isfinite(values).all()


def test_saved_it_plays_alike_and_its_policy_alone_too(tmp_path):
    model = small_tqc(bc_policy=gaussian(), top_quantiles_to_drop_per_net=3)
    model.learn(60)
    model.save(tmp_path / "model")
    loaded: Any = QGatedTQC.load(tmp_path / "model", device="cpu")
    assert loaded.top_quantiles_to_drop_per_net == 3
    assert loaded.policy.n_quantiles == 5
    obs = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    for who in ("model", "rl", "bc"):
        expected, _ = model.predict(obs, deterministic=True, who=who)
        np.testing.assert_allclose(loaded.predict(obs, deterministic=True, who=who)[0], expected, atol=1e-6)
    model.policy.save(tmp_path / "policy")
    policy = GatedTQCPolicy.load(tmp_path / "policy", device="cpu")
    with th.no_grad():
        a, b = (p.critic.quantiles(th.as_tensor(obs), th.as_tensor(obs)) for p in (model.policy, policy))
    th.testing.assert_close(a, b)


@pytest.mark.parametrize("drop", [-1, 5, 9])
def test_a_target_without_quantiles_is_refused(drop):
    with pytest.raises(ValueError, match=rf"`top_quantiles_to_drop_per_net` is {drop}.*`n_quantiles`=5"):
        small_tqc(top_quantiles_to_drop_per_net=drop)


def test_defaults_are_tqcs():
    model: Any = QGatedTQC(reach(), bc_policy=WalkHome(), device="cpu")
    assert (model.critic.n_critics, model.policy.n_quantiles, model.top_quantiles_to_drop_per_net) == (2, 25, 2)
    assert model._td_target(random_batch(3)).shape == (46, 3)
    assert small_model().critic.n_critics == 3, "QGatedSAC's networks are as they were"
