"""Functions as BC policies: distributions, actions, chunks."""

import hashlib

import numpy as np
import pytest
import torch as th
from torch import nn
from torch.distributions import Independent, Normal
from worlds import ReachEnv, small_model

from sb3_q2rl import QGatedSAC
from sb3_q2rl.bc import BCPolicyAdapter
from sb3_q2rl.bc.record import fingerprint

START = np.array([True, True, True])
GOING_ON = np.array([False, False, False])
OBS = th.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])


def test_a_distribution_is_sampled_and_scored():
    policy = BCPolicyAdapter.from_distribution(lambda obs: Independent(Normal(obs, 0.1), 1))
    th.manual_seed(0)
    step = policy.step(OBS, None, START)
    expected = Independent(Normal(OBS, 0.1), 1)
    th.testing.assert_close(step.log_prob, expected.log_prob(step.actions))
    th.testing.assert_close(step.entropy, expected.entropy())
    th.testing.assert_close(policy.step(OBS, None, START, deterministic=True).actions, OBS)


def test_a_distribution_over_single_numbers_is_refused():
    with pytest.raises(ValueError, match=r"batch shape \(3, 2\).*Independent\(distribution, 1\)"):
        BCPolicyAdapter.from_distribution(lambda obs: Normal(obs, 0.1)).step(OBS, None, START)


def test_a_module_moves_and_is_known_by_its_weights():
    policy = BCPolicyAdapter.from_callable(nn.Linear(2, 2))
    assert len(list(policy.parameters())) == 2
    assert next(policy.to("cpu").parameters()).device.type == "cpu"


def test_without_density():
    step = BCPolicyAdapter.from_callable(lambda obs: 2.0 * obs).step(OBS, None, START)
    assert step.log_prob is None
    assert step.entropy is None
    th.testing.assert_close(step.actions, (2.0 * OBS).clamp(-1, 1))


def test_fixed_scale():
    policy = BCPolicyAdapter.from_callable(lambda obs: obs, density={"kind": "fixed", "scale": 0.2})
    step = policy.step(OBS, None, START, deterministic=True)
    th.testing.assert_close(step.log_prob + step.entropy, th.ones(3))  # D / 2 at the mean
    th.manual_seed(0)
    step = policy.step(OBS, None, START)
    th.testing.assert_close(step.log_prob, Independent(Normal(OBS, 0.2), 1).log_prob(step.actions))


@pytest.mark.parametrize("kind", ["gaussian", "kernel"])
def test_samples(kind):
    """A stochastic policy N(obs, .3), known by its actions only."""
    th.manual_seed(0)
    policy = BCPolicyAdapter.from_callable(
        lambda obs: obs + 0.3 * th.randn_like(obs), density={"kind": kind, "n_samples": 256, "scale": 0.01}
    )
    source = Independent(Normal(OBS, 0.3), 1)
    totals = []
    for _ in range(40):
        step = policy.step(OBS, None, START)
        th.testing.assert_close(step.entropy, source.entropy(), atol=0.35, rtol=0)
        totals.append(step.log_prob + step.entropy)
    assert th.stack(totals).mean().abs() < 0.3
    best = policy.step(OBS, None, START, deterministic=True)
    assert (best.log_prob > step.entropy.neg()).all()  # above the average of the samples
    assert (best.actions - OBS).abs().max() < 0.3


def test_samples_of_a_deterministic_policy_are_refused():
    with pytest.raises(ValueError, match=r"it is deterministic. Use `density='fixed'`"):
        BCPolicyAdapter.from_callable(lambda obs: obs, density="gaussian").step(OBS, None, START)


