"""robomimic checkpoints against robomimic's own policies: one of theirs per environment, one of ours for all."""

from __future__ import annotations

import json
import sys
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from robomimic_files import (
    ACTION_DIM,
    CAMERA,
    HORIZON,
    KINDS,
    SHAPES,
    FrameStackWrapper,
    file_utils,
    make_checkpoint,
    obs_utils,
    observations,
)
from test_gaussian_bc import Canary
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from worlds import small_model

from sb3_q2rl import QGatedSAC
from sb3_q2rl.bc import BCPolicy, BCPolicyAdapter
from sb3_q2rl.bc.adapter import SHIPPED_POLICIES
from sb3_q2rl.bc.record import fingerprint

# robomimic's image networks call torchvision in an outdated way
pytestmark = pytest.mark.filterwarnings("ignore:::torchvision.models._utils")

N_ENVS, STEPS = 3, 30
EPISODE_ENDS = {4: [1], 11: [0, 2], 12: [0], 22: [1]}  # step -> environments whose next step begins an episode
NEVER = np.zeros(N_ENVS, dtype=bool)


class Original:
    """robomimic's RolloutPolicy for one environment; its network says which distribution it would have drawn from."""

    def __init__(self, path: Any) -> None:
        self.policy, _ = file_utils.policy_from_checkpoint(device=th.device("cpu"), ckpt_path=str(path))
        self.algo = self.policy.policy
        self.network = self.algo.nets["policy"]
        self.network.low_noise_eval = False
        self.distribution: Any = None
        self.history: dict[str, deque] | None = None
        kind = type(self.algo).__name__
        self.frames = HORIZON if "Transformer" in kind else 1
        if kind == "BC_RNN_GMM":
            self.network.forward_step = self._rnn_step
        elif kind in ("BC_Gaussian", "BC_GMM"):
            self.network.forward = self._memoryless
        elif kind == "BC_Transformer_GMM":
            self.network.forward = self._transformer

    def start(self) -> None:
        self.policy.start_episode()
        self.history = None

    def act(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        """:param obs: as robomimic's environments give it: images channels first, in 0..1"""
        with th.no_grad():
            return self.policy(self._stacked(obs) if self.frames > 1 else dict(obs))

    def _stacked(self, obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        wrapper = object.__new__(FrameStackWrapper)  # only its bookkeeping, without an environment
        wrapper.num_frames = self.frames
        if self.history is None:
            self.history = wrapper._get_initial_obs_history(obs)
        else:
            for key, frames in self.history.items():
                frames.append(obs[key][None])
        wrapper.obs_history = self.history
        return wrapper._get_stacked_obs_from_history()

    def _memoryless(self, obs_dict: Any, goal_dict: Any = None) -> th.Tensor:
        self.distribution = self.network.forward_train(obs_dict, goal_dict)
        return self.distribution.mean

    def _rnn_step(self, obs_dict: Any, goal_dict: Any = None, rnn_state: Any = None) -> Any:
        self.distribution, state = self.network.forward_train_step(obs_dict, goal_dict, rnn_state)
        return self.distribution.mean, state

    def _transformer(self, obs_dict: Any, actions: Any = None, goal_dict: Any = None) -> th.Tensor:
        sequence = self.network.forward_train(obs_dict, goal_dict=goal_dict, low_noise_eval=False)
        normal = sequence.component_distribution.base_dist
        self.distribution = MixtureSameFamily(
            Categorical(logits=sequence.mixture_distribution.logits[:, -1]),
            Independent(Normal(normal.loc[:, -1], normal.scale[:, -1]), 1),
        )
        return sequence.mean


def expected_mode_and_entropy(distribution: Any) -> tuple[th.Tensor, th.Tensor]:
    """Of one environment. A mixture: the mean of its heaviest component; H(w) + sum_k w_k H_k."""
    if not isinstance(distribution, MixtureSameFamily):
        scale = distribution.base_dist.scale[0]
        return distribution.mean[0], (0.5 * th.log(2 * th.pi * th.e * scale**2)).sum()
    weights = distribution.mixture_distribution.probs[0]
    normal = distribution.component_distribution.base_dist
    entropies = (0.5 * th.log(2 * th.pi * th.e * normal.scale[0] ** 2)).sum(dim=1)
    return normal.loc[0, weights.argmax()], -(weights * weights.log()).sum() + (weights * entropies).sum()


def row(obs: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    """One environment's observation, as robomimic's own environments hand it over."""
    return {
        key: np.moveaxis(value[i], -1, 0).astype(np.float32) / 255 if key in CAMERA else value[i]
        for key, value in obs.items()
    }


def compare(path: Any, shapes: dict[str, tuple[int, ...]], steps: int = STEPS) -> BCPolicy:
    policy = BCPolicyAdapter.from_checkpoint(path)
    originals = [Original(path) for _ in range(N_ENVS)]
    for original in originals:
        original.start()
    streams = [observations(steps, seed=10 + i, shapes=shapes) for i in range(N_ENVS)]
    state, sampled_state, start, n_compared = None, None, np.ones(N_ENVS, dtype=bool), 0
    for t in range(steps):
        obs = {key: np.stack([stream[key][t] for stream in streams]) for key in shapes}
        batch: Any = {key: th.as_tensor(value) for key, value in obs.items()}
        mode = policy.step(batch, state, start, deterministic=True)
        sample = policy.step(batch, sampled_state, start)
        state, sampled_state = mode.state, sample.state
        for i, original in enumerate(originals):
            action = original.act(row(obs, i))
            if original.distribution is None:
                assert mode.log_prob is None
                np.testing.assert_allclose(mode.actions[i], action, atol=2e-5)
                n_compared += 1
                continue
            best, entropy = expected_mode_and_entropy(original.distribution)
            th.testing.assert_close(mode.actions[i], best, atol=2e-5, rtol=0)
            assert mode.log_prob is not None
            assert mode.entropy is not None
            assert sample.log_prob is not None
            assert sample.entropy is not None
            th.testing.assert_close(mode.log_prob[i], original.distribution.log_prob(best[None])[0], atol=5e-3, rtol=0)
            th.testing.assert_close(mode.entropy[i], entropy, atol=1e-3, rtol=0)
            th.testing.assert_close(sample.entropy[i], entropy, atol=1e-3, rtol=0)
            if sample.actions[i].abs().max() < 1:  # the executed action is the scored one
                scored = original.distribution.log_prob(sample.actions[i][None])[0]
                th.testing.assert_close(sample.log_prob[i], scored, atol=5e-3, rtol=0)
                n_compared += 1
        start = NEVER.copy()
        for i in EPISODE_ENDS.get(t, []):
            start[i] = True
            originals[i].start()
    assert n_compared >= 0.5 * N_ENVS * steps
    return policy


@pytest.mark.parametrize("kind", KINDS)
def test_same_modes_log_probs_and_entropies_as_robomimic(tmp_path, kind):
    policy = compare(make_checkpoint(tmp_path / "model.pth", kind), SHAPES)
    assert policy.is_recurrent == ("RNN" in kind or "Transformer" in kind)
    assert "Actor" in repr(policy)


@pytest.mark.parametrize("kind", ["BC-GMM", "BC-RNN-GMM"])
def test_normalised_observations(tmp_path, kind):
    plain = compare(make_checkpoint(tmp_path / "model.pth", kind, normalise=True), SHAPES)
    assert any(name.endswith("_offset") for name, _ in plain.named_buffers())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "normalise"), [("BC-GMM", True), ("BC-RNN-GMM", False), ("BC-Transformer-GMM", False)]
)
def test_images(tmp_path, kind, normalise):
    path = make_checkpoint(tmp_path / "model.pth", kind, images=True, normalise=normalise, steps=2)
    policy = compare(path, {**SHAPES, **CAMERA}, steps=9)
    obs: Any = {key: th.as_tensor(value) for key, value in observations(3, 0, {**SHAPES, **CAMERA}).items()}
    channels_last = policy.step(obs, None, NEVER, deterministic=True)
    channels_first = {**obs, "agentview_image": obs["agentview_image"].permute(0, 3, 1, 2).float()}
    th.testing.assert_close(policy.step(channels_first, None, NEVER, deterministic=True).actions, channels_last.actions)
    with pytest.raises(ValueError, match=r"'agentview_image' of shape \(3, 48, 48\).*\(40, 48, 3\)"):
        policy.step({**obs, "agentview_image": obs["agentview_image"][:, :40]}, None, NEVER)


@pytest.mark.parametrize(("kind", "is_exact"), [("BC-Gaussian", True), ("BC-RNN-GMM", False)])
def test_log_prob_and_entropy_cancel_on_average(tmp_path, kind, is_exact):
    policy = BCPolicyAdapter.from_robomimic(make_checkpoint(tmp_path / "model.pth", kind))
    obs: Any = {key: th.as_tensor(value).repeat(2000, 1) for key, value in observations(5, 3, SHAPES).items()}
    th.manual_seed(0)
    step = policy.step(obs, None, np.ones(10000, dtype=bool))
    assert step.log_prob is not None
    assert step.entropy is not None
    sums = step.log_prob + step.entropy
    error = sums.std() / 100
    assert sums.mean() > -4 * error  # the entropy of a mixture is bounded from above
    if is_exact:
        assert sums.mean() < 4 * error


def test_checkpoints_and_a_training_in_one_process_leave_each_other_alone(tmp_path):
    low_dim = make_checkpoint(tmp_path / "low_dim.pth", "BC-RNN-GMM")
    image = make_checkpoint(tmp_path / "image.pth", "BC-GMM", images=True, steps=1)  # robomimic's globals: of this one
    shapes = {**SHAPES, **CAMERA}
    obs: Any = {key: th.as_tensor(value) for key, value in observations(3, 0, shapes).items()}
    alone = {
        path: BCPolicyAdapter.from_checkpoint(path).step(obs, None, NEVER, True).actions for path in (low_dim, image)
    }
    names = ("OBS_MODALITIES_TO_KEYS", "OBS_KEYS_TO_MODALITIES", "DEFAULT_ENCODER_KWARGS")
    before = [getattr(obs_utils, name) for name in names]
    rng = th.random.get_rng_state()
    policies = {path: BCPolicyAdapter.from_checkpoint(path) for path in (image, low_dim)}
    assert all(getattr(obs_utils, name) is value for name, value in zip(names, before, strict=True))
    assert th.equal(th.random.get_rng_state(), rng)
    # what a training might do in between: the same key is something else to it
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["agentview_image"], "rgb": ["object"]}})
    for _ in range(2):
        for path, policy in policies.items():
            th.testing.assert_close(policy.step(obs, None, NEVER, True).actions, alone[path])


