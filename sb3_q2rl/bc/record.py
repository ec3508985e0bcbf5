"""How a saved model remembers its BC policy: whole when we know how to rebuild it, by file and hash otherwise."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch as th
from torch import nn

from sb3_q2rl.bc.adapter import BCPolicyAdapter, Origin
from sb3_q2rl.bc.gaussian import GaussianBCPolicy
from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.bc.readers.sb3 import is_sb3_object


class BCRecord(TypedDict):
    """
    ``checkpoint``: the whole policy as plain tensors, where it is one of ours; ``source``: its file, or what the user
    gave; ``options``: how its file was read; ``fingerprint``: SHA-256 of its weights, to notice another policy;
    ``None`` for objects without weights.
    """

    checkpoint: dict[str, Any] | None
    source: str
    options: dict[str, Any]
    fingerprint: str | None


def open_bc_policy(bc_policy: Any, device: th.device | str) -> BCPolicy:
    """
    :param bc_policy: a :class:`BCPolicy`, a model or policy of Stable-Baselines3, the path of a checkpoint, the name of
        a shipped one, or (as YAML writes it) a mapping of the arguments of :meth:`BCPolicyAdapter.from_checkpoint`
    :param device: where it will act
    :raises TypeError: if it is none of these
    """
    if isinstance(bc_policy, str | Path):
        return BCPolicyAdapter.from_checkpoint(bc_policy, device=device)
    if isinstance(bc_policy, Mapping):
        known = list(inspect.signature(BCPolicyAdapter.from_checkpoint).parameters)
        if "path_or_name" not in bc_policy or not set(bc_policy) <= set(known):
            raise ValueError(
                f"`bc_policy` is a mapping of {sorted(bc_policy)}; expected `path_or_name` and what else "
                f"`BCPolicyAdapter.from_checkpoint` takes: {', '.join(known[1:])}."
            )
        return BCPolicyAdapter.from_checkpoint(**{"device": device, **bc_policy})
    if is_sb3_object(bc_policy):
        return BCPolicyAdapter.from_sb3(bc_policy, device=device)
    if isinstance(bc_policy, BCPolicy):
        bc_policy.to(device)
        return bc_policy
    raise TypeError(
        f"`bc_policy` is a {type(bc_policy).__name__}; expected the name of a shipped policy, the path of a "
        "checkpoint, a model or policy of Stable-Baselines3, or an object with `is_recurrent`, `step()` and `to()` "
        "(see sb3_q2rl.bc.BCPolicy)."
    )


def fingerprint(policy: BCPolicy) -> str | None:
    """SHA-256 over the policy's weights; ``None`` if it is no torch module."""
    if not isinstance(policy, nn.Module):
        return None
    digest = hashlib.sha256()
    for name, tensor in policy.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(th.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe(policy: BCPolicy, source: Any) -> BCRecord:
    """
    :param policy: The policy in use
    :param source: What the user passed for it
    """
    checkpoint = policy.to_checkpoint() if isinstance(policy, GaussianBCPolicy) else None
    origin: Origin | None = getattr(policy, "origin", None)
    name = str(source) if isinstance(source, str | Path) else type(policy).__name__
    return BCRecord(
        checkpoint=checkpoint,
        source=name if origin is None else origin.path,
        options={} if origin is None else asdict(origin.options),
        fingerprint=fingerprint(policy),
    )


def rebuild(record: BCRecord, device: th.device | str) -> BCPolicy:
    """
    :param record: From a saved model
    :param device: where the policy will act
    :raises FileNotFoundError: the model does not hold the policy's weights, and its file is not where it was
    :raises ValueError: the file is there, with other weights
    """
    if record["checkpoint"] is not None:
        return GaussianBCPolicy.from_checkpoint(record["checkpoint"]).to(device)
    if not Path(record["source"]).exists():
        raise FileNotFoundError(
            f"This model was trained with the BC policy `{record['source']}`, whose weights are not part of the saved "
            "file and which is not there now. Pass it again: `load(path, bc_policy=...)`."
        )
    policy = BCPolicyAdapter.from_checkpoint(record["source"], device=device, **record["options"])
    if fingerprint(policy) != record["fingerprint"]:
        raise ValueError(
            f"`{record['source']}` has changed since this model was saved. To go on with the new weights, say so: "
            f"`load(path, bc_policy={record['source']!r})`; the estimate Q̂_BC is then made again."
        )
    return policy
