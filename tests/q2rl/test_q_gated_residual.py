"""QGatedResidualSAC is QGatedSAC whose actor corrects the proposal of the BC policy."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from worlds import TwoWays, gaussian, one_demonstration, reach, small_model

from sb3_q2rl import QGatedResidualSAC, QGatedSAC, QGatedTQC
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC
from sb3_q2rl.q2rl import load_model

pytestmark = pytest.mark.usefixtures("quick_fit")

PROPOSALS = th.tensor([[0.0, 0.5], [-0.9, 0.2], [0.98, -0.98]])
OBS = th.tensor([[0.3, 0.1], [-1.0, 0.7], [0.0, 0.0]])


small = functools.partial(small_model, algorithm=QGatedResidualSAC)


def with_corrections(model: Any) -> Any:
    """As if it had learnt something."""
    th.nn.init.normal_(model.actor.mu.weight, std=0.3)
    return model


def test_it_starts_as_the_bc_policy() -> None:
    model = small()
    th.testing.assert_close(model.actor((OBS, PROPOSALS), deterministic=True), PROPOSALS)
    at_the_edge = model.actor((OBS, PROPOSALS.sign()), deterministic=True)
    assert (at_the_edge.abs() <= 0.99 + 1e-6).all(), "tanh needs a finite argument"


def test_the_bc_loss_keeps_it_there() -> None:
    """Q-initialisation and the auxiliary loss alone leave it what it was: the BC policy."""
    model = small(bc_loss_weight=1.0, q_init_steps=200)
    model.learn(60)
    assert model._n_updates > 0
    proposals = model._bc.step(OBS, None, np.ones(3, bool), deterministic=True).actions.clamp(-0.9, 0.9)
    assert (model.actor((OBS, proposals), deterministic=True) - proposals).abs().max() < 0.03


@pytest.mark.parametrize(("algorithm", "least", "most"), [(QGatedSAC, 0.0, 0.02), (QGatedResidualSAC, 0.3, 0.5)])
def test_q_initialisation_shows_it_every_way_that_may_be_proposed(algorithm: Any, least: float, most: float) -> None:
    """Q2RL's own actor, one Gaussian, is shown the likeliest way only."""
    policy = TwoWays()
    model = small_model(bc_policy=policy, algorithm=algorithm, bc_deterministic=False)
    goes_right = model._to_clone(policy.distribution(th.randn(500, 2)))[:, 1] > 0
    assert least <= goes_right.float().mean() <= most


@pytest.mark.parametrize("std", [0.05, 0.4])
def test_density_is_that_of_a_tanh_gaussian_around_the_corrected_proposal(std: float) -> None:
    model = with_corrections(small(policy_kwargs={"residual_std": std}))
    actions, log_prob = model.actor.action_log_prob((OBS, PROPOSALS))
    features = model.critic.extract_features(OBS, model.critic.features_extractor)
    correction = model.actor.mu(model.actor.latent_pi(th.cat([features, PROPOSALS], dim=1)))
    assert correction.abs().min() > 0
    gaussian_ = Normal(th.atanh(PROPOSALS) + correction, std)
    expected = Independent(TransformedDistribution(gaussian_, [TanhTransform()]), 1)
    th.testing.assert_close(log_prob, expected.log_prob(actions.detach()), atol=1e-3, rtol=1e-3)


def test_bc_loss_grows_with_the_square_of_the_correction() -> None:
    model = small(policy_kwargs={"residual_std": 0.2})
    batch = small_batch(model)
    forget_corrections(model)
    model.actor.action_log_prob(model._actor_input(batch.observations, batch.bc_actions))
    none = model._bc_loss(batch)
    th.nn.init.constant_(model.actor.mu.bias, 0.3)
    model.actor.action_log_prob(model._actor_input(batch.observations, batch.bc_actions))
    th.testing.assert_close(model._bc_loss(batch) - none, th.tensor(2 * 0.5 * (0.3 / 0.2) ** 2), rtol=1e-4, atol=1e-4)


def forget_corrections(model: Any) -> None:
    th.nn.init.zeros_(model.actor.mu.weight)
    th.nn.init.zeros_(model.actor.mu.bias)


def small_batch(model: Any) -> Any:
    model.learn(60)
    batch = model._sample_batch(16)
    return batch._replace(bc_actions=batch.bc_actions.clamp(-0.9, 0.9))


def test_the_target_bootstraps_on_the_corrected_next_proposal() -> None:
    model = small(n_steps=1)
    batch = small_batch(model)
    with_corrections(model)
    model.actor.log_std.fill_(-20.0)  # no noise
    batch = batch._replace(next_bc_actions=th.full((16, 2), 0.25))
    actions, _ = model._next_actions(batch)
    expected = model.actor((batch.next_observations, th.full((16, 2), 0.25)), deterministic=True)
    th.testing.assert_close(actions, expected)


