"""Training: it finds known distributions, chooses by what it says, and is reproducible."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from scipy.stats import binomtest

from sb3_q2rl.__main__ import main
from sb3_q2rl.bc import BCPolicyAdapter, GaussianBCPolicy, train_bc
from sb3_q2rl.bc.evaluate import evaluate_bc, wilson_interval
from sb3_q2rl.data import Demonstrations, save_npz

START = np.array([True])


class ReachEnv(gym.Env):
    """One step: success if the action comes within 0.2 of half the observation. Actions span [-2, 2]."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.target = self.np_random.uniform(-1, 1)
        return np.array([self.target], dtype=np.float32), {}

    def step(self, action):
        # The policy's [-1, 1] becomes [-2, 2] here: half the observation there is the observation here.
        success = bool(abs(action[0] - self.target) < 0.2)
        return np.zeros(1, dtype=np.float32), float(success), True, False, {"is_success": success}


def make_demonstrations(action_of, n=4000, n_episodes=20, as_dict=False):
    rng = np.random.default_rng(0)
    obs = rng.uniform(-1, 1, (n, 1)).astype(np.float32)
    ends = np.arange(1, n_episodes + 1) * (n // n_episodes)
    truncated = np.zeros(n, dtype=bool)
    truncated[ends - 1] = True
    observations = {"z": obs, "a": 0 * obs} if as_dict else obs
    return Demonstrations(
        observations=observations,
        next_observations=observations,
        actions=action_of(obs, rng).astype(np.float32),
        rewards=np.zeros(n, dtype=np.float32),
        terminated=np.zeros(n, dtype=bool),
        truncated=truncated,
        episode_ends=ends,
        source="scripted",
    )


def gaussian_action(obs, rng):
    """a ~ N(obs / 2, 0.1^2) in dimension 0, N(-0.3, 0.2^2) in dimension 1."""
    noise = rng.normal(size=(len(obs), 2))
    return np.clip(np.concatenate([0.5 * obs + 0.1 * noise[:, :1], -0.3 + 0.2 * noise[:, 1:]], axis=1), -1, 1)


def train(demonstrations, **kwargs):
    settings = {"net_arch": (32,), "n_epochs": 30, "eval_interval": 5, "progress_bar": False, "learning_rate": 3e-3}
    return train_bc(demonstrations, **(settings | kwargs))


def test_finds_the_mean_the_scale_and_the_likelihood_of_a_known_gaussian():
    policy = train(make_demonstrations(gaussian_action), sigma_min=0.02)
    obs = th.linspace(-0.9, 0.9, 10)[:, None]
    distribution = policy.distribution(obs)
    np.testing.assert_allclose(distribution.mean[:, 0], 0.5 * obs[:, 0], atol=0.03)
    np.testing.assert_allclose(distribution.mean[:, 1], -0.3, atol=0.05)
    np.testing.assert_allclose(distribution.stddev, np.tile([0.1, 0.2], (10, 1)), rtol=0.2)
    # The best possible likelihood is minus the entropy of the data's own distribution.
    optimum = -(np.log(2 * np.pi * np.e) + np.log(0.1) + np.log(0.2))
    assert policy.training_record["selected"]["held_out_log_likelihood"] == pytest.approx(optimum, abs=0.1)


def test_a_mixture_finds_two_ways_where_a_gaussian_averages():
    def two_ways(obs, rng):
        return rng.choice([-0.6, 0.6], size=(len(obs), 1)) + 0.05 * rng.normal(size=(len(obs), 1))

    demonstrations = make_demonstrations(two_ways)
    mixture = train(demonstrations, n_components=2, n_epochs=80)
    step = mixture.step(th.zeros(500, 1), None, START)
    assert (((step.actions.abs() - 0.6).abs() < 0.25).float().mean() > 0.98).item()
    assert 0.35 < (step.actions > 0).float().mean().item() < 0.65
    best = mixture.step(th.zeros(1, 1), None, START, deterministic=True).actions
    assert abs(best.item()) == pytest.approx(0.6, abs=0.05)
    single = train(demonstrations).step(th.zeros(1, 1), None, START, deterministic=True).actions
    assert abs(single.item()) < 0.2


def test_held_out_likelihood_chooses_the_checkpoint():
    demonstrations = make_demonstrations(gaussian_action, n=40, n_episodes=8)  # few: it will overfit
    policy = train(demonstrations, n_epochs=300, eval_interval=20, weight_decay=0.0, batch_size=8)
    record = policy.training_record
    values = [entry["held_out_log_likelihood"] for entry in record["history"]]
    assert record["selected"]["held_out_log_likelihood"] == max(values)
    assert record["selected"]["epoch"] < 300
    assert (record["n_training_episodes"], record["n_held_out_episodes"]) == (7, 1)
    # The policy returned is that checkpoint, not the last one.
    held_out = demonstrations.split(0.15, seed=0)[1]
    log_prob = policy.distribution(th.as_tensor(held_out.observations)).log_prob(th.as_tensor(held_out.actions))
    assert log_prob.mean().item() == pytest.approx(max(values), abs=1e-4)


def test_rollouts_choose_the_checkpoint_where_there_is_an_environment():
    def first_action(obs, rng):
        return gaussian_action(obs, rng)[:, :1]

    policy = train(make_demonstrations(first_action), env=ReachEnv(), n_epochs=10, n_eval_episodes=20)
    record = policy.training_record
    assert record["selected_by"] == "success by mode"
    assert record["selected"]["success"] == max(entry["success"] for entry in record["history"])
    by_mode = evaluate_bc(policy, ReachEnv(), n_episodes=100, seed=5)
    by_sample = evaluate_bc(policy, ReachEnv(), n_episodes=100, seed=5, deterministic=False)
    # sigma is 0.1 on the policy's scale, 0.2 in the environment: a sample succeeds in erf(1 / sqrt 2) = 68 %.
    assert by_mode.rate > 0.95
    assert 0.5 < by_sample.rate < 0.85
    assert by_sample == evaluate_bc(policy, ReachEnv(), n_episodes=100, seed=5, deterministic=False)


def test_same_seed_same_policy_and_the_global_generator_is_left_alone():
    demonstrations = make_demonstrations(gaussian_action, n=400)
    th.manual_seed(7)
    expected = th.rand(1)
    weights = []
    for seed in (1, 1, 2):
        th.manual_seed(7)
        weights.append(train(demonstrations, seed=seed, n_epochs=5).head.weight)
        assert th.equal(th.rand(1), expected)
    assert th.equal(weights[0], weights[1])
    assert not th.equal(weights[0], weights[2])


def test_dict_demonstrations_give_a_policy_with_keys():
    policy = train(make_demonstrations(gaussian_action, n=400, as_dict=True), n_epochs=5)
    assert policy.obs_keys == ("a", "z")
    policy = train(make_demonstrations(gaussian_action, n=400, as_dict=True), n_epochs=5, obs_keys=["z"])
    assert policy.obs_dim == 1


def test_an_interval_beyond_the_training_is_refused():
    with pytest.raises(ValueError, match="`eval_interval`=50"):
        train(make_demonstrations(gaussian_action, n=400), n_epochs=10, eval_interval=50)


def test_an_environment_without_success_is_refused():
    policy = GaussianBCPolicy(3, 1, net_arch=(4,))
    with pytest.raises(ValueError, match="is_success"):
        evaluate_bc(policy, gym.make("Pendulum-v1", max_episode_steps=5), n_episodes=1)
    with pytest.raises(ValueError, match="action space Discrete"):
        evaluate_bc(policy, gym.make("CartPole-v1"), n_episodes=1)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (43, 200)])