def test_number_of_environments_may_change(tmp_path):
    policy = BCPolicyAdapter.from_checkpoint(make_checkpoint(tmp_path / "model.pth", "BC-Transformer-GMM"))
    obs: Any = {key: th.as_tensor(value) for key, value in observations(5, 0, SHAPES).items()}
    whole = policy.step(obs, None, np.ones(5, dtype=bool), True)
    part = policy.step({key: value[:2] for key, value in obs.items()}, None, np.ones(2, dtype=bool), True)
    th.testing.assert_close(part.actions, whole.actions[:2])
    assert part.state.shape[:2] == (2, HORIZON)


def test_flat_and_renamed_observations(tmp_path):
    path = make_checkpoint(tmp_path / "model.pth", "BC")
    obs: Any = {key: th.as_tensor(value) for key, value in observations(3, 0, SHAPES).items()}
    expected = BCPolicyAdapter.from_checkpoint(path).step(obs, None, NEVER).actions

    flat = th.cat([obs[key] for key in SHAPES], dim=1)  # object, eef_pos, eef_quat, gripper_qpos
    th.testing.assert_close(BCPolicyAdapter.from_checkpoint(path).step(flat.double(), None, NEVER).actions, expected)
    order = list(reversed(SHAPES))
    other = BCPolicyAdapter.from_checkpoint(path, observation_keys=order)
    th.testing.assert_close(other.step(th.cat([obs[key] for key in order], dim=1), None, NEVER).actions, expected)
    renamed = BCPolicyAdapter.from_robomimic(path, observation_keys={"object": "object-state"})
    obs["object-state"] = obs.pop("object")
    th.testing.assert_close(renamed.step({**obs, "unused": flat}, None, NEVER).actions, expected)

    with pytest.raises(ValueError, match=r"reads object \(10,\), .*\['object'\] missing.*observation_keys"):
        BCPolicyAdapter.from_checkpoint(path).step(obs, None, NEVER)
    with pytest.raises(ValueError, match=r"together \(19,\), but a batch of shape \(3, 18\)"):
        BCPolicyAdapter.from_checkpoint(path).step(flat[:, 1:], None, NEVER)
    for wrong in (["object"], {"cube": "object"}):
        with pytest.raises(ValueError, match=r"`observation_keys` is .*keys are \['object', 'robot0_eef_pos'"):
            BCPolicyAdapter.from_checkpoint(path, observation_keys=wrong)


