"""One door for checkpoints: ours by path and by name; everything else is refused with what is known."""

import zipfile

import numpy as np
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


def test_files_that_would_fill_the_memory_are_refused(tmp_path):
    path = tmp_path / "large.pt"
    th.save({"actor": {"net.0.weight": th.zeros(1, 1).expand(60_000, 60_000)}}, path)  # 4 bytes claim to be 14 GB
    with pytest.raises(ValueError, match=r"was refused.*\(60000, 60000\) holds only 4 bytes"):
        BCPolicyAdapter.from_checkpoint(path)
    make_policy().save(tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in whole.infolist():
            packed.writestr(part.filename, whole.read(part))
    with pytest.raises(ValueError, match=r"was refused.*compressed"):
        BCPolicyAdapter.from_checkpoint(path)


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_is_told_with_the_name_of_the_file(tmp_path, seed):
    """In the weights it may also go unnoticed."""
    path, rng = tmp_path / "policy.pt", np.random.default_rng(seed)
    content = bytearray(make_policy().save(path).read_bytes())
    for position in rng.integers(len(content), size=5):
        content[position] = rng.integers(256)
    path.write_bytes(content)
    try:
        BCPolicyAdapter.from_checkpoint(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_a_policy_of_flat_observations_reads_a_dict_by_the_users_keys(tmp_path):
    policy = make_policy()
    path, obs = policy.save(tmp_path / "own.pt"), th.randn(2, policy.obs_dim)
    start = np.ones(2, dtype=bool)
    named = BCPolicyAdapter.from_checkpoint(path, observation_keys=["b", "time"])
    in_parts = {"time": obs[:, -1], "b": obs[:, :-1]}
    th.testing.assert_close(
        named.step(in_parts, None, start, True).actions, policy.step(obs, None, start, True).actions
    )
    named.save(path)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"reads \['b', 'time'\], and says so itself"):
        BCPolicyAdapter.from_checkpoint(path, observation_keys=["time", "b"])


def test_hostile_and_cut_files_are_refused(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "hostile.pt"
    th.save({"x": Canary(canary)}, path)
    with pytest.raises(ValueError, match="could execute code"):
        BCPolicyAdapter.from_checkpoint(path)
    assert not canary.exists()
    path.write_bytes(make_policy().save(tmp_path / "whole.pt").read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged"):
        BCPolicyAdapter.from_checkpoint(path)
