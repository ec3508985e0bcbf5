"""Policies and models of Stable-Baselines3 as objects: what a user has loaded, or what a trusted file holds."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn
from torch.distributions import Distribution, Independent, Normal

from sb3_q2rl.bc.callable_policy import CallableBCPolicy
from sb3_q2rl.bc.density import Density
from sb3_q2rl.bc.distributions import TanhNormal
from sb3_q2rl.bc.memoryless import MemorylessBCPolicy, freeze
from sb3_q2rl.bc.policy import BCObs, BCPolicy
from sb3_q2rl.bc.readers.network import ObservationInput, scale_of
from sb3_q2rl.bc.source import ReadOptions

SUPPORTED = (
    "Known: SAC, TQC, TD3, DDPG, PPO, A2C, TRPO with a Box of actions and without gSDE. Another policy can be wrapped "
    "with `BCPolicyAdapter.from_callable` or `from_distribution`."
)


def is_sb3_object(value: Any) -> bool:
    """Is it a model or a policy of SB3?"""
    return isinstance(value, BaseAlgorithm | BasePolicy)


def from_object(model: Any, options: ReadOptions) -> BCPolicy:
    """
    A copy of the policy as it is now; further training of the original leaves it alone. Statistics of the model's
    ``VecNormalize`` are applied, since a BC policy is given raw observations.

    :param model: a model or a policy
    :param options: what the user said about it
    :raises ValueError: no such object, discrete actions, gSDE, recurrent
    """
    policy = model.policy if isinstance(model, BaseAlgorithm) else model
    name = f"The {type(model).__name__}"
    if not isinstance(policy, BasePolicy):
        raise ValueError(f"{name} is no policy or model of Stable-Baselines3.")
    if not isinstance(policy.action_space, spaces.Box):
        raise ValueError(f"{name} has the action space {policy.action_space}; only continuous actions fit. {SUPPORTED}")
    actor = getattr(policy, "actor", policy)
    refuse_sde(getattr(actor, "use_sde", False), name)
    if hasattr(policy, "lstm_actor"):
        raise ValueError(f"{name} is recurrent, which is not supported. {SUPPORTED}")
    box = finite_box(policy.action_space, name)
    normalizer = model.get_vec_normalize_env() if isinstance(model, BaseAlgorithm) else None
    inputs = _object_inputs(policy.observation_space, normalizer, options, name)
    if isinstance(policy, ActorCriticPolicy) and isinstance(policy.action_dist, DiagGaussianDistribution):
        ready: Any = _ActorCritic(_copied(policy), inputs, box)
    elif hasattr(actor, "get_action_dist_params"):
        ready = _SquashedActor(_copied(actor), inputs)
    elif hasattr(actor, "mu"):
        ready = CallableBCPolicy(_DeterministicActor(_copied(actor), inputs), options.density or Density())
    else:
        raise ValueError(f"{name} is of an unknown kind. {SUPPORTED}")
    freeze(ready, name)
    ready.action_space = box
    return ready


def _copied(policy: Any) -> Any:
    """What its distribution was last asked about may hang on a graph, which cannot be copied: it stays behind."""
    asked = vars(policy.action_dist).values() if hasattr(policy, "action_dist") else ()
    return copy.deepcopy(policy, {id(part): None for part in asked if isinstance(part, th.Tensor | Distribution)})


def _object_inputs(
    space: spaces.Space, normalizer: VecNormalize | None, options: ReadOptions, name: str
) -> ObservationInput | None:
    """How vectors are read; images and Dicts go to the policy as they are."""
    statistics: list[Any] = [options.observation_mean, options.observation_std]
    clip = None
    is_vector = isinstance(space, spaces.Box) and len(space.shape) == 1
    if normalizer is not None and normalizer.norm_obs:
        if not is_vector:
            raise ValueError(
                f"{name} was trained with VecNormalize on {space}; only vectors can be normalised for it. Train it "
                "with `norm_obs=False`, or pass a function that normalises to `BCPolicyAdapter.from_distribution`."
            )
        running: Any = normalizer.obs_rms
        statistics = [running.mean, np.sqrt(running.var + normalizer.epsilon)]
        clip = normalizer.clip_obs
    if is_vector:
        assert space.shape is not None
        keys = None if options.observation_keys is None else list(options.observation_keys)
        return ObservationInput(space.shape[0], keys, statistics[0], statistics[1], clip)
    if any(values is not None for values in statistics):
        raise ValueError(f"`observation_mean` and `observation_std` are for vectors, but {name} reads {space}.")
    return None


def finite_box(box: spaces.Box, name: str) -> spaces.Box:
    if not np.isfinite([box.low, box.high]).all() or len(box.shape) != 1:
        raise ValueError(
            f"{name} acts in {box}; expected a vector with finite bounds, which are -1 and 1 for a BC policy."
        )
    return box


class _SquashedActor(MemorylessBCPolicy):
    """SAC, TQC: tanh of a Gaussian, already in [-1, 1]."""

    def __init__(self, actor: Any, inputs: ObservationInput | None):
        super().__init__()
        self.actor, self.inputs = actor, inputs

    def distribution(self, obs: BCObs) -> Distribution:
        mean, log_std, _ = self.actor.get_action_dist_params(obs if self.inputs is None else self.inputs(obs))
        return TanhNormal(mean, log_std.exp())


class _ActorCritic(MemorylessBCPolicy):
    """PPO, A2C, imitation's BC: a Gaussian in the environment's own scale."""

    scale: th.Tensor
    shift: th.Tensor

    def __init__(self, policy: ActorCriticPolicy, inputs: ObservationInput | None, box: spaces.Box):
        super().__init__()
        self.policy, self.inputs = policy, inputs
        for name, value in zip(("scale", "shift"), scale_of(box.low, box.high), strict=True):
            self.register_buffer(name, value)

    def distribution(self, obs: BCObs) -> Distribution:
        own: Any = self.policy.get_distribution(obs if self.inputs is None else self.inputs(obs)).distribution
        gaussian = Normal(own.mean * self.scale + self.shift, own.stddev * self.scale, validate_args=False)
        return Independent(gaussian, 1, validate_args=False)


class _DeterministicActor(nn.Module):
    """TD3, DDPG: an action in [-1, 1]."""

    def __init__(self, actor: nn.Module, inputs: ObservationInput | None):
        super().__init__()
        self.actor, self.inputs = actor, inputs

    def forward(self, obs: BCObs) -> th.Tensor:
        return self.actor(obs if self.inputs is None else self.inputs(obs))


def refuse_sde(use_sde: bool, name: str) -> None:
    if use_sde:
        raise ValueError(
            f"{name} explores with gSDE: its noise is not drawn anew at every step, so a step has no density of its "
            f"own. Train it with `use_sde=False`. {SUPPORTED}"
        )


def unpickled_model(path: Path) -> BasePolicy:
    """The user trusts the file: its own classes are built, as SB3's ``load`` does."""
    try:
        data, state, _ = load_from_zip_file(path, device="cpu")
        assert data is not None
        kwargs = {name: value for name, value in data["policy_kwargs"].items() if name != "use_sde"}
        refuse_sde(bool(data.get("use_sde", False)), str(path))
        policy = data["policy_class"](data["observation_space"], data["action_space"], lambda _: 0.0, **kwargs)
        policy.load_state_dict(state["policy"])
    except (KeyError, TypeError, AttributeError, ImportError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"SB3 cannot load {path} here: {error!r:.300}.") from error
    return policy


def unpickled_policy(content: Mapping[str, Any]) -> BasePolicy:
    """``policy.save`` does not say which class wrote it; the names of its weights do."""
    state, kwargs = content["state_dict"], content["data"]
    kinds: dict[str, type[BasePolicy]] = {"action_net": ActorCriticPolicy, "actor.latent_pi": SACPolicy}
    kind = next((cls for prefix, cls in kinds.items() if any(name.startswith(prefix) for name in state)), TD3Policy)
    try:
        policy = kind(**kwargs)
        policy.load_state_dict(state)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"The file of an SB3 policy does not fit {kind.__name__}: {error!r:.300}.") from error
    return policy