def test_flat_observations_of_other_keys_need_an_order(tmp_path):
    path = make_checkpoint(tmp_path / "model.pth", "BC", images=True, steps=1)
    with pytest.raises(ValueError, match=r"agentview_image \(3, 48, 48\), but one array of \(19,\) came"):
        BCPolicyAdapter.from_checkpoint(path).step(th.zeros(3, 19), None, NEVER)


@pytest.mark.parametrize("kind", ["BC", "BC-RNN", "BC-Transformer"])
def test_densities_of_deterministic_policies(tmp_path, kind):
    path = make_checkpoint(tmp_path / "model.pth", kind)
    obs: Any = {key: th.as_tensor(value) for key, value in observations(3, 0, SHAPES).items()}
    centre = BCPolicyAdapter.from_checkpoint(path).step(obs, None, NEVER).actions
    policy = BCPolicyAdapter.from_checkpoint(path, density={"kind": "fixed", "scale": 0.01})
    step = policy.step(obs, None, NEVER)
    gaussian = Independent(Normal(centre, 0.01), 1)
    assert not th.equal(step.actions, centre)
    th.testing.assert_close(step.log_prob, gaussian.log_prob(step.actions), atol=1e-3, rtol=0)
    th.testing.assert_close(step.entropy, gaussian.entropy())
    with pytest.raises(ValueError, match="deterministic: it gives the same one every time"):
        BCPolicyAdapter.from_checkpoint(path, density="kernel")


