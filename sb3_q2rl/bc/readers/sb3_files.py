"""Files of Stable-Baselines3 (and of imitation, which saves SB3's policies), read without opening their pickles."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_q2rl.bc.checkpoint import Inert, load_torch
from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.bc.readers.network import (
    NetworkPolicy,
    TanhActor,
    finished,
    hidden,
    inputs_of,
    scale_of,
    take_linear,
    take_linears,
)
from sb3_q2rl.bc.readers.sb3 import SUPPORTED, finite_box, from_object, refuse_sde, unpickled_model, unpickled_policy
from sb3_q2rl.bc.source import CheckpointFile

_LOG_STD_RANGE = (-20.0, 2.0)
# What activation a policy has if its file names none depends on its class: these are known to follow SB3's
_KNOWN_MODULES = ("stable_baselines3.", "sb3_contrib.", "imitation.", "sb3_q2rl.")
_ACTIVATIONS = ["ReLU", "Tanh", "ELU", "GELU", "SiLU", "LeakyReLU", "SELU", "Mish", "Softplus", "Sigmoid", "CELU"]
# Feature extractors that do nothing but flatten and concatenate, as they are written in a model's readable half
_PLAIN_EXTRACTORS = tuple(
    f"'stable_baselines3.common.torch_layers.{name}'>" for name in ("FlattenExtractor", "CombinedExtractor")
)
_MAX_BYTES = 1 << 30  # of one part of a model, unpacked: a zip may promise far more than its own size


class Facts(NamedTuple):
    """What a file says beside the weights. ``activation``: ``None`` for the class's default."""

    activation: str | None
    action_space: spaces.Box
    use_sde: bool


def read_sb3(file: CheckpointFile) -> BCPolicy | None:
    """
    Weights, activation and action bounds are read as plain values and the network is rebuilt. Where a file does not
    tell enough (images, own feature extractors), ``allow_pickle=True`` lets SB3 load it.

    ``VecNormalize`` saves its statistics in a file of its own: pass ``observation_mean=v.obs_rms.mean`` and
    ``observation_std=np.sqrt(v.obs_rms.var + v.epsilon)``.

    :param file: a model (``model.save``), a policy (``policy.save``) or, with ``allow_pickle``, a pickled policy
    :return: ``None`` if it is none of these
    :raises ValueError: damaged, discrete actions, gSDE, recurrent, or not told by the file
    """
    if {"data", "policy.pth"} <= set(file.members):
        if file.options.allow_pickle:
            return from_object(unpickled_model(file.path), file.options)
        facts, state = _model_facts(file), _model_state(file)
    elif file.content.keys() == {"module"}:
        return from_object(file.content["module"], file.options)
    elif {"state_dict", "data"} <= file.content.keys() and "action_space" in file.content["data"]:
        if file.options.allow_pickle:
            return from_object(unpickled_policy(file.content), file.options)
        facts, state = _policy_facts(file), file.content["state_dict"]
    else:
        return None
    return _rebuilt(file, facts, dict(state))


def _rebuilt(file: CheckpointFile, facts: Facts, state: dict[str, th.Tensor]) -> BCPolicy:
    refuse_sde(facts.use_sde, str(file.path))
    if any("lstm" in name for name in state):
        raise ValueError(f"{file.path} holds a recurrent policy, which cannot be read. {SUPPORTED}")
    if any("features_extractor." in name for name in state):
        raise _untold(file, "it has a feature extractor with weights (images, or one of its author's)")
    actor = {
        name.removeprefix("actor."): tensor
        for name, tensor in state.items()
        if not name.startswith(("critic", "actor_target", "value_net", "mlp_extractor.value_net"))
    }
    box, name = facts.action_space, str(file.path)
    policy: NetworkPolicy | TanhActor
    if "action_net.weight" in actor and "log_std" in actor:
        layers = [*take_linears(actor, "mlp_extractor.shared_net"), *take_linears(actor, "mlp_extractor.policy_net")]
        body = hidden(layers, _activation(file, facts, "Tanh"))
        mean, log_std = take_linear(actor, "action_net"), actor.pop("log_std")
        assert mean is not None
        inputs = inputs_of(body, mean, file.options)
        policy = NetworkPolicy(inputs, body, mean, log_std, (-np.inf, np.inf), "none", *scale_of(box.low, box.high))
    elif "mu.weight" in actor and "log_std.weight" in actor:
        body = hidden(take_linears(actor, "latent_pi"), _activation(file, facts, "ReLU"))
        mean, last = take_linear(actor, "mu"), take_linear(actor, "log_std")
        assert mean is not None
        assert last is not None
        policy = NetworkPolicy(inputs_of(body, mean, file.options), body, mean, last, _LOG_STD_RANGE, "action")
    elif "mu.0.weight" in actor:
        *layers, mean = take_linears(actor, "mu")
        body = hidden(layers, _activation(file, facts, "ReLU"))
        policy = TanhActor(inputs_of(body, mean, file.options), body, mean)
    else:
        raise ValueError(f"{name} is an SB3 file of an unknown policy: {', '.join(list(state)[:12])}. {SUPPORTED}")
    if actor:
        raise _untold(file, f"its actor has parts that are not known ({', '.join(actor)})")
    ready = finished(policy, name, file.options)
    ready.action_space = box  # type: ignore[attr-defined]
    return ready


