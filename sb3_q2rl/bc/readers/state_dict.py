"""Torch state dicts of the usual D4RL actors, recognised by their tensor names; sizes come from the tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch as th
from torch import nn

from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.bc.readers.network import (
    NetworkPolicy,
    Squash,
    TanhActor,
    Tensors,
    finished,
    hidden,
    inputs_of,
    linear,
    take_linear,
    take_linears,
)
from sb3_q2rl.bc.source import CheckpointFile

_NAMES_SHOWN = 12


class Actor(NamedTuple):
    """
    ``layers``: the last one gives the mean; ``log_std``: ``None`` for a deterministic actor; ``is_normalised``: does
    the script that trains it normalise observations unless told otherwise?
    """

    layers: list[nn.Linear]
    log_std: nn.Linear | th.Tensor | None
    log_std_range: tuple[float, float]
    squash: Squash
    is_normalised: bool


def _deterministic(tensors: Tensors) -> Actor | None:
    layers = take_linears(tensors, "net") or take_linears(tensors, "net.net")
    return Actor(layers, None, (0.0, 0.0), "action", True) if layers else None


def _iql_gaussian(tensors: Tensors) -> Actor | None:
    layers, log_std = take_linears(tensors, "net.net"), tensors.pop("log_std", None)
    return Actor(layers, log_std, (-20.0, 2.0), "mean", True) if layers and log_std is not None else None


def _awac(tensors: Tensors) -> Actor | None:
    layers, log_std = take_linears(tensors, "_mlp"), tensors.pop("_log_std", None)
    return Actor(layers, log_std, (-20.0, 2.0), "none", True) if layers and log_std is not None else None


def _cql(tensors: Tensors) -> Actor | None:
    layers = take_linears(tensors, "base_network") or take_linears(tensors, "base_network.network")
    multiplier = tensors.pop("log_std_multiplier.constant", None)
    offset = tensors.pop("log_std_offset.constant", None)
    if not layers or multiplier is None or offset is None:
        return None
    weight, bias = layers[-1].weight, layers[-1].bias  # one layer gives the mean and, in its second half, the log-std
    n = len(bias) // 2
    log_std = linear(multiplier * weight[n:], multiplier * bias[n:] + offset)
    return Actor([*layers[:-1], linear(weight[:n], bias[:n])], log_std, (-20.0, 2.0), "action", True)


def _sac_n(tensors: Tensors) -> Actor | None:
    layers = take_linears(tensors, "trunk")
    mean, log_std = take_linear(tensors, "mu"), take_linear(tensors, "log_sigma")
    if not layers or mean is None or log_std is None:
        return None
    return Actor([*layers, mean], log_std, (-5.0, 2.0), "action", False)


# How the error message calls a layout -> how it is taken out of the tensors
_LAYOUTS: dict[str, Callable[[Tensors], Actor | None]] = {
    "CORL SAC-N, EDAC, LB-SAC (trunk.N, mu, log_sigma)": _sac_n,
    "CORL CQL, Cal-QL (base_network.N, log_std_multiplier.constant, log_std_offset.constant)": _cql,
    "CORL AWAC (_mlp.N, _log_std)": _awac,
    "CORL IQL, Gaussian (net.net.N, log_std)": _iql_gaussian,
    "CORL BC, TD3+BC, SPOT, deterministic IQL (net.N or net.net.N)": _deterministic,
}


def read_state_dict(file: CheckpointFile) -> BCPolicy | None:
    """
    ReLU between the layers, as all of these have. Their scripts multiply the actions by the environment's bound, which
    is our scale [-1, 1]. They normalise observations outside the network and do not save the statistics: these come
    from ``observation_mean`` and ``observation_std``, of the options or in the file.

    :param file: a state dict, or a dict that has one as its ``actor``
    :return: ``None`` if it holds no tensors where such files have them
    :raises ValueError: an unknown layout, NaN, statistics of another size
    """
    found: list[str] = []
    for tensors in _candidates(file.content):
        for take in _LAYOUTS.values():
            rest = dict(tensors)
            actor = take(rest)
            if actor is not None and not rest:
                return _build(actor, file)
        found = found or list(tensors)
    if not found:
        return None
    shown = ", ".join(found[:_NAMES_SHOWN]) + (f" and {len(found) - _NAMES_SHOWN} more" * (len(found) > _NAMES_SHOWN))
    raise ValueError(
        f"{file.path} is a state dict of an unknown layout: {shown}. Known layouts: {'; '.join(_LAYOUTS)}. For another "
        "network build it yourself, load the weights, and hand it to `BCPolicyAdapter.from_distribution` (a function "
        "from observations to a torch distribution) or `BCPolicyAdapter.from_callable` (to actions)."
    )


def _candidates(content: Mapping[str, Any]) -> Iterator[dict[str, th.Tensor]]:
    """The state dicts in a checkpoint that may be an actor's."""
    for part in (*(content.get(key) for key in ("actor", "policy", "state_dict")), content):
        if not isinstance(part, Mapping):
            continue
        tensors = {
            str(name).removeprefix("module.").removeprefix("actor."): value
            for name, value in part.items()
            if isinstance(value, th.Tensor) and name not in _STATISTICS_NAMES
        }
        if tensors:
            yield tensors


_STATISTICS = {
    "mean": ("observation_mean", "obs_mean", "state_mean"),
    "std": ("observation_std", "obs_std", "state_std"),
}
_STATISTICS_NAMES = {name for names in _STATISTICS.values() for name in names}


def _stored_statistics(content: Mapping[str, Any]) -> list[Any]:
    parts = [content, *(part for part in content.values() if isinstance(part, Mapping))]
    found = ((part[name] for part in parts for name in names if name in part) for names in _STATISTICS.values())
    return [next(values, None) for values in found]


def _build(actor: Actor, file: CheckpointFile) -> BCPolicy:
    body, mean = hidden(actor.layers[:-1]), actor.layers[-1]
    stored = _stored_statistics(file.content)
    inputs = inputs_of(body, mean, file.options, stored)
    given = (*stored, file.options.observation_mean, file.options.observation_std)
    if actor.is_normalised and all(values is None for values in given):
        warnings.warn(
            f"{file.path} does not hold the mean and standard deviation of its training observations. The scripts that "
            "write such files normalise by them unless told otherwise (CORL: std + 1e-3). Pass `observation_mean` and "
            "`observation_std`, or zeros and ones if it was trained without.",
            stacklevel=2,
        )
    if actor.log_std is None:
        return finished(TanhActor(inputs, body, mean), str(file.path), file.options)
    policy = NetworkPolicy(inputs, body, mean, actor.log_std, actor.log_std_range, actor.squash)
    return finished(policy, str(file.path), file.options)
