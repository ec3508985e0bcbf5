"""Checkpoints of plain values and tensors, written whole or not at all, read without running their code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch as th


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> Path:
    """
    Write under a temporary name, flush to disk, rename: a killed process leaves the old file or the new one.

    :param checkpoint: plain values and tensors
    :param path: the file
    :return: the path
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "wb") as file:
        th.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def read_checkpoint(path: str | Path, allow_pickle: bool = False) -> dict[str, Any]:
    """
    :param path: a file that ``torch.save`` wrote
    :param allow_pickle: let it execute code: the user trusts its author
    :raises FileNotFoundError: no such file
    :raises ValueError: the file is damaged, wants to execute code, or holds something else than a dict
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    try:
        checkpoint = th.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        # weights_only answers so both to code and to bytes that are no pickle: the text says which.
        raise ValueError(
            f"{path} was refused: it is no file of plain tensors, and loading it could execute code. If you trust its "
            f"author, say so with `allow_pickle=True`, or save it again as plain tensors. ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged or cut off ({_first_line(error)}). Copy or write it again.") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, expected a dict that describes a policy.")
    return checkpoint


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
