"""Checkpoints of plain values and tensors, written whole or not at all, read without running their code."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch as th


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path, flush: bool = True) -> Path:
    """
    Write under a temporary name, then rename: a killed process leaves the old file or the new one.

    :param checkpoint: plain values and tensors
    :param path: the file
    :param flush: to disk before renaming, so that a power cut leaves one of the two as well
    :return: the path
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "wb") as file:
        th.save(checkpoint, file)
        if flush:
            file.flush()
            os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def read_checkpoint(path: str | Path, allow_pickle: bool = False) -> dict[str, Any]:
    """
    :param path: a file that ``torch.save`` wrote
    :param allow_pickle: let it execute code: the user trusts its author
    :return: its dict; a whole pickled module comes as ``{"module": it}``
    :raises FileNotFoundError: no such file
    :raises ValueError: the file is damaged, wants to execute code, or holds something else
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    return load_torch(path, str(path), allow_pickle)


def load_torch(file: Path | BinaryIO, name: str, allow_pickle: bool = False) -> dict[str, Any]:
    """
    :param file: what ``torch.save`` wrote
    :param name: what to call it in an error
    :param allow_pickle: let it execute code: the user trusts its author
    :raises ValueError: see :func:`read_checkpoint`
    """
    try:
        if not allow_pickle:
            _check_is_stored(file)
        with th.serialization.safe_globals(_INERT):
            checkpoint = th.load(file, map_location="cpu", weights_only=not allow_pickle)
        if not allow_pickle:
            _check_are_whole(checkpoint)
    except pickle.UnpicklingError as error:
        # weights_only answers so both to code and to bytes that are no pickle: the text says which.
        raise ValueError(
            f"{name} was refused: it is no file of plain tensors, and loading it could execute code or fill the "
            "memory. If you trust its author, say so with `allow_pickle=True`, or save it again as plain tensors. "
            f"({_first_line(error)})"
        ) from error
    except (
        *(RuntimeError, EOFError, OSError, KeyError, ValueError, IndexError, AssertionError, MemoryError),
        *(struct.error, zipfile.BadZipFile),
    ) as error:
        raise ValueError(f"{name} is damaged or cut off ({_first_line(error)}). Copy or write it again.") from error
    except (AttributeError, ImportError, TypeError) as error:
        raise ValueError(f"{name} needs a class that is not here, or of another version: {error}.") from error
    if isinstance(checkpoint, th.nn.Module):
        return {"module": checkpoint}
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{name} holds a {type(checkpoint).__name__}, expected a dict that describes a policy.")
    return checkpoint


def _check_is_stored(file: Path | BinaryIO) -> None:
    """torch never compresses; what is compressed may unpack to any size."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise pickle.UnpicklingError("It is compressed, which `torch.save` never does.")
    if not isinstance(file, Path):
        file.seek(0)


def _check_are_whole(content: Any) -> None:
    """A tensor of few numbers may be told to repeat them: copied, it would fill the memory."""
    if isinstance(content, th.Tensor):
        if content.numel() * content.element_size() > content.untyped_storage().nbytes():
            raise pickle.UnpicklingError(
                f"A tensor of shape {tuple(content.shape)} holds only {content.untyped_storage().nbytes()} bytes; "
                "`.contiguous()` makes it whole."
            )
    elif isinstance(content, dict | list | tuple):
        for part in content.values() if isinstance(content, dict) else content:
            _check_are_whole(part)


class Inert:
    """
    What stands for an object of another library in a file: its arguments and its state, and none of its code.

    :ivar args: what its constructor or function was to be called with
    :ivar state: what its attributes were to be set from, if anything
    """

    args: tuple[Any, ...]
    state: Any = None

    def __new__(cls, *args: Any) -> Inert:
        inert = super().__new__(cls)
        inert.args = args
        return inert

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _inert_names() -> dict[str, list[str]]:
    """What files of SB3's policies mention beside tensors: spaces, their arrays, activations, an optimiser."""
    arrays = ["_reconstruct", "scalar"]
    spaces = {"box": "Box", "dict": "Dict", "discrete": "Discrete", "multi_discrete": "MultiDiscrete"}
    activations = "ReLU Tanh ELU GELU SiLU LeakyReLU SELU Mish Softplus Sigmoid CELU ReLU6"
    extractors = ["FlattenExtractor", "CombinedExtractor", "NatureCNN", "BaseFeaturesExtractor"]
    return {
        "builtins": ["getattr"],  # how a static method is named: it is never looked up
        "numpy": ["ndarray", "dtype"],
        "numpy.core.multiarray": arrays,
        "numpy._core.multiarray": arrays,
        "numpy.random._pickle": ["__generator_ctor", "__bit_generator_ctor", "__randomstate_ctor"],
        "numpy.random._generator": ["Generator"],
        "numpy.random._pcg64": ["PCG64"],
        "numpy.random.bit_generator": ["SeedSequence", "__pyx_unpickle_SeedSequence"],
        **{f"{gym}.spaces.{module}": [name] for gym in ("gymnasium", "gym") for module, name in spaces.items()},
        "torch.nn.modules.activation": activations.split(),
        "torch.optim.adam": ["Adam"],
        "torch.optim.adamw": ["AdamW"],
        "torch.optim.sgd": ["SGD"],
        "torch.optim.rmsprop": ["RMSprop"],
        "stable_baselines3.common.sb2_compat.rmsprop_tf_like": ["RMSpropTFLike"],
        "stable_baselines3.common.policies": ["BasePolicy", "ActorCriticPolicy"],
        "stable_baselines3.common.torch_layers": extractors,
    }


_INERT: list[Any] = [
    type(name, (Inert,), {"__module__": module}) for module, names in _inert_names().items() for name in names
]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