class Chunks:
    """Chunks of 4 that tell the observation they were made from and the step within the chunk."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, obs: th.Tensor) -> th.Tensor:
        self.asked.append(len(obs))
        return th.stack([th.stack([obs[:, 0], th.full((len(obs),), 0.1 * t)], dim=1) for t in range(4)], dim=1)


def test_each_environment_has_its_own_chunk():
    chunks = Chunks()
    policy = BCPolicyAdapter.from_callable(chunks, density="fixed", action_steps=3)
    assert policy.is_recurrent
    state, seen = None, []
    for t in range(6):
        obs = th.full((3, 2), 0.01 * t)
        # the second environment's episode ends after two steps
        start = START if t == 0 else np.array([False, t == 2, False])
        step = policy.step(obs, state, start, deterministic=True)
        assert step.log_prob.shape == (3,)
        seen.append(step.actions)
        state = step.state
    made_at, position = th.stack(seen).unbind(dim=2)
    np.testing.assert_allclose(position[:, 0], [0, 0.1, 0.2, 0, 0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(made_at[:, 0], [0, 0, 0, 0.03, 0.03, 0.03], atol=1e-6)
    np.testing.assert_allclose(position[:, 1], [0, 0.1, 0, 0.1, 0.2, 0], atol=1e-6)
    np.testing.assert_allclose(made_at[:, 1], [0, 0, 0.02, 0.02, 0.02, 0.05], atol=1e-6)
    assert chunks.asked == [3, 1, 2, 1]


def test_a_state_that_was_handed_out_does_not_change():
    policy = BCPolicyAdapter.from_callable(Chunks(), action_steps=2)
    first = policy.step(OBS, None, START)
    before = [None if field is None else field.clone() for field in first.state]
    policy.step(OBS + 1, first.state, START)
    for field, old in zip(first.state, before, strict=True):
        assert (field is None and old is None) or th.equal(field, old)


@pytest.mark.parametrize("kind", ["gaussian", "kernel"])
def test_chunks_with_sampled_densities(kind):
    th.manual_seed(0)
    policy = BCPolicyAdapter.from_callable(
        lambda obs: obs.unsqueeze(1) + 0.2 * th.randn(len(obs), 3, 2), density=kind, action_steps=3
    )
    state = None
    for start in (START, GOING_ON, GOING_ON, GOING_ON):
        step = policy.step(OBS, state, start)
        state = step.state
        assert step.actions.shape == (3, 2)
        assert step.log_prob.shape == step.entropy.shape == (3,)


@pytest.mark.parametrize("shape", [(3, 2, 2), (2, 2), (3,)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(n, action_dim\).*`action_steps`"):
        BCPolicyAdapter.from_callable(lambda obs: th.zeros(shape)).step(OBS, None, START)
    with pytest.raises(ValueError, match=r"expected \(n, T >= 3, action_dim\)"):
        BCPolicyAdapter.from_callable(lambda obs: th.zeros(shape), action_steps=3).step(OBS, None, START)


@pytest.mark.parametrize("options", [{}, {"density": "fixed"}, {"density": "none", "action_steps": 2}])
def test_q_gated_sac_learns_from_a_function(options, tmp_path):
    def walk(obs: th.Tensor) -> th.Tensor:
        action = -obs.clamp(-1, 1)
        return action.unsqueeze(1).expand(-1, 2, -1) if "action_steps" in options else action

    model = small_model(bc_policy=BCPolicyAdapter.from_callable(walk, **options))
    model.learn(80)
    assert model.has_started
    model.save(tmp_path / "model")
    again = QGatedSAC.load(tmp_path / "model", bc_policy=BCPolicyAdapter.from_callable(walk, **options))
    obs = ReachEnv().reset(seed=0)[0]
    np.testing.assert_allclose(
        again.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0], atol=1e-6
    )


@pytest.mark.parametrize("make", ["callable", "distribution"])
def test_a_module_in_training_mode_acts_as_it_was_trained_to(make):
    network = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 2), nn.Tanh())
    assert network.training
    if make == "callable":
        policy = BCPolicyAdapter.from_callable(network, density="none")
    else:

        class Gaussian(nn.Module):
            def __init__(self):
                super().__init__()
                self.network = network

            def forward(self, obs):
                return Independent(Normal(self.network(obs), 0.1), 1)

        policy = BCPolicyAdapter.from_distribution(Gaussian())
    obs = th.ones(1, 2)
    actions = [policy.step(obs, None, np.ones(1, bool), deterministic=True).actions for _ in range(5)]
    assert all(th.equal(action, actions[0]) for action in actions)


def test_weights_of_sixteen_bits_are_known_again():
    network = nn.Linear(2, 2)
    policies = [BCPolicyAdapter.from_callable(nn.Linear(2, 2).to(th.bfloat16), density="none") for _ in range(2)]
    assert fingerprint(policies[0]) != fingerprint(policies[1])
    th.manual_seed(0)
    whole = BCPolicyAdapter.from_callable(network, density="none")
    digest = hashlib.sha256()
    for name, value in whole.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    assert fingerprint(whole) == digest.hexdigest(), "as in models that were saved before"
