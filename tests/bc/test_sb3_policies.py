"""Policies of Stable-Baselines3, sb3-contrib and imitation: files and objects against their own live modules."""

import base64
import copy
import json
import math
import pickle
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import TQC, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from test_gaussian_bc import START, Canary
from torch import nn
from worlds import ReachEnv, reach, small_model

from sb3_q2rl import QGatedSAC
from sb3_q2rl.bc import BCPolicy, BCPolicyAdapter
from sb3_q2rl.bc.readers import sb3_files

FILES = Path(__file__).parent / "files"
LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.5], np.float32)
ON_POLICY = {"PPO": PPO, "A2C": A2C}
SQUASHED = {"SAC": SAC, "TQC": TQC}
DETERMINISTIC = {"TD3": TD3, "DDPG": DDPG}
ALL = ON_POLICY | SQUASHED | DETERMINISTIC


class Unequal(ReachEnv):
    """Actions with other bounds in every dimension."""

    def __init__(self, kind="flat"):
        super().__init__(kind)
        self.action_space = gym.spaces.Box(LOW, HIGH)


def make(name, env=None, policy="MlpPolicy", **kwargs):
    """A model with random weights that are large enough for every non-linearity to matter."""
    policy_kwargs = {"net_arch": [8, 8], **kwargs.pop("policy_kwargs", {})}
    if name not in ON_POLICY:
        kwargs["buffer_size"] = 10
    model = ALL[name](policy, env or Unequal(), policy_kwargs=policy_kwargs, seed=1, device="cpu", **kwargs)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.2 * th.randn_like(parameter))
    return model


def saved(model, path, how):
    if how == "model":
        model.save(path / "m.zip")
        return path / "m.zip"
    if how == "policy":
        model.policy.save(path / "p.pth")
        return path / "p.pth"
    return model if how == "model object" else model.policy


def to_ours(actions):
    low, high = th.as_tensor(LOW), th.as_tensor(HIGH)
    return 2 * (th.as_tensor(actions) - low) / (high - low) - 1


HOW = ["model", "policy", "model object", "policy object"]
OBS = th.linspace(-2, 2, 12).view(6, 2)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ALL)
def test_actions_are_those_that_sb3_predicts(tmp_path, name, how):
    model = make(name)
    policy = BCPolicyAdapter.from_sb3(saved(model, tmp_path, how))
    assert isinstance(policy, BCPolicy)
    step = policy.step(OBS, None, START, deterministic=True)
    predicted, _ = model.predict(OBS.numpy(), deterministic=True)  # clipped or unscaled to the environment's bounds
    th.testing.assert_close(step.actions, to_ours(predicted), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose((policy.action_space.low, policy.action_space.high), (LOW, HIGH))


@pytest.mark.parametrize("name", ["PPO", "A2C", "SAC", "TD3"])
def test_a_model_that_was_just_trained_is_taken_as_it_is(name):
    """Its distribution still hangs on the graph of the last update."""
    sizes = {"n_steps": 8} if name in ON_POLICY else {"learning_starts": 4}
    model = make(name, **sizes).learn(16)
    model.policy.get_distribution(th.zeros(1, 2)) if name in ON_POLICY else None
    policy = BCPolicyAdapter.from_sb3(model)
    obs = np.array([[0.3, -0.6]], np.float32)
    theirs, _ = model.predict(obs, deterministic=True)
    ours = policy.step(th.as_tensor(obs), None, START[:1], deterministic=True).actions
    np.testing.assert_allclose(ours, to_ours(theirs), atol=1e-6)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ON_POLICY)
def test_densities_of_ppo_and_a2c_are_sb3s_in_our_scale(tmp_path, name, how):
    model = make(name)
    policy = BCPolicyAdapter.from_sb3(saved(model, tmp_path, how))
    actions = th.as_tensor(np.random.default_rng(0).uniform(LOW, HIGH, (6, 2)).astype(np.float32))
    with th.no_grad():
        _, log_prob, entropy = model.policy.evaluate_actions(OBS, actions)
        std = model.policy.get_distribution(OBS).distribution.stddev
    # a' = 2 (a - low) / (high - low) - 1: log p(a') = log p(a) + sum log((high - low) / 2)
    half = th.as_tensor((HIGH - LOW) / 2)
    distribution = policy.distribution(OBS)
    th.testing.assert_close(distribution.log_prob(to_ours(actions)), log_prob + half.log().sum())
    th.testing.assert_close(distribution.entropy(), entropy - half.log().sum())
    th.testing.assert_close(distribution.stddev, std / half)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", SQUASHED)
