"""The BC agent of the official Q2RL release (flax, msgpack): read without JAX."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.bc.readers.network import NetworkPolicy, finished, hidden, inputs_of, linear
from sb3_q2rl.bc.source import CheckpointFile

_LOG_STD_RANGE = (math.log(1e-5), math.log(10.0))  # the release clips the scale to [1e-5, 10]
_NDARRAY, _SCALAR = 1, 3  # flax's msgpack extensions; 2 is a complex number, which no policy has
_DTYPES = {"float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "bool"}
# A header may claim any length, and the parser makes room for it: no tree of weights has more entries than this
_MAX_ENTRIES = 1024


def read_flax(file: CheckpointFile) -> BCPolicy | None:
    """
    A diagonal Gaussian without tanh: ReLU layers (``network/Dense_N``), one dense layer for the mean (``Dense_0``), one
    for the log-scale (``Dense_1``) or one scale for all states (``log_stds``).

    :param file: any file
    :return: ``None`` if it is no msgpack map
    :raises ImportError: msgpack is not installed
    :raises ValueError: damaged, another network, or orbax's directory format
    """
    with open(file.path, "rb") as stream:
        start = stream.read(4)
    if file.members or file.is_torch or not _is_map_of_strings(start):
        return None
    tree = _unpack(file)
    params = _find(tree, "params", tree)
    if not isinstance(params, Mapping) or "modules_actor" not in params:
        return None
    if set(params) != {"modules_actor"}:
        raise ValueError(
            f"{file.path} is a flax checkpoint with {sorted(map(str, params))}; the official release's BC agent has "
            "modules_actor alone. The actors of its RL agents are squashed, which their files do not tell."
        )
    try:
        return _build(file, params["modules_actor"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file.path} is a flax checkpoint of an unknown network ({error!r}). Expected modules_actor with "
            "network/Dense_0, network/Dense_1, ..., Dense_0 and Dense_1 (or log_stds)."
        ) from error


def _is_map_of_strings(start: bytes) -> bool:
    if len(start) < 4:
        return False
    key = start[1] if 0x81 <= start[0] <= 0x8F else start[3] if start[0] == 0xDE else None
    return key is not None and (0xA0 <= key <= 0xBF or key == 0xD9)


def _unpack(file: CheckpointFile) -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise ImportError(
            f"{file.path} looks like a flax checkpoint (msgpack). To read it: pip install sb3_q2rl[flax]"
        ) from error
    try:
        return msgpack.unpackb(
            file.path.read_bytes(),
            ext_hook=_array,
            max_array_len=_MAX_ENTRIES,
            max_map_len=_MAX_ENTRIES,
            max_str_len=_MAX_ENTRIES,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ValueError(
            f"{file.path} looks like a flax checkpoint (msgpack), but is damaged or of another kind ({error})."
        ) from error


def _array(code: int, data: bytes) -> np.ndarray:
    import msgpack

    if code not in (_NDARRAY, _SCALAR):
        raise ValueError(f"unknown msgpack extension {code}")
    shape, dtype, raw = msgpack.unpackb(data, max_array_len=32, max_ext_len=0)
    if dtype not in _DTYPES:
        raise ValueError(f"arrays of {dtype!r} are not supported; known: {', '.join(sorted(_DTYPES))}")
    return np.frombuffer(raw, dtype).reshape(shape)  # refuses a shape that does not fit the bytes


def _find(tree: Any, name: str, default: Any) -> Any:
    """The agent holds a training state, which holds the parameters; either may have been saved alone."""
    state = tree.get("state", tree)
    return state.get(name, default) if isinstance(state, Mapping) else default


def _build(file: CheckpointFile, actor: Mapping[str, Any]) -> BCPolicy:
    if any(isinstance(leaf, str) for leaf in actor["Dense_0"].values()):
        raise ValueError(
            f"{file.path} is the index of an orbax directory; its arrays lie in other files. In the environment that "
            "wrote it, write one msgpack file: flax.serialization.to_bytes("
            "flax.training.checkpoints.restore_checkpoint(directory, target=None))."
        )
    network = actor["network"]
    names = [f"Dense_{i}" for i in range(len(network))]
    if set(network) != set(names):
        raise ValueError(
            f"{file.path} has the layers {sorted(network)} in its network; only dense layers can be read, "
            "without normalisation between them."
        )
    mean = _linear(actor["Dense_0"])
    body = hidden([_linear(network[name]) for name in names])
    log_std = th.as_tensor(actor["log_stds"].copy()) if "log_stds" in actor else _linear(actor["Dense_1"])
    policy = NetworkPolicy(inputs_of(body, mean, file.options), body, mean, log_std, _LOG_STD_RANGE)
    return finished(policy, str(file.path), file.options)


def _linear(layer: Mapping[str, np.ndarray]) -> nn.Linear:
    """flax's kernels are (in, out)."""
    return linear(th.as_tensor(layer["kernel"].T.copy()), th.as_tensor(layer["bias"].copy()))
