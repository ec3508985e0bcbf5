"""Policies of CORL, d3rlpy and the official release: files that those wrote, against what those say about them."""

import io
import json
import math
import pickle
import sys
import warnings
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch as th
from test_gaussian_bc import START, Canary
from torch.distributions import AffineTransform, Independent, Normal, TanhTransform, TransformedDistribution

from sb3_q2rl.bc import BCPolicy, BCPolicyAdapter
from sb3_q2rl.bc.readers.network import Rescaled

FILES = Path(__file__).parent / "files"
UNNORMALISED = {"observation_mean": [0.0] * 5, "observation_std": [1.0] * 5}
# file: (squashed how, arguments)
GAUSSIANS = {
    "corl_iql.pt": ("none", UNNORMALISED),
    "corl_awac.pt": ("none", UNNORMALISED),
    "corl_cql.pt": ("action", UNNORMALISED),
    "corl_edac.pt": ("action", {}),
    "d3rlpy_bc_stochastic.d3": ("none", {}),
    "d3rlpy_awac.d3": ("none", {}),
    "d3rlpy_iql.d3": ("none", {}),
    "d3rlpy_cql.d3": ("action", {}),
    "d3rlpy_sac.d3": ("action", {}),
    "flax_bc.msgpack": ("none", {}),
}
DETERMINISTIC = {
    "corl_bc.pt": UNNORMALISED,
    "corl_iql_deterministic.pt": UNNORMALISED,
    "d3rlpy_bc.d3": {},
    "d3rlpy_td3_plus_bc.d3": {},
}
# what d3rlpy's action scaler does to the policy's [-1, 1]
INSIDE = (np.array([-0.9, -0.5, -1.0], np.float32), np.array([0.8, 1.0, 0.2], np.float32))
BEYOND = (np.array([-2.0, -2.0, -3.0], np.float32), np.array([2.0, 2.0, 1.0], np.float32))
SCALED = {"d3rlpy_awac.d3": INSIDE, "d3rlpy_cql.d3": INSIDE, "d3rlpy_bc.d3": INSIDE, "d3rlpy_sac.d3": BEYOND}


def expected(name):
    with np.load((FILES / name).with_suffix(".npz")) as outputs:
        return {key: th.as_tensor(outputs[key]) for key in outputs.files}


def scale_and_shift(name):
    """From the policy's own action to ours."""
    low, high = SCALED.get(name, (-np.ones(3, np.float32), np.ones(3, np.float32)))
    if SCALED.get(name) is BEYOND:  # the environment has these bounds: they are our -1 and 1
        low, high = -np.ones(3, np.float32), np.ones(3, np.float32)
    return th.as_tensor((high - low) / 2), th.as_tensor((high + low) / 2)


def our_mean(name, theirs):
    """Their prediction is in the scale of the data."""
    if SCALED.get(name) is BEYOND:
        low, high = map(th.as_tensor, BEYOND)
        return 2 * (theirs - low) / (high - low) - 1
    return theirs


