"""One door for checkpoints: ours by path and by name; everything else is refused with what is known."""

import pytest
import torch as th
from test_gaussian_bc import START, Canary, make_policy

from sb3_q2rl.bc import BCPolicy, BCPolicyAdapter, GaussianBCPolicy

SHIPPED = {"adroit-door-human": (39, 28), "adroit-pen-dapg": (45, 24), "robomimic-lift": (19, 7)}
SOURCES = {"adroit-door-human": "human", "adroit-pen-dapg": "policy-generated", "robomimic-lift": "scripted"}


def test_our_own_file(tmp_path):
    policy = make_policy(2)
    loaded = BCPolicyAdapter.from_checkpoint(policy.save(tmp_path / "any.name"))
    obs = th.randn(3, 3)
    th.testing.assert_close(
        loaded.step(obs, None, START, deterministic=True).log_prob,
        policy.step(obs, None, START, deterministic=True).log_prob,
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policies_load_by_name_and_are_sane(name):
    policy = BCPolicyAdapter.from_checkpoint(name)
    assert isinstance(policy, BCPolicy)
    assert isinstance(policy, GaussianBCPolicy)
    assert (policy.obs_dim, policy.action_dim) == SHIPPED[name]
    assert policy.training_record["source"] == SOURCES[name]
    step = policy.step(th.zeros(2, policy.obs_dim), None, START)
    assert th.isfinite(step.log_prob).all()
    assert (step.actions.abs() <= 1).all()


def test_unknown_files_list_the_known_kinds_and_names(tmp_path):
    th.save({"model": {"weight": th.zeros(2)}}, tmp_path / "foreign.pt")
    (tmp_path / "text.pt").write_text("no policy")
    for name in ("foreign.pt", "text.pt"):
        with pytest.raises(ValueError, match=r"known kind.*train_bc.*adroit-door-human"):
            BCPolicyAdapter.from_checkpoint(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"neither a file nor .*adroit-door-human, adroit-pen-dapg"):
        BCPolicyAdapter.from_checkpoint("adroit-dor-human")


def test_hostile_and_cut_files_are_refused(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "hostile.pt"
    th.save({"x": Canary(canary)}, path)
    with pytest.raises(ValueError, match="could execute code"):
        BCPolicyAdapter.from_checkpoint(path)
    assert not canary.exists()
    path.write_bytes(make_policy().save(tmp_path / "whole.pt").read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged"):
        BCPolicyAdapter.from_checkpoint(path)
