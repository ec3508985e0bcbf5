"""One door for BC checkpoints: it finds out what it is given, and each kind has a reader in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch as th
from torch import nn
from torch.distributions import Distribution

from sb3_q2rl.assets import ASSETS
from sb3_q2rl.bc.callable_policy import CallableBCPolicy
from sb3_q2rl.bc.density import Density
from sb3_q2rl.bc.gaussian import GaussianBCPolicy
from sb3_q2rl.bc.memoryless import DistributionBCPolicy
from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.bc.readers.d3rlpy import read_d3rlpy
from sb3_q2rl.bc.readers.flax import read_flax
from sb3_q2rl.bc.readers.network import ObservationInput
from sb3_q2rl.bc.readers.robomimic import SUPPORTED, read_robomimic
from sb3_q2rl.bc.readers.sb3 import from_object
from sb3_q2rl.bc.readers.sb3_files import read_sb3
from sb3_q2rl.bc.readers.state_dict import read_state_dict
from sb3_q2rl.bc.source import CheckpointFile, ReadOptions

SHIPPED_POLICIES = {
    "adroit-door-human": ASSETS / "adroit_door_human_bc.pt",
    "adroit-pen-dapg": ASSETS / "adroit_pen_dapg_bc.pt",
    "robomimic-lift": ASSETS / "robomimic_lift_bc.pt",
    "robomimic-lift-image": ASSETS / "robomimic_lift_image_bc.pt",
    "robomimic-can": ASSETS / "robomimic_can_bc.pt",
    "robomimic-can-image": ASSETS / "robomimic_can_image_bc.pt",
    "robomimic-square": ASSETS / "robomimic_square_bc.pt",
    "franka-kitchen": ASSETS / "franka_kitchen_bc.pt",
    "franka-peg": ASSETS / "franka_peg_bc.pt",
    "franka-pipe": ASSETS / "franka_pipe_bc.pt",
    "franka-kitting": ASSETS / "franka_kitting_bc.pt",
}

# A reader returns None for a file that is not of its kind, and raises for one that is but is broken.
Reader = Callable[[CheckpointFile], BCPolicy | None]


@dataclass(frozen=True)
class Origin:
    """Where a policy came from, in plain values: enough to read it again."""

    path: str
    options: ReadOptions


def _read_own(file: CheckpointFile) -> BCPolicy | None:
    if file.content.get("format") != GaussianBCPolicy.FORMAT:
        return None
    try:
        policy, keys = GaussianBCPolicy.from_checkpoint(file.content), file.options.observation_keys
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
    if keys is not None:
        if policy.obs_keys is not None or isinstance(keys, Mapping):
            raise ValueError(
                f"`observation_keys` is {keys!r}, but {file.path} "
                + (
                    f"reads {list(policy.obs_keys)}, and says so itself."
                    if policy.obs_keys
                    else "takes a list of keys."
                )
            )
        policy.obs_keys = tuple(keys)
    return policy


_ROBOMIMIC_READERS: dict[str, Reader] = {f"robomimic ({SUPPORTED})": read_robomimic}
_SB3_READERS: dict[str, Reader] = {"Stable-Baselines3 and imitation (model or policy, .zip or .pth)": read_sb3}
_D4RL_READERS: dict[str, Reader] = {
    "d3rlpy (.d3)": read_d3rlpy,
    "the official Q2RL release's BC agent (flax, msgpack)": read_flax,
    "torch state dicts of D4RL actors (CORL)": read_state_dict,
}
# Asked in this order, the most general last. The key is how the error message calls the kind.
_READERS: dict[str, Reader] = {
    "Gaussian or mixture policies of sb3_q2rl (`train_bc`)": _read_own,
    **_ROBOMIMIC_READERS,
    **_SB3_READERS,
    **_D4RL_READERS,
}


class BCPolicyAdapter:
    """Turns what a user has into a :class:`BCPolicy`."""

    @staticmethod
    def from_checkpoint(
        path_or_name: str | Path,
        device: str | th.device = "cpu",
        *,
        observation_keys: Sequence[str] | Mapping[str, str] | None = None,
        density: Density | str | Mapping[str, Any] | None = None,
        allow_pickle: bool = False,
        observation_mean: Sequence[float] | None = None,
        observation_std: Sequence[float] | None = None,
    ) -> BCPolicy:
        """
        Recognise the file and read it.

        :param path_or_name: a checkpoint file, or the name of a shipped policy such as "adroit-door-human"
        :param device: where the policy shall run
        :param observation_keys: a list: what to concatenate from a Dict observation (in the order of the training), or
            how a flat observation is composed of the checkpoint's keys; a mapping: the checkpoint's key -> the
            environment's
        :param density: for policies that only give actions: how to score them, see :class:`Density`
        :param allow_pickle: execute the code that the file contains: only for authors that you trust
        :param observation_mean: (obs_dim,) what was subtracted from the observations in training, for kinds that do not
            store it: see :meth:`from_d4rl`, :meth:`from_sb3`
        :param observation_std: (obs_dim,) what they were then divided by
        :raises FileNotFoundError: neither a file nor a shipped name
        :raises ValueError: an unknown kind of file, a damaged one, or one that wants to execute code
        :raises ImportError: the kind needs a package that is not installed
        """
        options = _options(observation_keys, density, allow_pickle, observation_mean, observation_std)
        return _read(path_or_name, device, options, _READERS)

    @staticmethod
    def from_d4rl(
        path: str | Path,
        device: str | th.device = "cpu",
        *,
        observation_mean: Sequence[float] | None = None,
        observation_std: Sequence[float] | None = None,
        observation_keys: Sequence[str] | None = None,
        density: Density | str | Mapping[str, Any] | None = None,
    ) -> BCPolicy:
        """
        A policy trained on D4RL by CORL (torch state dict), d3rlpy (``.d3``) or the official Q2RL release (msgpack).

        :param path: the file
        :param device: where the policy shall run
        :param observation_mean: (obs_dim,) CORL normalises observations and does not save by what: the mean of the
            training observations
        :param observation_std: (obs_dim,) their standard deviation, to which CORL adds 1e-3
        :param observation_keys: what to concatenate from a Dict observation, in the order of the training
        :param density: for deterministic policies, see :class:`Density`
        :raises ValueError: none of these kinds; see also :meth:`from_checkpoint`
        """
        options = _options(observation_keys, density, False, observation_mean, observation_std)
        return _read(path, device, options, _D4RL_READERS)

    @staticmethod
    def from_sb3(
        source: Any,
        device: str | th.device = "cpu",
        *,
        observation_mean: Sequence[float] | None = None,
        observation_std: Sequence[float] | None = None,
        observation_keys: Sequence[str] | None = None,
        density: Density | str | Mapping[str, Any] | None = None,
        allow_pickle: bool = False,
    ) -> BCPolicy:
        """
        A policy of Stable-Baselines3, sb3-contrib or imitation. Actions of PPO, A2C and imitation's BC, which are in
        the environment's own scale, are brought to [-1, 1] by the policy's action space.

        :param source: a model, a policy, or the file of one
        :param device: where it shall run
        :param observation_mean: (obs_dim,) of a ``VecNormalize`` in training: ``obs_rms.mean``. Not needed for a model
            that still has its environment
        :param observation_std: (obs_dim,) ``np.sqrt(obs_rms.var + epsilon)``
        :param observation_keys: what to concatenate from a Dict observation, in the order of the training
        :param density: for TD3 and DDPG, see :class:`Density`
        :param allow_pickle: let SB3 unpickle the file, which may execute code: only for authors that you trust
        :raises ValueError: no such policy, discrete actions, gSDE, recurrent; see also :meth:`from_checkpoint`
        """
        options = _options(observation_keys, density, allow_pickle, observation_mean, observation_std)
        if isinstance(source, str | Path):
            return _read(source, device, options, _SB3_READERS)
        policy = from_object(source, options)
        _check_options_were_used(policy, options, f"The {type(source).__name__}")
        return policy.to(device)

    @staticmethod
    def from_robomimic(
        path: str | Path,
        device: str | th.device = "cpu",
        *,
        observation_keys: Sequence[str] | Mapping[str, str] | None = None,
        density: Density | str | Mapping[str, Any] | None = None,
    ) -> BCPolicy:
        """
        :param path: a checkpoint that robomimic saved
        :param device: where the policy shall run
        :param observation_keys: a mapping: the checkpoint's key -> the environment's; a list: how a flat observation is
            composed of the checkpoint's keys
        :param density: for deterministic policies, "none" or "fixed", see :class:`Density`
        :raises ValueError: no robomimic checkpoint, or one that is not supported; see also :meth:`from_checkpoint`
        """
        options = _options(observation_keys, density, False, None, None)
        return _read(path, device, options, _ROBOMIMIC_READERS)

    @staticmethod
    def from_distribution(function: Callable[[Any], Distribution], device: str | th.device = "cpu") -> BCPolicy:
        """
        :param function: observations, (n, *obs_shape) or a dict of those, as tensors -> a ``torch.distributions`` batch
            of n distributions over (action_dim,), actions in [-1, 1]; a ``torch.nn.Module`` moves with the policy
        :param device: where it shall run
        """
        return DistributionBCPolicy(function).to(device)

    @staticmethod
    def from_callable(
        function: Callable[[Any], Any],
        density: Density | str | Mapping[str, Any] = "none",
        action_steps: int | None = None,
        device: str | th.device = "cpu",
    ) -> BCPolicy:
        """
        :param function: observations, (n, *obs_shape) or a dict of those, as tensors -> actions in [-1, 1]:
            (n, action_dim), or chunks (n, T, action_dim); a ``torch.nn.Module`` moves with the policy
        :param density: how to score its actions, see :class:`Density`
        :param action_steps: for chunks: how many of the T actions to execute before asking again
        :param device: where it shall run
        """
        return CallableBCPolicy(function, Density.of(density), action_steps).to(device)


def _options(keys: Any, density: Any, allow_pickle: bool, mean: Any, std: Any) -> ReadOptions:
    """As plain values: they are saved with a model."""
    mean, std = (None if values is None else tuple(map(float, values)) for values in (mean, std))
    return ReadOptions(keys, None if density is None else Density.of(density), allow_pickle, mean, std)


def _read(
    path_or_name: str | Path, device: str | th.device, options: ReadOptions, readers: Mapping[str, Reader]
) -> BCPolicy:
    """Ask one reader after the other."""
    path = SHIPPED_POLICIES.get(str(path_or_name), Path(path_or_name))
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no BC checkpoint {path_or_name!s}: it is neither a file nor one of the shipped names "
            f"({', '.join(SHIPPED_POLICIES)})."
        )
    file = CheckpointFile(path, options)
    for kind, read in readers.items():
        policy = read(file)
        if policy is None:
            continue
        _check_options_were_used(policy, options, f"{path} ({kind})")
        policy.origin = Origin(str(path_or_name), options)  # type: ignore[attr-defined]
        return policy.to(device)
    raise ValueError(
        f"{path} is no BC checkpoint of a known kind, or it is damaged. Known kinds: {'; '.join(readers)}. "
        f"Shipped names: {', '.join(SHIPPED_POLICIES)}."
    )


def _check_options_were_used(policy: BCPolicy, options: ReadOptions, name: str) -> None:
    if options.density is not None and getattr(policy, "has_density", True):
        raise ValueError(f"`density` was given, but {name} has a density of its own. Leave it out.")
    takes_statistics = isinstance(policy, nn.Module) and any(isinstance(m, ObservationInput) for m in policy.modules())
    if not takes_statistics and (options.observation_mean is not None or options.observation_std is not None):
        raise ValueError(
            f"`observation_mean` or `observation_std` was given, but {name} holds its own. Leave them out."
        )