def test_densities_of_sac_and_tqc_are_sb3s(tmp_path, name, how):
    model = make(name)
    policy = BCPolicyAdapter.from_sb3(saved(model, tmp_path, how))
    th.manual_seed(3)
    with th.no_grad():
        actions, log_prob = model.actor.action_log_prob(OBS)
    inside = actions.abs().amax(dim=1) < 0.98  # SB3 adds 1e-6 to 1 - a^2, which shows near the edge
    assert inside.sum() >= 2
    th.testing.assert_close(policy.distribution(OBS).log_prob(actions)[inside], log_prob[inside], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("how", ["policy", "model object"])
@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_log_prob_and_entropy_of_samples_cancel_on_average(tmp_path, name, how):
    th.manual_seed(0)
    policy = BCPolicyAdapter.from_sb3(saved(make(name), tmp_path, how))
    step = policy.step(OBS.repeat(4000, 1), None, START)
    term = (step.log_prob + step.entropy).view(4000, 6)
    error = term.mean(dim=0).abs() / (term.std(dim=0) / math.sqrt(4000))
    assert error.max() < 5, error


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_policies_take_a_density(tmp_path, name):
    model = make(name)
    for how in HOW:
        policy = BCPolicyAdapter.from_sb3(saved(model, tmp_path, how), density="fixed")
        step = policy.step(OBS, None, START, deterministic=True)
        th.testing.assert_close(step.log_prob + step.entropy, th.full((6,), 1.0))
    with pytest.raises(ValueError, match="has a density of its own"):
        BCPolicyAdapter.from_sb3(make("PPO"), density="fixed")


@pytest.mark.parametrize(
    ("name", "policy_kwargs"),
    [
        ("PPO", {"activation_fn": nn.ReLU, "net_arch": {"pi": [6], "vf": [5, 4]}}),
        ("PPO", {"activation_fn": nn.LeakyReLU, "net_arch": []}),
        ("A2C", {"share_features_extractor": False}),
        ("SAC", {"activation_fn": nn.ELU, "net_arch": {"pi": [7, 7, 7], "qf": [4]}}),
        ("TD3", {"activation_fn": nn.Tanh, "net_arch": []}),
    ],
)
@pytest.mark.parametrize("how", ["model", "policy"])
def test_architectures_are_read_from_files(tmp_path, name, policy_kwargs, how):
    model = make(name, policy_kwargs=policy_kwargs)
    step = BCPolicyAdapter.from_checkpoint(saved(model, tmp_path, how)).step(OBS, None, START, deterministic=True)
    th.testing.assert_close(step.actions, to_ours(model.predict(OBS.numpy(), deterministic=True)[0]))


def test_a_seeded_space_with_its_generator_is_read(tmp_path):
    model = make("PPO")
    model.policy.action_space.seed(3)
    model.policy.observation_space.seed(3)
    model.policy.observation_space.sample()
    BCPolicyAdapter.from_sb3(saved(model, tmp_path, "policy"))


@pytest.mark.parametrize("how", ["model", "policy"])
def test_dict_observations_from_a_file_are_concatenated_by_keys(tmp_path, how):
    model = make("SAC", Unequal("dict"), "MultiInputPolicy")
    path = saved(model, tmp_path, how)
    obs = {"position": OBS, "clock": th.rand(6, 1)}
    expected = to_ours(model.predict({k: v.numpy() for k, v in obs.items()}, deterministic=True)[0])
    policy = BCPolicyAdapter.from_sb3(path, observation_keys=["clock", "position"])  # SB3's order: by name
    th.testing.assert_close(policy.step(obs, None, START, deterministic=True).actions, expected)
    with pytest.raises(ValueError, match="Name what to concatenate"):
        BCPolicyAdapter.from_sb3(path).step(obs, None, START)
    live = BCPolicyAdapter.from_sb3(model)
    th.testing.assert_close(live.step(obs, None, START, deterministic=True).actions, expected)


@pytest.mark.parametrize("name", ["PPO", "SAC", "TD3"])
def test_images_need_the_object_or_trust(tmp_path, name):
    model = make(name, Unequal("image"), "CnnPolicy", policy_kwargs={"features_extractor_kwargs": {"features_dim": 8}})
    images = np.stack([model.observation_space.sample() for _ in range(3)])
    expected = to_ours(model.predict(images, deterministic=True)[0])
    paths = [saved(model, tmp_path, how) for how in ("model", "policy")]
    for path in paths:
        with pytest.raises(ValueError, match=r"feature extractor with weights.*`allow_pickle=True`.*PPO\.load"):
            BCPolicyAdapter.from_checkpoint(path)
    trusted = [BCPolicyAdapter.from_checkpoint(path, allow_pickle=True) for path in paths]
    for policy in (*trusted, BCPolicyAdapter.from_sb3(model)):
        step = policy.step(th.as_tensor(images), None, START, deterministic=True)
        th.testing.assert_close(step.actions, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="`observation_mean` and .* are for vectors"):
        BCPolicyAdapter.from_sb3(model, observation_mean=[0.0])


@pytest.mark.parametrize("name", ["PPO", "SAC", "TD3"])
def test_a_trusted_file_is_loaded_by_sb3_itself(tmp_path, name):
    model = make(name)
    for how in ("model", "policy"):
        policy = BCPolicyAdapter.from_checkpoint(saved(model, tmp_path, how), allow_pickle=True)
        step = policy.step(OBS, None, START, deterministic=True)
        th.testing.assert_close(step.actions, to_ours(model.predict(OBS.numpy(), deterministic=True)[0]))


def test_a_pickled_policy_needs_trust(tmp_path):
    model, path = make("PPO"), tmp_path / "pickled.pt"
    th.save(model.policy, path)
    with pytest.raises(ValueError, match=r"could execute code.*`allow_pickle=True`"):
        BCPolicyAdapter.from_checkpoint(path)
    step = BCPolicyAdapter.from_sb3(path, allow_pickle=True).step(OBS, None, START, deterministic=True)
    th.testing.assert_close(step.actions, to_ours(model.predict(OBS.numpy(), deterministic=True)[0]))
    th.save(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="The Linear is no policy or model of Stable-Baselines3"):
        BCPolicyAdapter.from_checkpoint(path, allow_pickle=True)


# ------------------------------------------------------------------------------------- VecNormalize, copies, devices


def test_vec_normalize_of_a_model_is_applied_to_raw_observations(tmp_path):
    env = VecNormalize(DummyVecEnv([Unequal]), clip_obs=1.5)
    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, -1.0]), np.array([0.25, 4.0])
    model = make("PPO", env)
    policy = BCPolicyAdapter.from_sb3(model)
    expected = model.predict(env.normalize_obs(OBS.numpy()), deterministic=True)[0]
    th.testing.assert_close(policy.step(OBS, None, START, deterministic=True).actions, to_ours(expected))
    # from a file, by hand
    std = np.sqrt(env.obs_rms.var + env.epsilon)
    loaded = BCPolicyAdapter.from_sb3(
        saved(model, tmp_path, "model"), observation_mean=env.obs_rms.mean, observation_std=std
    )
    near = th.tensor([[0.2, 0.5], [0.9, -3.0]])  # where nothing is clipped: a file does not tell at what
    expected = model.predict(env.normalize_obs(near.numpy()), deterministic=True)[0]
    th.testing.assert_close(loaded.step(near, None, START, deterministic=True).actions, to_ours(expected))