def test_wilson_interval_is_scipys(successes, n):
    reference = binomtest(successes, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, n), (reference.low, reference.high), atol=1e-6)


def test_command_line_trains_saves_and_says_so(tmp_path, capsys):
    data = save_npz(make_demonstrations(gaussian_action, n=400), tmp_path / "d.npz")
    out = tmp_path / "new" / "policy.pt"
    arguments = ["bc", "--data", str(data), "--out", str(out), "--n-epochs", "4", "--eval-interval", "2"]
    assert main([*arguments, "--net-arch", "8"]) == 0
    printed = capsys.readouterr().out
    assert "20 episodes (scripted), 400 steps" in printed
    assert str(out) in printed
    assert BCPolicyAdapter.from_checkpoint(out).net_arch == (8,)
    assert list(out.parent.iterdir()) == [out]


def test_command_line_errors_are_one_line_and_a_status(tmp_path, capsys):
    assert main(["bc", "--data", "nowhere.npz", "--out", str(tmp_path / "p.pt")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: There are no demonstrations nowhere.npz")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env", "Reech-v0"], "error: Environment `Reech` doesn't exist"),
        (["--out", "."], "error: `path` . is a folder"),
        (["--out", "{folder}"], "is a folder. Name a file in it"),
        (["--out", "{folder}/d.npz/policy.pt"], "cannot be written: Not a directory"),
    ],
)
def test_what_cannot_work_is_told_before_the_training(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.setattr("sb3_q2rl.bc.cli.train_bc", lambda *_, **__: pytest.fail("it began to train"))
    data = save_npz(make_demonstrations(gaussian_action, n=400), tmp_path / "d.npz")
    options = [option.format(folder=tmp_path) for option in options]
    assert main(["bc", "--data", str(data), "--out", str(tmp_path / "p.pt"), *options]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [data]