def test_density_is_refused_where_the_policy_has_one(tmp_path):
    with pytest.raises(ValueError, match="density of its own"):
        BCPolicyAdapter.from_checkpoint(make_checkpoint(tmp_path / "model.pth", "BC-GMM"), density="fixed")


def altered(path: Any, alter: Any) -> Any:
    """Rewrite a checkpoint's content and its config."""
    content = th.load(path, weights_only=True)
    config = json.loads(content["config"])
    alter(content, config)
    content["config"] = json.dumps(config)
    th.save(content, path)
    return path


def test_files_of_older_and_newer_robomimic(tmp_path):
    path = make_checkpoint(tmp_path / "model.pth", "BC-RNN-GMM")
    expected = fingerprint(BCPolicyAdapter.from_checkpoint(path))

    def as_newer(content, config):  # 0.4 and later: optimisers beside the networks, statistics of the actions
        content["model"] = {"nets": content["model"], "optimizers": {}, "lr_schedulers": {}}
        identity = {"offset": [[0.0] * ACTION_DIM], "scale": [[1.0] * ACTION_DIM]}
        content.update(variable_state={"epoch": 3}, action_normalization_stats={"actions": identity})
        config["train"]["action_keys"] = ["actions"]

    def as_older(content, config):  # 0.2: there were no transformers
        del config["algo"]["transformer"], config["train"]["frame_stack"]

    def with_rescaled_actions(content, config):
        content["action_normalization_stats"]["actions"]["scale"][0][2] = 0.5

    for alter in (as_newer, as_older):
        assert fingerprint(BCPolicyAdapter.from_checkpoint(altered(path, alter))) == expected
    with pytest.raises(ValueError, match="trained on rescaled actions"):
        BCPolicyAdapter.from_checkpoint(altered(path, with_rescaled_actions))


UNSUPPORTED = {
    "other algorithm": (lambda content, config: content.update(algo_name="bcq"), r"checkpoint of BCQ.*BC-RNN-GMM"),
    "vae": (lambda content, config: config["algo"]["vae"].update(enabled=True), r"checkpoint of BC-VAE"),
    "goals": (
        lambda content, config: config["observation"]["modalities"]["goal"].update(low_dim=["object"]),
        r"conditioned on the goals \['object'\]",
    ),
    "open loop": (lambda content, config: config["algo"]["rnn"].update(open_loop=True), "open_loop"),
    "frame stack": (lambda content, config: config["train"].update(frame_stack=4), "4 stacked frames"),
    "other sizes": (lambda content, config: config["algo"]["rnn"].update(hidden_dim=25), "size mismatch"),
    "incomplete": (lambda content, config: content["shape_metadata"].pop("ac_dim"), "incomplete"),
    "absolute actions": (lambda content, config: config["train"].update(action_keys=["actions_abs"]), "actions_abs"),
    "NaN": (lambda content, config: next(iter(content["model"].values())).fill_(float("nan")), "NaN or infinity"),
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, what):
    alter, message = UNSUPPORTED[what]
    path = altered(make_checkpoint(tmp_path / "model.pth", "BC-RNN-GMM"), alter)
    with pytest.raises(ValueError, match=message):
        BCPolicyAdapter.from_checkpoint(path)