def test_the_policy_is_a_frozen_copy():
    model = make("PPO")
    policy = BCPolicyAdapter.from_sb3(model)
    before = policy.step(OBS, None, START, deterministic=True).actions
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.zero_()
    assert th.equal(policy.step(OBS, None, START, deterministic=True).actions, before)
    assert not any(p.requires_grad for p in policy.parameters())
    assert all(p.requires_grad for p in model.policy.parameters())


# ---------------------------------------------------------------------------------------- imitation, older versions


@pytest.mark.parametrize("name", ["imitation_bc.pth", "sb3_221_ppo.zip"])
def test_files_of_imitation_and_of_an_older_sb3(name):
    with np.load((FILES / name).with_suffix(".npz")) as outputs:
        theirs = {key: th.as_tensor(outputs[key]) for key in outputs.files}
    policy = BCPolicyAdapter.from_checkpoint(FILES / name)
    half, middle = (theirs["high"] - theirs["low"]) / 2, (theirs["high"] + theirs["low"]) / 2
    distribution = policy.distribution(theirs["obs"])
    th.testing.assert_close(distribution.mean, (theirs["mean"] - middle) / half, atol=1e-5, rtol=1e-5)
    th.testing.assert_close(distribution.stddev, theirs["std"] / half, atol=1e-5, rtol=1e-5)
    log_prob = distribution.log_prob((theirs["actions_unscaled"] - middle) / half)
    th.testing.assert_close(log_prob, theirs["log_prob"] + half.log().sum(), atol=1e-4, rtol=1e-4)


