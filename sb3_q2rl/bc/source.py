"""A checkpoint as the readers of its kinds see it: opened once, without running its code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sb3_q2rl.bc.checkpoint import read_checkpoint
from sb3_q2rl.bc.density import Density


@dataclass(frozen=True)
class ReadOptions:
    """
    What a user may have to say about a checkpoint. Plain values, so that a saved model can repeat them.

    :param observation_keys: a list: what to concatenate from a Dict observation (in the order of the training), or how
        a flat observation is composed of the checkpoint's keys; a mapping: the checkpoint's key -> the environment's
    :param density: for kinds that only give actions, see :class:`Density`
    :param allow_pickle: execute the pickled code that the file contains: only for authors that you trust
    :param observation_mean: (obs_dim,) what was subtracted from the observations in training, for kinds that do not
        store it
    :param observation_std: (obs_dim,) what they were then divided by
    """

    observation_keys: Sequence[str] | Mapping[str, str] | None = None
    density: Density | None = None
    allow_pickle: bool = False
    observation_mean: Sequence[float] | None = None
    observation_std: Sequence[float] | None = None


class CheckpointFile:
    """
    :param path: an existing file
    :param options: what the user said about it
    :raises ValueError: a damaged archive
    """

    def __init__(self, path: Path, options: ReadOptions):
        self.path = path
        self.options = options
        self.members: tuple[str, ...] = ()
        with open(path, "rb") as stream:
            starts_as_zip = stream.read(4) == b"PK\x03\x04"  # d3rlpy's pickle has a zip at its end
        if starts_as_zip and zipfile.is_zipfile(path):
            try:
                with zipfile.ZipFile(path) as archive:
                    self.members = tuple(archive.namelist())
            except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
                raise ValueError(f"{path} is damaged or cut off ({error}). Copy or write it again.") from error

    @cached_property
    def is_torch(self) -> bool:
        """Did ``torch.save`` write it?"""
        if self.members:
            return any(name.endswith("/data.pkl") for name in self.members)
        with open(self.path, "rb") as file:
            # before 1.6 torch wrote three pickles in a row; the first is this magic number
            return file.read(14).endswith(b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")

    @cached_property
    def content(self) -> dict[str, Any]:
        """
        What ``torch.load`` finds in it; empty if torch did not write it.

        :raises ValueError: damaged, or code that the user did not allow
        """
        return read_checkpoint(self.path, self.options.allow_pickle) if self.is_torch else {}