def _untold(file: CheckpointFile, why: str) -> ValueError:
    return ValueError(
        f"{file.path} cannot be rebuilt from its plain values: {why}. If you trust its author, pass "
        "`allow_pickle=True`, or load it yourself and pass the object: `bc_policy=PPO.load(path)`."
    )


def _activation(file: CheckpointFile, facts: Facts, default: str) -> type[nn.Module]:
    name = facts.activation or default
    if name not in _ACTIVATIONS:
        raise _untold(file, f"its activation is {name!r}")
    return getattr(nn, name)


def _member(file: CheckpointFile, name: str) -> bytes:
    try:
        with zipfile.ZipFile(file.path) as archive:
            if archive.getinfo(name).file_size > _MAX_BYTES:
                raise ValueError(
                    f"{file.path} is refused: its part {name} would unpack to more than {_MAX_BYTES:,} bytes."
                )
            return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{file.path} is damaged or cut off ({error}). Copy or write it again.") from error


def _model_state(file: CheckpointFile) -> Mapping[str, th.Tensor]:
    return load_torch(io.BytesIO(_member(file, "policy.pth")), f"{file.path} (its policy.pth)")


def _model_facts(file: CheckpointFile) -> Facts:
    """From the readable half of ``data``; the pickles beside it stay closed."""
    try:
        data = json.loads(_member(file, "data"))
        kind, action_space = data["policy_class"]["__module__"], data["action_space"]
        settings = data["policy_kwargs"]
        activation, extractor = settings.get("activation_fn"), settings.get("features_extractor_class")
        if activation is not None:
            match = re.fullmatch(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>", activation)
            activation = match[1] if match else activation
        bounds = None
        if _is_box(action_space[":type:"]):
            bounds = [np.array(action_space[name].strip("[]").split(), np.float32) for name in ("low", "high")]
        use_sde = bool(data.get("use_sde", False))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _untold(file, f"its data lacks what SB3 writes there, or is damaged ({error!r:.200})") from error
    if extractor is not None and not str(extractor).endswith(_PLAIN_EXTRACTORS):
        raise _untold(file, f"its observations go through {extractor}, a feature extractor of its author's")
    if not kind.startswith(_KNOWN_MODULES):
        raise _untold(file, f"its policy is a class of {kind}, which is not part of SB3")
    return Facts(activation, _box(file, action_space[":type:"], bounds), use_sde)


def _policy_facts(file: CheckpointFile) -> Facts:
    data = file.content["data"]
    action_space, activation = data["action_space"], data.get("activation_fn")
    try:
        kind = f"{type(action_space).__module__}.{type(action_space).__name__}"
        bounds = [_decoded(action_space.state[name]) for name in ("low", "high")] if _is_box(kind) else None
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise _untold(file, f"its action space is damaged or of an unknown version ({error!r:.200})") from error
    return Facts(getattr(activation, "__name__", None), _box(file, kind, bounds), bool(data.get("use_sde", False)))


def _is_box(kind: str) -> bool:
    return ".box.Box" in kind


def _box(file: CheckpointFile, kind: str, bounds: list[np.ndarray] | None) -> spaces.Box:
    if bounds is None:
        raise ValueError(f"{file.path} has the action space {kind}; only a Box of continuous actions fits. {SUPPORTED}")
    return finite_box(spaces.Box(bounds[0], bounds[1], dtype=np.float32), str(file.path))


def _decoded(array: Inert) -> np.ndarray:
    """The numbers of a pickled array, from its bytes."""
    _, shape, dtype, is_fortran, raw = array.state
    kind, order = dtype.args[0], dtype.state[1]
    assert kind in ("f4", "f8")
    return np.frombuffer(raw, np.dtype(order + kind)).reshape(shape, order="F" if is_fortran else "C")