def test_imitations_pickled_module_needs_trust_and_imitation():
    with pytest.raises(ValueError, match=r"could execute code.*allow_pickle=True"):
        BCPolicyAdapter.from_checkpoint(FILES / "imitation_bc_pickled.pt")
    with pytest.raises(ValueError, match=r"needs a class that is not here.*imitation"):
        BCPolicyAdapter.from_checkpoint(FILES / "imitation_bc_pickled.pt", allow_pickle=True)


# --------------------------------------------------------------------------------------------------------- refusals


def test_policies_that_cannot_be_bc_policies_say_why(tmp_path):
    sde = PPO("MlpPolicy", Unequal(), use_sde=True, device="cpu", policy_kwargs={"net_arch": [4]})
    sac_sde = SAC("MlpPolicy", Unequal(), use_sde=True, device="cpu", buffer_size=10)
    discrete = DQN("MlpPolicy", gym.make("CartPole-v1"), device="cpu", buffer_size=10)
    discrete_ppo = PPO("MlpPolicy", gym.make("CartPole-v1"), device="cpu")
    recurrent = RecurrentPPO("MlpLstmPolicy", Unequal(), device="cpu", policy_kwargs={"lstm_hidden_size": 4})
    cases = [(sde, "gSDE"), (sac_sde, "gSDE"), (discrete, "Discrete|unknown"), (discrete_ppo, "Discrete|discrete")]
    for model, message in [*cases, (recurrent, "recurrent")]:
        for how in HOW:
            with pytest.raises(ValueError, match=message):
                BCPolicyAdapter.from_sb3(saved(model, tmp_path, how))


def test_infinite_bounds_are_refused(tmp_path):
    space = gym.spaces.Box(-np.inf, np.inf, (2,))
    policy = ActorCriticPolicy(space, space, lambda _: 0.0)  # imitation makes such policies; SB3's algorithms do not
    policy.save(tmp_path / "p.pth")
    for source in (policy, tmp_path / "p.pth"):
        with pytest.raises(ValueError, match="expected a vector with finite bounds"):
            BCPolicyAdapter.from_sb3(source)


class OwnPolicy(ActorCriticPolicy):
    """What a user may derive."""


class Flipped(FlattenExtractor):
    """A feature extractor without weights."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations).flip(1)


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_an_extractor_of_its_authors_is_not_overlooked(tmp_path, name):
    model = make(name, policy_kwargs={"features_extractor_class": Flipped, "net_arch": [8]})
    with pytest.raises(ValueError, match=r"go through .*Flipped.*, a feature extractor of its author's"):
        BCPolicyAdapter.from_checkpoint(saved(model, tmp_path, "model"))
    plain = make(name, policy_kwargs={"features_extractor_class": FlattenExtractor, "net_arch": [8]})
    BCPolicyAdapter.from_checkpoint(saved(plain, tmp_path, "model"))


def test_a_file_of_a_users_own_class_needs_trust(tmp_path):
    path = saved(PPO(OwnPolicy, Unequal(), device="cpu"), tmp_path, "model")
    with pytest.raises(ValueError, match=r"a class of test_sb3_policies, which is not part of SB3.*allow_pickle"):
        BCPolicyAdapter.from_checkpoint(path)
    assert BCPolicyAdapter.from_checkpoint(path, allow_pickle=True)


def rewritten(path, **parts):
    """The same zip with parts replaced, or left out."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()} | parts
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)
    return path


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("where", ["data", "policy.pth", "policy file", "pickled module"])
def test_hostile_files_are_not_executed(tmp_path, where):
    canary, model = tmp_path / "canary", make("PPO")
    hostile = base64.b64encode(pickle.dumps(Canary(canary))).decode()
    if where == "data":
        path = saved(model, tmp_path, "model")
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
        for name in ("policy_class", "observation_space", "action_space"):
            data[name][":serialized:"] = hostile
        rewritten(path, data=json.dumps(data))
        BCPolicyAdapter.from_checkpoint(path)  # it never looks there, so there is nothing to refuse
    else:
        content = {"state_dict": Canary(canary), "data": {"action_space": Canary(canary)}}
        path = tmp_path / "p.pth"
        th.save(model.policy if where == "pickled module" else content, path)
        if where == "policy.pth":
            path = rewritten(saved(model, tmp_path, "model"), **{"policy.pth": path.read_bytes()})
        with pytest.raises(ValueError, match="could execute code"):
            BCPolicyAdapter.from_checkpoint(path)
    assert not canary.exists()
    if where == "policy file":  # the canary does sing for those who trust it
        with pytest.raises(ValueError):
            BCPolicyAdapter.from_checkpoint(path, allow_pickle=True)
        assert canary.exists()


