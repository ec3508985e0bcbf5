"""Our Gaussian and mixture policies: densities against torch.distributions, sampling, checkpoints, errors."""

import math
import pickle

import numpy as np
import pytest
import torch as th
from torch.distributions import MultivariateNormal, Normal

from sb3_q2rl.bc import BCPolicy, GaussianBCPolicy
from sb3_q2rl.bc.checkpoint import read_checkpoint
from sb3_q2rl.bc.distributions import entropy_nats, mode

START = np.array([True])


def make_policy(n_components=1, obs_dim=3, action_dim=2, **kwargs):
    th.manual_seed(0)
    policy = GaussianBCPolicy(obs_dim, action_dim, net_arch=(16,), n_components=n_components, **kwargs)
    policy.set_obs_statistics(np.full(obs_dim, 0.5), np.full(obs_dim, 2.0))
    return policy.eval().requires_grad_(False)


def test_it_is_a_bc_policy():
    assert isinstance(make_policy(), BCPolicy)


@pytest.mark.parametrize("n_components", [1, 4])
@pytest.mark.parametrize("deterministic", [False, True])
def test_log_prob_is_that_of_the_action(n_components, deterministic):
    policy = make_policy(n_components, sigma_min=0.001, sigma_max=0.01)  # so small that no sample is clipped
    obs = th.randn(50, 3)
    step = policy.step(obs, None, START, deterministic=deterministic)
    assert step.actions.shape == (50, 2)
    assert (step.actions.abs() < 1).all()
    distribution = policy.distribution(obs)
    th.testing.assert_close(step.log_prob, distribution.log_prob(step.actions))
    # The same, by torch's full-covariance normal or a log-sum-exp over components.
    if n_components == 1:
        reference = MultivariateNormal(distribution.mean, th.diag_embed(distribution.variance)).log_prob(step.actions)
    else:
        components = distribution.component_distribution.base_dist
        scores = Normal(components.loc, components.scale).log_prob(step.actions[:, None]).sum(-1)
        reference = th.logsumexp(scores + distribution.mixture_distribution.logits, dim=1)
    # float32, sigmas down to 0.001: log-probs are sums of squares of large quotients
    th.testing.assert_close(step.log_prob, reference, rtol=1e-3, atol=1e-3)


def test_entropy_is_exact_joint_and_in_nats():
    policy = make_policy()
    obs = th.randn(5, 3)
    sigma = policy.distribution(obs).stddev
    expected = 0.5 * th.log(2 * math.pi * math.e * sigma**2).sum(dim=1)
    th.testing.assert_close(policy.step(obs, None, START).entropy, expected)


def test_log_prob_and_entropy_cancel_on_average_even_where_actions_are_clipped():
    policy = make_policy(sigma_min=0.5, sigma_max=1.0)
    steps = policy.step(th.zeros(40_000, 3), None, START)
    assert ((steps.actions.abs() == 1).float().mean() > 0.05).item()
    # Var(log pi) of a D-dimensional Gaussian is D / 2: the mean of 40,000 has a standard error of 0.005.
    assert (steps.log_prob + steps.entropy).mean().item() == pytest.approx(0.0, abs=0.025)


def test_at_the_mode_of_a_gaussian_the_density_term_is_half_the_dimension():
    step = make_policy(action_dim=7).step(th.randn(4, 3), None, START, deterministic=True)
    th.testing.assert_close(step.log_prob + step.entropy, th.full((4,), 3.5))


def test_mixture_entropy_bound_holds_and_is_tight_for_separate_components():
    def monte_carlo(distribution):
        return -distribution.log_prob(distribution.sample((20_000,))).mean(dim=0)

    wide = make_policy(3, sigma_min=0.5, sigma_max=1.0).distribution(th.randn(4, 3))
    assert (entropy_nats(wide) >= monte_carlo(wide) - 0.03).all()
    assert (entropy_nats(wide) > monte_carlo(wide) + 0.1).any()  # they overlap: a bound, not an equality
    separate = make_policy(3, sigma_min=0.0005, sigma_max=0.001).distribution(th.randn(4, 3))
    th.testing.assert_close(entropy_nats(separate), monte_carlo(separate), atol=0.05, rtol=0)


def test_mode_of_a_mixture_is_its_heaviest_component():
    distribution = make_policy(4).distribution(th.randn(20, 3))
    heaviest = distribution.mixture_distribution.probs.argmax(dim=1)
    expected = th.stack([distribution.component_distribution.mean[i, k] for i, k in enumerate(heaviest)])
    th.testing.assert_close(mode(distribution), expected)
    assert len(heaviest.unique()) > 1


def test_sigma_stays_between_floor_and_ceiling():
    policy = make_policy(sigma_min=0.05, sigma_max=0.4)
    for bias in (-100.0, 100.0):
        policy.head.bias[2:] = bias
        sigma = policy.distribution(th.randn(5, 3)).stddev
        th.testing.assert_close(sigma, th.full_like(sigma, 0.05 if bias < 0 else 0.4))


