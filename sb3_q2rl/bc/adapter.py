"""One door for BC checkpoints: it finds out what it is given, and each kind has a reader in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch as th
from torch.distributions import Distribution

from sb3_q2rl.assets import ASSETS
from sb3_q2rl.bc.callable_policy import CallableBCPolicy
from sb3_q2rl.bc.density import Density
from sb3_q2rl.bc.gaussian import GaussianBCPolicy
from sb3_q2rl.bc.memoryless import DistributionBCPolicy
from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.bc.robomimic import SUPPORTED, read_robomimic
from sb3_q2rl.bc.robomimic_policies import RobomimicBCPolicy
from sb3_q2rl.bc.source import CheckpointFile, ReadOptions

SHIPPED_POLICIES = {
    "adroit-door-human": ASSETS / "adroit_door_human_bc.pt",
    "adroit-pen-dapg": ASSETS / "adroit_pen_dapg_bc.pt",
}

# A reader returns None for a file that is not of its kind, and raises for one that is but is broken.
Reader = Callable[[CheckpointFile], BCPolicy | None]


@dataclass(frozen=True)
class Origin:
    """Where a policy came from, in plain values: enough to read it again."""

    path: str
    options: ReadOptions


def _read_own(file: CheckpointFile) -> BCPolicy | None:
    is_own = file.content.get("format") == GaussianBCPolicy.FORMAT
    return GaussianBCPolicy.from_checkpoint(file.content) if is_own else None


# Asked in this order, the most general last. The key is how the error message calls the kind.
_READERS: dict[str, Reader] = {
    "Gaussian or mixture policies of sb3_q2rl (`train_bc`)": _read_own,
    f"robomimic ({SUPPORTED})": read_robomimic,
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
        :raises FileNotFoundError: neither a file nor a shipped name
        :raises ValueError: an unknown kind of file, a damaged one, or one that wants to execute code
        :raises ImportError: the kind needs a package that is not installed
        """
        path = SHIPPED_POLICIES.get(str(path_or_name), Path(path_or_name))
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no BC checkpoint {path_or_name!s}: it is neither a file nor one of the shipped names "
                f"({', '.join(SHIPPED_POLICIES)})."
            )
        options = ReadOptions(observation_keys, None if density is None else Density.of(density), allow_pickle)
        file = CheckpointFile(path, options)
        for kind, read in _READERS.items():
            policy = read(file)
            if policy is None:
                continue
            if density is not None and getattr(policy, "has_density", True):
                raise ValueError(f"`density` was given, but {path} ({kind}) has a density of its own. Leave it out.")
            policy.origin = Origin(str(path_or_name), options)  # type: ignore[attr-defined]
            return policy.to(device)
        raise ValueError(
            f"{path} is no BC checkpoint of a known kind, or it is damaged. Known kinds: {'; '.join(_READERS)}. "
            f"Shipped names: {', '.join(SHIPPED_POLICIES)}."
        )

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
        policy = BCPolicyAdapter.from_checkpoint(path, device, observation_keys=observation_keys, density=density)
        if not isinstance(policy, RobomimicBCPolicy):
            raise ValueError(f"{path} is no robomimic checkpoint. `from_checkpoint` finds out what it is.")
        return policy

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
