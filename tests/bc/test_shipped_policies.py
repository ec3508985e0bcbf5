"""Every shipped policy fits the environment of its entry in the configurations, and says how good it is."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml

from sb3_q2rl.bc import BCPolicyAdapter
from sb3_q2rl.bc.adapter import SHIPPED_POLICIES
from sb3_q2rl.zoo_configs import config_path

ENTRIES = yaml.safe_load(config_path("qgated_sac").read_text())
ENVS = {entry["bc_policy"]: env_id for env_id, entry in ENTRIES.items() if "bc_policy" in entry}
NEEDS = {
    "Adroit": "gymnasium_robotics",
    "FrankaKitchen": "gymnasium_robotics",
    "FrankaKitting": "robosuite",
    "FrankaP": "robosuite",
    "Robomimic": "robosuite",
}


def test_each_is_somebodys_default():
    assert set(ENVS) == set(SHIPPED_POLICIES)


def vector_of(policy, obs):
    """What it reads beside images, if it sees any."""
    return np.concatenate([obs[key] for key in policy.obs_keys]) if isinstance(obs, dict) else obs


@pytest.mark.parametrize("name", SHIPPED_POLICIES)
def test_it_acts_in_its_environment(name):
    import sb3_q2rl.envs  # noqa: F401

    for prefix, package in NEEDS.items():
        if ENVS[name].startswith(prefix):
            pytest.importorskip(package, reason=f"{name} acts in {ENVS[name]}, which needs {package}")
    policy, env = BCPolicyAdapter.from_checkpoint(name), gym.make(ENVS[name])
    obs, _ = env.reset(seed=0)
    assert vector_of(policy, obs).shape == (policy.obs_dim,)
    assert env.action_space.shape == (policy.action_dim,)
    # A policy of another task, or of another order of the observations, would find itself far from what it knows
    distance = np.abs((vector_of(policy, obs) - policy.obs_mean.numpy()) / policy.obs_std.numpy())
    assert np.median(distance) < 3
    is_dict = isinstance(obs, dict)
    batch = {key: th.as_tensor(part[None]) for key, part in obs.items()} if is_dict else th.as_tensor(obs[None])
    step = policy.step(batch, None, np.array([True]), deterministic=True)
    assert th.isfinite(step.log_prob).all()
    obs, *_ = env.step(step.actions[0].numpy())
    assert np.isfinite(vector_of(policy, obs)).all()
    env.close()


@pytest.mark.parametrize("name", SHIPPED_POLICIES)
def test_its_success_was_measured(name):
    record = BCPolicyAdapter.from_checkpoint(name).training_record
    for how in ("success_by_mode", "success_by_sample"):
        rate = record[how]
        assert 0 <= rate["low"] <= rate["rate"] <= rate["high"] <= 1
        assert rate["n_episodes"] >= 12
    # The weakest one, of the pipe, shall be as weak as the paper's (.20) in the way in which it acts
    acts_by = "mode" if ENTRIES[ENVS[name]].get("bc_deterministic", True) else "sample"
    rate = record[f"success_by_{acts_by}"]
    assert rate.get("score", rate["rate"]) > 0.15