def test_observations_are_normalised_inside():
    policy = make_policy()
    obs = th.randn(6, 3)
    shifted = GaussianBCPolicy.from_checkpoint(policy.to_checkpoint())
    shifted.set_obs_statistics(np.full(3, 0.5 * 10 + 3), np.full(3, 2.0 * 10))
    th.testing.assert_close(shifted.distribution(obs * 10 + 3).mean, policy.distribution(obs).mean)


def test_a_constant_observation_is_left_unscaled():
    policy = make_policy()
    policy.set_obs_statistics(np.zeros(3), np.array([1.0, 0.0, 2.0]))
    assert policy.obs_std.tolist() == [1, 1, 2]


def test_dict_observations_are_concatenated_in_the_order_of_the_keys():
    policy = make_policy(obs_dim=5, obs_keys=("b", "a"))
    a, b = th.randn(4, 2), th.randn(4, 3, 1)
    flat = make_policy(obs_dim=5)
    flat.load_state_dict(policy.state_dict())
    in_order = th.cat([b.flatten(1), a], dim=1)
    expected = flat.distribution(in_order).mean
    th.testing.assert_close(policy.distribution({"a": a, "b": b, "other": a}).mean, expected)
    with pytest.raises(ValueError, match=r"keys \['b'\], which the observation lacks; it has \['a'\]"):
        policy.distribution({"a": a})
    with pytest.raises(ValueError, match="takes one array"):
        make_policy().distribution({"a": a})
    with pytest.raises(ValueError, match=r"reads the keys \['b', 'a'\], in this order, but an array of \(4, 5\) came"):
        policy.distribution(in_order)
    flat.obs_keys = ("x",)
    th.testing.assert_close(flat.distribution(in_order).mean, expected)


@pytest.mark.parametrize("shape", [(4, 5), (3,), (4, 3, 3)])
def test_wrong_observation_shape_says_what_came_and_what_was_expected(shape):
    with pytest.raises(ValueError, match=r"of shape \(3,\), but a batch of shape \(" + str(shape[0])):
        make_policy().step(th.zeros(shape), None, START)


@pytest.mark.parametrize("kwargs", [{"sigma_min": 0.0}, {"sigma_min": 0.5, "sigma_max": 0.1}, {"n_components": 0}])
def test_impossible_arguments_are_refused(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        GaussianBCPolicy(3, 2, **kwargs)


@pytest.mark.parametrize("n_components", [1, 3])
def test_save_and_load_give_the_same_policy(tmp_path, n_components):
    policy = make_policy(n_components, obs_keys=("x",), sigma_min=0.03)
    policy.training_record = {"seed": 3, "history": [{"epoch": 1}]}
    loaded = GaussianBCPolicy.load(policy.save(tmp_path / "sub" / "policy.pt"))
    obs = {"x": th.randn(5, 3)}
    ours, theirs = (p.step(obs, None, START, deterministic=True) for p in (policy, loaded))
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        th.testing.assert_close(a, b, rtol=0, atol=0)
    assert loaded.training_record == policy.training_record
    assert loaded.sigma_min == 0.03
    assert not any(p.requires_grad for p in loaded.parameters())
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["policy.pt"]


def test_nan_weights_are_refused():
    checkpoint = make_policy().to_checkpoint()
    checkpoint["state_dict"]["head.weight"][0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinity in head\.weight"):
        GaussianBCPolicy.from_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format and version are \\('other', 1\\)"),
        ({"format_version": 99}, "format and version"),
        ({"config": {"obs_dim": 3}}, "incomplete or was altered"),
        ({"state_dict": {}}, "incomplete or was altered"),
        ({"state_dict": None}, "incomplete or was altered"),
    ],
)
def test_altered_checkpoints_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        GaussianBCPolicy.from_checkpoint(make_policy().to_checkpoint() | change)


def test_damaged_files_are_refused(tmp_path):
    path = make_policy().save(tmp_path / "policy.pt")
    content = path.read_bytes()
    for cut in (len(content) - 100, len(content) // 2, 10, 0):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"damaged or cut off|was refused"):
            GaussianBCPolicy.load(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        GaussianBCPolicy.load(tmp_path / "absent.pt")
    th.save([1, 2], path)
    with pytest.raises(ValueError, match="holds a list"):
        GaussianBCPolicy.load(path)


class Canary:
    """Unpickling this writes a file: the file tells whether code of a checkpoint was executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["torch zip", "bare pickle"])
def test_a_hostile_checkpoint_is_refused_and_not_executed(tmp_path, kind):
    canary, path = tmp_path / "canary", tmp_path / "hostile.pt"
    if kind == "torch zip":
        th.save({"format": GaussianBCPolicy.FORMAT, "config": Canary(canary)}, path)
    else:
        path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ValueError, match="could execute code"):
        read_checkpoint(path)
    assert not canary.exists()
    # The canary does sing where files are trusted.
    if kind == "bare pickle":
        pickle.loads(path.read_bytes()).close()
        assert canary.exists()
