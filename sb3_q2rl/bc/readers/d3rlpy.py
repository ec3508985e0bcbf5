"""d3rlpy's ``.d3`` files: a pickle of three plain values, one of them a torch file, one the configuration as JSON."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import pickletools
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_q2rl.bc.checkpoint import load_torch
from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.bc.readers.network import NetworkPolicy, ObservationInput, Squash, TanhActor, finished, linear
from sb3_q2rl.bc.source import CheckpointFile

# kind: (clamp of the log-scale, how actions are squashed), from the library's source; ``None``: deterministic
_ALGORITHMS: dict[str, tuple[tuple[float, float], Squash] | None] = {
    "bc": None,  # with policy_type "stochastic": see _head
    "ddpg": None,
    "td3": None,
    "td3_plus_bc": None,
    "rebrac": None,
    "prdc": None,
    "awac": ((-6.0, 0.0), "mean"),
    "iql": ((-5.0, 2.0), "mean"),
    "crr": ((-20.0, 2.0), "mean"),
    "sac": ((-20.0, 2.0), "action"),
    "cql": ((-20.0, 2.0), "action"),
    "cal_ql": ((-20.0, 2.0), "action"),
    "bear": ((-20.0, 2.0), "action"),
}
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "swish": nn.SiLU,
    "none": nn.Identity,
}


class _PlainUnpickler(pickle.Unpickler):
    """Strings, numbers, bytes and containers; nothing can be imported, so nothing can be called."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it mentions {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside of the file")


def read_d3rlpy(file: CheckpointFile) -> BCPolicy | None:
    """
    The policies of the algorithms in ``_ALGORITHMS``, on vectors. Observation and action scalers are applied.

    Actions are in [-1, 1], as d3rlpy wants them in the data. An action scaler whose range lies inside is undone; one
    whose range goes beyond gives the bounds that the environment must have.

    :param file: any file
    :return: ``None`` if it is no bare pickle
    :raises ValueError: code in the pickle, a damaged file, or parts of d3rlpy that are not supported
    """
    with open(file.path, "rb") as stream:
        start = stream.read(2)
        if file.is_torch or file.members or len(start) < 2 or start[0] != 0x80 or not 2 <= start[1] <= 5:
            return None
        stream.seek(0)
        try:
            content = stream.read()
            _check_memo(content)
            saved = _PlainUnpickler(io.BytesIO(content)).load()
        except (pickle.UnpicklingError, ValueError) as error:
            raise ValueError(
                f"{file.path} was refused: it is a pickle that could execute code ({error}), or it is damaged. Of "
                "pickles, only d3rlpy's `.d3` files are read; they hold plain values only."
            ) from error
        except (EOFError, IndexError, KeyError, TypeError, AttributeError, MemoryError) as error:
            raise ValueError(f"{file.path} is damaged or cut off ({error}). Copy or write it again.") from error
    if not isinstance(saved, Mapping) or not {"torch", "config", "version"} <= set(saved):
        return None
    try:
        config = json.loads(saved["config"])
        weights = load_torch(io.BytesIO(saved["torch"]), f"{file.path} (its torch part)")
        return _build(file, config, weights)
    except (
        *(KeyError, TypeError, AttributeError, RuntimeError, RecursionError),
        *(UnicodeError, json.JSONDecodeError),
    ) as error:
        raise ValueError(
            f"{file.path} is a d3rlpy file (version {saved['version']!s:.20}) of an unknown layout, or damaged: "
            f"{error!r:.300}. Files of d3rlpy 2.x are read; those of 2.8 were tested."
        ) from error


def _check_memo(content: bytes) -> None:
    """A few bytes may name the billionth entry of the memo, and the unpickler would make room for a billion."""
    for opcode, argument, position in pickletools.genops(content):
        if opcode.name == "LONG_BINPUT" and argument > position:  # type: ignore[operator]
            raise pickle.UnpicklingError(f"it wants a memo of {argument:,} entries")