def test_names_that_stand_for_harmless_classes_give_nothing_else(tmp_path):
    """A policy file may mention getattr (SB3 names a static method by it): it must not get what it asks for."""

    class Getter:
        def __reduce__(self):
            return getattr, (th.optim.Adam, "__init__")

    path = tmp_path / "p.pth"
    th.save({"state_dict": {}, "data": {"action_space": Getter()}}, path)
    with pytest.raises(ValueError, match=r"action space builtins\.getattr; only a Box"):
        BCPolicyAdapter.from_checkpoint(path)


def test_damaged_files_say_so(tmp_path, monkeypatch):
    model = make("PPO")
    for how in ("model", "policy"):
        path = saved(model, tmp_path, how)
        content = path.read_bytes()
        for cut in (len(content) - 30, len(content) // 2, 30):
            path.write_bytes(content[:cut])
            with pytest.raises(ValueError, match="damaged|cut off|refused"):
                BCPolicyAdapter.from_checkpoint(path)
    path = saved(model, tmp_path, "model")
    content = bytearray(path.read_bytes())
    content[content.index(b"policy.pth") + 500] ^= 255  # a flipped bit: the zip's check sum notices
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or cut off"):
        BCPolicyAdapter.from_checkpoint(path)
    for data in (b"no json", b"{}", b"[" * 100_000, b'{"policy_class": 3}'):
        with pytest.raises(ValueError, match="its data lacks what SB3 writes there"):
            BCPolicyAdapter.from_checkpoint(rewritten(saved(model, tmp_path, "model"), data=data))
    monkeypatch.setattr(sb3_files, "_MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="would unpack to more than 1,000 bytes"):
        BCPolicyAdapter.from_checkpoint(saved(model, tmp_path, "model"))


def test_a_zip_that_is_no_model_lists_the_known_kinds(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ValueError, match=r"no BC checkpoint of a known kind.*Stable-Baselines3 and imitation.*d3rlpy"):
        BCPolicyAdapter.from_checkpoint(tmp_path / "x.zip")
    with pytest.raises(ValueError, match=r"Known kinds: Stable-Baselines3 and imitation"):
        BCPolicyAdapter.from_sb3("adroit-door-human")
    with pytest.raises(ValueError, match="The dict is no policy or model"):
        BCPolicyAdapter.from_sb3({})


def test_nan_weights_and_unknown_parts_are_refused(tmp_path):
    model = make("SAC")
    with th.no_grad():
        model.actor.mu.bias[0] = th.nan
    for how in HOW:
        with pytest.raises(ValueError, match="NaN or infinity in"):
            BCPolicyAdapter.from_sb3(saved(model, tmp_path, how))
    model = make("SAC")
    saved(model, tmp_path, "policy")
    content = th.load(tmp_path / "p.pth", weights_only=False)
    content["state_dict"]["actor.latent_pi.1.running_mean"] = th.zeros(8)
    th.save(content, tmp_path / "p.pth")
    with pytest.raises(ValueError, match=r"parts that are not known \(latent_pi\.1\.running_mean\)"):
        BCPolicyAdapter.from_checkpoint(tmp_path / "p.pth")


# ------------------------------------------------------------------------------------------------------- end to end


@pytest.mark.parametrize("how", HOW)
def test_q_gated_sac_learns_from_an_sb3_policy_and_is_saved_and_loaded(tmp_path, how):
    ppo = make("PPO", ReachEnv())
    bc_policy = saved(ppo, tmp_path, how)
    model = small_model(reach(n_envs=2), bc_policy=bc_policy if "object" in how else str(bc_policy))
    model.learn(60)
    assert model.num_timesteps == 60
    model.save(tmp_path / "gated")
    if "object" in how:  # the BC policy is not part of the file: it is passed again
        loaded = QGatedSAC.load(tmp_path / "gated", bc_policy=bc_policy, device="cpu")
    else:
        loaded = QGatedSAC.load(tmp_path / "gated", device="cpu")
    obs = OBS.numpy()
    np.testing.assert_allclose(
        loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0], atol=1e-6
    )


def test_other_action_bounds_than_the_environments_are_refused():
    model = make("PPO")
    with pytest.raises(ValueError, match=r"trained for actions in Box\(.*but the environment's action space is Box"):
        small_model(reach(), bc_policy=model)
    # the same policy in the environment of its training
    small_model(DummyVecEnv([Unequal]), bc_policy=copy.deepcopy(model.policy))