def test_an_unknown_proposal_of_a_memoryless_policy_is_asked_for() -> None:
    model = small()
    batch = small_batch(model)._replace(next_bc_actions=th.full((16, 2), th.nan))
    forget_corrections(model)
    model.actor.log_std.fill_(-20.0)
    asked = model._bc.step(batch.next_observations, None, np.ones(16, bool), deterministic=True).actions
    th.testing.assert_close(model._next_actions(batch)[0], asked.clamp(-0.99, 0.99))
    # Of a recurrent one nobody knows its state any more: what it proposed last
    batch = batch._replace(next_bc_actions=th.full((16, 2), th.nan))
    model._bc.is_recurrent = True
    th.testing.assert_close(model._next_actions(batch)[0], batch.bc_actions)


def test_demonstrations_carry_the_proposals_of_the_bc_policy() -> None:
    n = 8
    model = small(demonstrations=one_demonstration(n))
    model.learn(12 * 3 + 2)
    buffer = model.replay_buffer
    rows = np.flatnonzero(np.isclose(buffer.actions[: buffer.size(), 0, 0], 0.123))
    assert len(rows) == n
    obs = th.as_tensor(buffer.observations[rows, 0])
    proposals = model._bc.step(obs, None, np.ones(n, bool), deterministic=True).actions
    np.testing.assert_allclose(buffer.bc_actions[rows, 0], proposals, atol=1e-6)


@pytest.mark.parametrize("deterministic", [True, False])
def test_runs_with_hindsight_goals(deterministic: bool) -> None:
    """Nobody asked the BC policy about those: it is asked about this state and the next."""
    env = reach("goal")
    model = small(env, bc_policy=gaussian("goal"), replay_buffer_class=HerReplayBuffer, n_steps=1,
                  bc_deterministic=deterministic)  # fmt: skip
    model.learn(80)
    batch = model._sample_batch(16)
    assert batch.next_bc_actions is None
    actions, log_prob = model._next_actions(batch)
    assert actions.shape == (16, 2)
    assert th.isfinite(log_prob).all()


def test_gate_weighs_the_corrected_action_against_the_proposal() -> None:
    model = small(bc_policy=gaussian("flat"))
    model.learn(60)
    with_corrections(model)
    decision = model.decide(OBS.numpy(), deterministic=True)
    expected = model.actor((OBS, decision.bc.actions), deterministic=True)
    th.testing.assert_close(decision.rl, expected)
    th.testing.assert_close(decision.q_rl, model.critic(OBS, expected).amin(dim=0))
    assert th.equal(decision.rl_acts, decision.q_rl > decision.q_bc)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"policy_kwargs": {"residual_std": 0.0}}, "`residual_std` is 0.0"),
        ({"policy_kwargs": {"residual_std": float("nan")}}, "`residual_std` is nan"),
        ({"use_sde": True}, "`use_sde`"),
    ],
)
def test_errors(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**kwargs)


def test_its_policy_alone_says_whom_to_ask() -> None:
    model = small(bc_policy=gaussian())
    model.learn(60)
    with pytest.raises(TypeError, match=r"ask the model: model\.predict"):
        model.policy.predict(OBS.numpy())


@pytest.mark.parametrize("algorithm", [QGatedSAC, QGatedTQC, QGatedResidualSAC])
def test_a_model_is_loaded_as_what_it_was(algorithm: Any, tmp_path: Path) -> None:
    model = small_model(bc_policy=gaussian(), algorithm=algorithm)
    model.learn(60)
    model.save(tmp_path / "model")
    again = load_model(tmp_path / "model", device="cpu")
    assert type(again) is algorithm
    expected, _ = model.predict(OBS.numpy(), deterministic=True)
    np.testing.assert_allclose(again.predict(OBS.numpy(), deterministic=True)[0], expected)


def test_what_is_no_model_of_ours_is_not_loaded(tmp_path: Path) -> None:
    OfflineToOnlineSAC(reach(), device="cpu").save(tmp_path / "other.zip")
    with pytest.raises(ValueError, match=r"other\.zip has the policy EnsembleSACPolicy, which no QGatedSAC, .* has"):
        load_model(tmp_path / "other.zip")
    gaussian().save(tmp_path / "bc.pt")
    with pytest.raises(ValueError, match=r"bc\.pt holds no model of Stable-Baselines3\. Expected a file that `save`"):
        load_model(tmp_path / "bc.pt")
    for name in ("none", "none.zip"):
        with pytest.raises(FileNotFoundError, match=rf"There is no model .*{name}\. Expected"):
            load_model(tmp_path / name)