def test_a_file_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"no BC checkpoint of a known kind.*Known kinds: robomimic \("):
        BCPolicyAdapter.from_robomimic(SHIPPED_POLICIES["adroit-door-human"])


def test_without_robomimic_the_extra_is_named(tmp_path, monkeypatch):
    path = make_checkpoint(tmp_path / "model.pth", "BC")
    monkeypatch.setitem(sys.modules, "robomimic", None)
    with pytest.raises(ImportError, match=r"sb3_q2rl\[robomimic\]"):
        BCPolicyAdapter.from_checkpoint(path)


def test_hostile_checkpoint_does_not_execute(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "model.pth"
    make_checkpoint(path, "BC")
    content = th.load(path, weights_only=True)
    content["env_metadata"] = Canary(canary)
    th.save(content, path)
    with pytest.raises(ValueError, match="could execute code"):
        BCPolicyAdapter.from_robomimic(path)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["backbone_class", "pool_class"])
def test_a_name_that_robomimic_would_evaluate_does_not_execute(tmp_path, name):
    canary, path = tmp_path / "canary", make_checkpoint(tmp_path / "model.pth", "BC", images=True)

    def hostile(content, config):
        core = config["observation"]["encoder"]["rgb"]["core_kwargs"]
        core[name] = f"__import__('pathlib').Path({str(canary)!r}).touch() or {core[name]}"

    with pytest.raises(ValueError, match=f"`{name}`.* would execute"):
        BCPolicyAdapter.from_checkpoint(altered(path, hostile))
    assert not canary.exists()


@pytest.mark.parametrize(
    "controller", [{"control_delta": False}, {"type": "BASIC", "body_parts": {"right": {"input_type": "absolute"}}}]
)
def test_a_controller_of_absolute_poses_is_told(tmp_path, controller):
    metadata = {"env_name": "Own", "type": 1, "env_kwargs": {"controller_configs": controller}}
    path = make_checkpoint(tmp_path / "model.pth", "BC", env_metadata=metadata)
    with pytest.warns(UserWarning, match="absolute poses"):
        BCPolicyAdapter.from_checkpoint(path)


class LiftShaped(gym.Env):
    """Numbers of Lift's sizes; succeeds by chance."""

    observation_space = gym.spaces.Dict(
        {key: gym.spaces.Box(-1, 1, shape, np.float32) for key, shape in SHAPES.items()}
    )
    action_space = gym.spaces.Box(-1, 1, (ACTION_DIM,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        success = bool(self.np_random.random() < 0.05)
        return self.observation_space.sample(), float(success) - 1, success, self.t >= 10, {"is_success": success}


def test_from_file_to_learning_in_one_line(tmp_path, quick_fit):
    path = make_checkpoint(tmp_path / "model.pth", "BC-RNN-GMM")
    model = small_model(LiftShaped(), bc_policy=str(path)).learn(120)
    model.save(tmp_path / "saved")
    loaded = QGatedSAC.load(tmp_path / "saved", env=LiftShaped())
    obs = {key: value[:1] for key, value in observations(1, 0, SHAPES).items()}
    obs = {key: np.clip(value, -1, 1) for key, value in obs.items()}
    ours, state = model.predict(obs, deterministic=True, who="bc")
    theirs, _ = loaded.predict(obs, deterministic=True, who="bc")
    np.testing.assert_array_equal(ours, theirs)
    assert state.steps.tolist() == [1]
    altered(path, lambda content, config: next(iter(content["model"].values())).add_(1.0))
    with pytest.raises(ValueError, match="has changed since this model was saved"):
        QGatedSAC.load(tmp_path / "saved", env=LiftShaped())