def _build(file: CheckpointFile, config: Mapping[str, Any], weights: Mapping[str, Any]) -> BCPolicy:
    algorithm, settings = config["config"]["type"], config["config"]["params"]
    if algorithm not in _ALGORITHMS:
        raise ValueError(
            f"{file.path} holds the policy of d3rlpy's {algorithm!r}; those of {', '.join(_ALGORITHMS)} can be read. "
            "Wrap the loaded algorithm: `BCPolicyAdapter.from_callable`."
        )
    shape = config["observation_shape"]
    encoder = settings.get("encoder_factory" if algorithm == "bc" else "actor_encoder_factory")
    if len(shape) != 1 or encoder["type"] not in ("default", "vector"):
        raise ValueError(
            f"{file.path} reads observations of shape {shape} with d3rlpy's encoder {encoder['type']!r}; only vectors "
            "with the encoders 'default' and 'vector' can be read."
        )
    state = dict(weights["imitator" if algorithm == "bc" else "policy"])
    body = _encoder(shape[0], encoder["params"])
    body.load_state_dict({name.removeprefix("_encoder._layers."): state.pop(name) for name in _encoder_names(state)})
    inputs = _inputs(file, shape[0], settings["observation_scaler"])
    box, *affine = _action_space(settings["action_scaler"], config["action_size"])
    head = _head(algorithm, settings)
    if head is None:
        actor = TanhActor(inputs, body, linear(state["_fc.weight"], state["_fc.bias"]), *affine)
        policy = finished(actor, str(file.path), file.options)
    else:
        log_std_range, squash = head
        mean = linear(state["_mu.weight"], state["_mu.bias"])
        log_std: Any
        if "_logstd" in state:  # one for all states, kept in its range by a sigmoid
            low, high = log_std_range
            log_std = low + (high - low) * th.sigmoid(state["_logstd"])
        else:
            log_std = linear(state["_logstd.weight"], state["_logstd.bias"])
        network = NetworkPolicy(inputs, body, mean, log_std, log_std_range, squash, *affine)
        policy = finished(network, str(file.path), file.options)
    policy.action_space = box  # type: ignore[attr-defined]
    return policy


def _encoder_names(state: Mapping[str, Any]) -> list[str]:
    return [name for name in state if name.startswith("_encoder._layers.")]


def _head(algorithm: str, settings: Mapping[str, Any]) -> tuple[tuple[float, float], Squash] | None:
    if algorithm == "bc" and settings["policy_type"] == "stochastic":
        return (-4.0, 15.0), "mean"
    return _ALGORITHMS[algorithm]


def _encoder(obs_dim: int, settings: Mapping[str, Any]) -> nn.Sequential:
    """The layers in the library's order, so that the names of the weights agree. Dropout is off in use."""
    for name in ("activation", "last_activation"):
        if settings.get(name) and settings[name] not in _ACTIVATIONS:
            raise ValueError(f"d3rlpy's activation {settings[name]!r} is not supported; known: {list(_ACTIVATIONS)}.")
    widths = [obs_dim, *settings.get("hidden_units", (256, 256))]
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths), start=1):
        is_last = i == len(widths) - 1
        layers.append(nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu"))  # overwritten at once
        if not (is_last and settings.get("exclude_last_activation")):
            last = settings.get("last_activation") if is_last else None
            layers.append(_ACTIVATIONS[last or settings.get("activation", "relu")]())
        if settings.get("use_batch_norm"):
            layers.append(nn.BatchNorm1d(n_out))
        if settings.get("use_layer_norm"):
            layers.append(nn.LayerNorm(n_out))
        if settings.get("dropout_rate") is not None:
            layers.append(nn.Dropout(settings["dropout_rate"]))
    return nn.Sequential(*layers)


def _inputs(file: CheckpointFile, obs_dim: int, scaler: Mapping[str, Any]) -> ObservationInput:
    options, settings = file.options, scaler["params"]
    given = (options.observation_mean, options.observation_std)
    keys = None if options.observation_keys is None else list(options.observation_keys)
    if scaler["type"] == "none":
        return ObservationInput(obs_dim, keys, *given)
    if any(values is not None for values in given):
        raise ValueError(
            f"{file.path} holds its own observation scaler ({scaler['type']}): leave `observation_mean` and "
            "`observation_std` out."
        )
    if scaler["type"] == "standard":
        return ObservationInput(obs_dim, keys, settings["mean"], np.asarray(settings["std"]) + settings["eps"])
    if scaler["type"] == "min_max":
        low, high = np.asarray(settings["minimum"]), np.asarray(settings["maximum"])
        return ObservationInput(obs_dim, keys, (high + low) / 2, (high - low) / 2)
    raise ValueError(f"d3rlpy's observation scaler {scaler['type']!r} is not supported; known: standard, min_max.")


def _action_space(scaler: Mapping[str, Any], dim: int) -> tuple[spaces.Box, th.Tensor | None, th.Tensor | None]:
    """The bounds that an environment must have, and scale and shift to our [-1, 1]."""
    low, high = -np.ones(dim, np.float32), np.ones(dim, np.float32)
    if scaler["type"] == "none":
        return spaces.Box(low, high), None, None
    if scaler["type"] != "min_max":
        raise ValueError(f"d3rlpy's action scaler {scaler['type']!r} is not supported; known: min_max.")
    minimum, maximum = (np.asarray(scaler["params"][bound], np.float32) for bound in ("minimum", "maximum"))
    if minimum.shape != (dim,) or maximum.shape != (dim,) or not (minimum < maximum).all():
        raise ValueError(f"d3rlpy's action scaler has the bounds {minimum} and {maximum} for {dim} dimensions.")
    if (minimum < -1).any() or (maximum > 1).any():
        return spaces.Box(minimum, maximum), None, None
    return spaces.Box(low, high), th.as_tensor((maximum - minimum) / 2), th.as_tensor((maximum + minimum) / 2)