@pytest.mark.parametrize("name", GAUSSIANS)
def test_modes_scales_and_log_probs_are_those_of_the_original(name):
    squash, kwargs = GAUSSIANS[name]
    theirs = expected(name)
    policy = BCPolicyAdapter.from_checkpoint(FILES / name, **kwargs)
    assert isinstance(policy, BCPolicy)
    step = policy.step(theirs["obs"], None, START, deterministic=True)
    mean = our_mean(name, theirs["mean"])
    th.testing.assert_close(step.actions, mean.clamp(-1, 1), atol=2e-6, rtol=1e-5)

    distribution = policy.distribution(theirs["obs"])
    scale, shift = scale_and_shift(name)
    own_actions = theirs.get("actions_of_its_own", theirs["actions"])
    log_prob = distribution.log_prob(scale * own_actions + shift)
    # a = scale x + shift: log p(a) = log p(x) - sum log scale
    th.testing.assert_close(log_prob, theirs["log_prob"] - scale.log().sum(), atol=2e-3, rtol=1e-4)

    # the same by torch.distributions, from the original's numbers
    own_mean = (mean - shift) / scale
    if squash == "none":
        reference = Independent(Normal(own_mean, theirs["std"]), 1)
    else:
        reference = Independent(TransformedDistribution(Normal(own_mean.atanh(), theirs["std"]), TanhTransform()), 1)
    inside = (own_mean.abs().amax(dim=1) < 0.999) | (squash == "none")  # where tanh can be inverted
    assert inside.any()
    same = reference.log_prob(own_actions)[inside]
    th.testing.assert_close(same, theirs["log_prob"][inside], atol=5e-3, rtol=1e-3)
    if squash == "none":
        th.testing.assert_close(distribution.stddev, theirs["std"] * scale, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_actors_act_as_the_original_and_take_a_density(name):
    theirs = expected(name)
    kwargs = DETERMINISTIC[name]
    plain = BCPolicyAdapter.from_checkpoint(FILES / name, **kwargs).step(theirs["obs"], None, START)
    th.testing.assert_close(plain.actions, our_mean(name, theirs["mean"]), atol=2e-6, rtol=1e-5)
    assert plain.log_prob is None
    density = {"kind": "fixed", "scale": 0.2}
    fixed = BCPolicyAdapter.from_d4rl(FILES / name, density=density, **kwargs)
    step = fixed.step(theirs["obs"], None, START, deterministic=True)
    th.testing.assert_close(step.log_prob + step.entropy, th.full((6,), 1.5))


@pytest.mark.parametrize("name", GAUSSIANS)
def test_log_prob_and_entropy_of_samples_cancel_on_average(name):
    th.manual_seed(0)
    theirs = expected(name)
    policy = BCPolicyAdapter.from_checkpoint(FILES / name, **GAUSSIANS[name][1])
    step = policy.step(theirs["obs"].repeat(4000, 1), None, START)
    term = (step.log_prob + step.entropy).view(4000, 6)
    error = term.mean(dim=0).abs() / (term.std(dim=0) / math.sqrt(4000))
    assert error.max() < 5, error
    # the executed action is the one that was scored, clipped
    scored = policy.distribution(theirs["obs"].repeat(4000, 1)).log_prob(step.actions)
    scale, shift = scale_and_shift(name)
    inside = (((step.actions - shift) / scale).abs().amax(dim=1) < 0.99) & (step.actions.abs().amax(dim=1) < 1)
    th.testing.assert_close(scored[inside], step.log_prob[inside], atol=2e-2, rtol=1e-3)


def test_rescaled_is_torchs_affine_transform():
    th.manual_seed(0)
    normal = Independent(Normal(th.randn(5, 2), th.rand(5, 2) + 0.1), 1)
    scale, shift = th.tensor([0.5, 0.25]), th.tensor([0.1, -0.3])
    ours = Rescaled(normal, scale, shift)
    reference = TransformedDistribution(normal, AffineTransform(shift, scale, event_dim=1))
    actions = th.rand(5, 2)
    th.testing.assert_close(ours.log_prob(actions), reference.log_prob(actions))
    exact = Independent(Normal(normal.mean * scale + shift, normal.stddev * scale), 1)
    th.testing.assert_close(ours.entropy(), exact.entropy())
    th.testing.assert_close(ours.mode, exact.mode)


@pytest.mark.parametrize("name", ["corl_iql.pt", "corl_cql.pt", "corl_bc.pt", "flax_bc.msgpack"])
def test_observation_statistics_are_applied(name):
    theirs = expected(name)
    mean, std = th.arange(5.0), th.arange(1.0, 6.0)
    policy = BCPolicyAdapter.from_d4rl(FILES / name, observation_mean=mean.tolist(), observation_std=std.tolist())
    step = policy.step(theirs["obs"] * std + mean, None, START, deterministic=True)
    th.testing.assert_close(step.actions, theirs["mean"].clamp(-1, 1), atol=2e-5, rtol=1e-4)


def test_statistics_in_the_file_are_found_and_the_users_go_before_them(tmp_path):
    theirs, path = expected("corl_iql.pt"), tmp_path / "iql.pt"
    saved = th.load(FILES / "corl_iql.pt", weights_only=True)
    th.save(saved | {"state_mean": th.full((5,), 2.0), "state_std": th.full((5,), 3.0)}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored, given = BCPolicyAdapter.from_checkpoint(path), BCPolicyAdapter.from_checkpoint(path, **UNNORMALISED)
    std_alone = saved | {"state_std": th.full((5,), 3.0)}
    th.save(std_alone, path)
    with pytest.raises(ValueError, match="only `observation_std` is there"):
        BCPolicyAdapter.from_checkpoint(path)
    for policy, obs in ((stored, theirs["obs"] * 3 + 2), (given, theirs["obs"])):
        step = policy.step(obs, None, START, deterministic=True)
        th.testing.assert_close(step.actions, theirs["mean"].clamp(-1, 1), atol=2e-5, rtol=1e-4)


def test_missing_statistics_are_mentioned_where_the_script_normalises():
    with pytest.warns(UserWarning, match=r"does not hold the mean .*CORL: std \+ 1e-3.*`observation_mean`"):
        BCPolicyAdapter.from_checkpoint(FILES / "corl_bc.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BCPolicyAdapter.from_checkpoint(FILES / "corl_edac.pt")  # its script never does


def test_statistics_that_do_not_fit_are_refused():
    for kwargs, message in (
        (
            {"observation_mean": [0.0] * 4, "observation_std": [1.0] * 5},
            r"`observation_mean` has the shape \(4,\), but the policy reads .*\(5,\)",
        ),
        ({"observation_mean": [0.0] * 5}, "only `observation_mean` is there.*with both, or with neither"),
        ({"observation_mean": [0.0] * 5, "observation_std": [1.0] * 4 + [0.0]}, "`observation_std` must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            BCPolicyAdapter.from_checkpoint(FILES / "corl_iql.pt", **kwargs)
    with pytest.raises(ValueError, match=r"holds its own observation scaler \(standard\)"):
        BCPolicyAdapter.from_checkpoint(FILES / "d3rlpy_bc.d3", **UNNORMALISED)
    with pytest.raises(ValueError, match=r"`observation_mean` or .* was given, but adroit.*|holds its own"):
        BCPolicyAdapter.from_checkpoint("adroit-door-human", observation_mean=[0.0] * 39)


@pytest.mark.parametrize("nest", ["bare", "actor", "policy", "ddp"])
def test_where_a_state_dict_may_lie(tmp_path, nest):
    theirs, path = expected("corl_edac.pt"), tmp_path / "edac.pt"
    state = th.load(FILES / "corl_edac.pt", weights_only=True)
    other = {"critic": {"net.0.weight": th.zeros(2, 2)}}
    if nest == "ddp":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    th.save(state if nest in ("bare", "ddp") else {nest: state, **other}, path)
    step = BCPolicyAdapter.from_checkpoint(path).step(theirs["obs"], None, START, deterministic=True)
    th.testing.assert_close(step.actions, theirs["mean"], atol=2e-6, rtol=1e-5)


def test_unknown_layouts_list_what_came_and_what_is_known(tmp_path):
    state = th.load(FILES / "corl_edac.pt", weights_only=True)
    for change in ({"norm.weight": th.ones(16)}, {"trunk.6.weight": th.ones(16)}):
        th.save(state | change, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=r"unknown layout: trunk\.0\.weight, .*CORL IQL.*from_distribution"):
            BCPolicyAdapter.from_checkpoint(tmp_path / "x.pt")


def test_a_checkpoints_weights_move_are_hashed_and_are_frozen():
    policy = BCPolicyAdapter.from_checkpoint(FILES / "flax_bc.msgpack")
    assert len(policy.state_dict()) >= 8
    assert not any(p.requires_grad for p in policy.parameters())
    assert policy.to("cpu") is policy


def test_dict_observations_are_concatenated_by_the_users_keys():
    theirs = expected("flax_bc.msgpack")
    policy = BCPolicyAdapter.from_d4rl(FILES / "flax_bc.msgpack", observation_keys=["b", "a"])
    obs = {"a": theirs["obs"][:, 2:], "b": theirs["obs"][:, :2], "c": theirs["obs"]}
    step = policy.step(obs, None, START, deterministic=True)
    th.testing.assert_close(step.actions, theirs["mean"].clamp(-1, 1), atol=2e-6, rtol=1e-5)
    with pytest.raises(ValueError, match=r"Name what to concatenate"):
        BCPolicyAdapter.from_d4rl(FILES / "flax_bc.msgpack").step(obs, None, START)


# ------------------------------------------------------------------------------------------------------------ d3rlpy


def altered_d3(path, name="d3rlpy_awac.d3", **changes):
    """The file with parts of its configuration replaced: ``part__key=value``."""
    saved = pickle.loads((FILES / name).read_bytes())
    config = json.loads(saved["config"])
    for where, value in changes.items():
        *parents, key = where.split("__")
        part = config
        for parent in parents:
            part = part[parent]
        part[key] = value
    saved["config"] = json.dumps(config)
    path.write_bytes(pickle.dumps(saved))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config__type": "plas"}, r"d3rlpy's 'plas'; those of bc, .* can be read"),
        ({"observation_shape": [3, 84, 84]}, r"shape \[3, 84, 84\].*only vectors"),
        ({"config__params__actor_encoder_factory": {"type": "simba", "params": {}}}, "encoder 'simba'"),
        ({"config__params__observation_scaler": {"type": "pixel", "params": {}}}, "scaler 'pixel' is not supported"),
        ({"config__params__actor_encoder_factory__params__activation": "geglu"}, "activation 'geglu'"),
        ({"config__params": {}}, "unknown layout, or damaged"),
        ({"config__params__actor_encoder_factory__params__hidden_units": [8]}, "unknown layout, or damaged"),
        ({"action_size": 2}, "has the bounds"),
    ],
)
def test_d3rlpy_files_that_are_not_supported_say_why(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        BCPolicyAdapter.from_checkpoint(altered_d3(tmp_path / "x.d3", **changes))


def test_d3rlpy_policies_know_the_bounds_of_their_environment():
    for name, bounds in (("d3rlpy_sac.d3", BEYOND), ("d3rlpy_cql.d3", (-np.ones(3), np.ones(3)))):
        box = BCPolicyAdapter.from_checkpoint(FILES / name).action_space
        np.testing.assert_allclose((box.low, box.high), bounds)


@pytest.mark.parametrize("where", ["pickle", "torch part"])
def test_hostile_d3_files_are_refused_and_not_executed(tmp_path, where):
    canary, path = tmp_path / "canary", tmp_path / "x.d3"
    saved = pickle.loads((FILES / "d3rlpy_awac.d3").read_bytes())
    if where == "pickle":
        saved["config"] = Canary(canary)
    else:
        inner = io.BytesIO()
        th.save({"policy": Canary(canary)}, inner)
        saved["torch"] = inner.getvalue()
    path.write_bytes(pickle.dumps(saved))
    with pytest.raises(ValueError, match="could execute code"):
        BCPolicyAdapter.from_checkpoint(path)
    assert not canary.exists()


def test_a_pickle_of_a_few_bytes_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "x.d3"
    path.write_bytes(b"\x80\x04K\x01r" + (2**31).to_bytes(4, "little") + b".")  # "remember 1 as entry 2**31"
    with pytest.raises(ValueError, match=r"memo of 2,147,483,648 entries"):
        BCPolicyAdapter.from_checkpoint(path)


# -------------------------------------------------------------------------------------------------------------- flax


def flax_tree():
    return msgpack.unpackb((FILES / "flax_bc.msgpack").read_bytes())


def write_flax(path, actor=None, **others):
    tree = flax_tree()
    params = tree["state"]["params"]
    params["modules_actor"] = params["modules_actor"] if actor is None else actor
    params.update(others)
    path.write_bytes(msgpack.packb(tree))
    return path


def packed(array):
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def test_one_scale_for_all_states_in_flax(tmp_path):
    actor = flax_tree()["state"]["params"]["modules_actor"]
    del actor["Dense_1"]
    actor["log_stds"] = packed(np.array([-30.0, 0.5, 30.0], np.float32))
    policy = BCPolicyAdapter.from_checkpoint(write_flax(tmp_path / "x", actor))
    std = policy.distribution(th.zeros(1, 5)).stddev[0]
    th.testing.assert_close(std, th.tensor([1e-5, math.exp(0.5), 10.0]))  # clipped as the release does


def test_params_alone_are_read_too(tmp_path):
    (tmp_path / "x").write_bytes(msgpack.packb(flax_tree()["state"]["params"]))
    theirs = expected("flax_bc.msgpack")
    step = BCPolicyAdapter.from_d4rl(tmp_path / "x").step(theirs["obs"], None, START, deterministic=True)
    th.testing.assert_close(step.actions, theirs["mean"].clamp(-1, 1), atol=2e-6, rtol=1e-5)


def test_other_flax_checkpoints_say_why_they_are_refused(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(ValueError, match=r"\['modules_actor', 'modules_critic'\].*modules_actor alone"):
        BCPolicyAdapter.from_checkpoint(write_flax(path, modules_critic={}))
    actor = flax_tree()["state"]["params"]["modules_actor"]
    network = actor["network"] | {"LayerNorm_0": {}}
    with pytest.raises(ValueError, match=r"LayerNorm_0.*only dense layers"):
        BCPolicyAdapter.from_checkpoint(write_flax(path, actor | {"network": network}))
    with pytest.raises(ValueError, match=r"orbax.*flax\.serialization\.to_bytes"):
        BCPolicyAdapter.from_checkpoint(write_flax(path, actor | {"Dense_0": {"kernel": "PLACEHOLDER://x"}}))
    with pytest.raises(ValueError, match=r"unknown network \(KeyError\('Dense_1'\)\)"):
        BCPolicyAdapter.from_checkpoint(write_flax(path, {k: v for k, v in actor.items() if k != "Dense_1"}))


@pytest.mark.parametrize(
    "leaf",
    [
        msgpack.ExtType(42, b"code"),
        msgpack.ExtType(1, msgpack.packb(((2**40, 2**20), "float32", b"abcd"))),  # claims more than it has
        msgpack.ExtType(1, msgpack.packb(((1,), "object", b"abcdefgh"))),
        msgpack.ExtType(1, b"\xc1"),
    ],
)
def test_hostile_msgpack_is_refused(tmp_path, leaf):
    actor = flax_tree()["state"]["params"]["modules_actor"]
    actor["Dense_0"]["kernel"] = leaf
    with pytest.raises(ValueError, match=r"damaged or of another kind"):
        BCPolicyAdapter.from_checkpoint(write_flax(tmp_path / "x", actor))


def test_a_msgpack_header_that_claims_billions_of_entries_costs_nothing(tmp_path):
    nested = b"\x81\xa1a" + b"\xdd\x00\x0f\xff\xff" * 500  # arrays in arrays, each of a million entries
    (tmp_path / "x").write_bytes(nested + bytes(2_000_000))
    with pytest.raises(ValueError, match=r"damaged or of another kind"):
        BCPolicyAdapter.from_checkpoint(tmp_path / "x")


def test_without_msgpack_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ImportError, match=r"pip install sb3_q2rl\[flax\]"):
        BCPolicyAdapter.from_checkpoint(FILES / "flax_bc.msgpack")
    BCPolicyAdapter.from_checkpoint(FILES / "corl_edac.pt")  # the others do without


# --------------------------------------------------------------------------------------------------------------- all


@pytest.mark.parametrize("name", [*GAUSSIANS, *DETERMINISTIC])
def test_cut_files_are_refused(tmp_path, name):
    content = (FILES / name).read_bytes()
    for cut in (len(content) - 60, len(content) // 2, 40):
        (tmp_path / name).write_bytes(content[:cut])
        with pytest.raises(ValueError, match="damaged|cut off|refused"):
            BCPolicyAdapter.from_checkpoint(tmp_path / name)


def test_nan_weights_are_refused(tmp_path):
    path = tmp_path / "x"
    state = th.load(FILES / "corl_edac.pt", weights_only=True)
    state["mu.bias"][1] = th.nan
    th.save(state, path)
    with pytest.raises(ValueError, match=r"NaN or infinity in mean\.bias"):
        BCPolicyAdapter.from_checkpoint(path)
    actor = flax_tree()["state"]["params"]["modules_actor"]
    actor["Dense_0"]["bias"] = packed(np.array([0, np.inf, 0], np.float32))
    with pytest.raises(ValueError, match=r"NaN or infinity in mean\.bias"):
        BCPolicyAdapter.from_checkpoint(write_flax(path, actor))


def test_shapes_that_do_not_fit_together_are_refused(tmp_path):
    state = th.load(FILES / "corl_edac.pt", weights_only=True)
    state["trunk.2.weight"] = th.zeros(16, 7)
    th.save(state, tmp_path / "x")
    with pytest.raises(ValueError, match="its layers do not fit together"):
        BCPolicyAdapter.from_checkpoint(tmp_path / "x")


def test_a_density_for_a_policy_that_has_one_is_refused():
    with pytest.raises(ValueError, match="has a density of its own"):
        BCPolicyAdapter.from_d4rl(FILES / "flax_bc.msgpack", density="fixed")


def test_from_d4rl_does_not_take_files_of_other_kinds():
    with pytest.raises(ValueError, match=r"Known kinds: d3rlpy .*official Q2RL"):
        BCPolicyAdapter.from_d4rl(FILES / "sb3_221_ppo.zip")
