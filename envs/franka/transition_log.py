"""Every transition on disk as it happens: a file that is only appended to, and that a killed process cannot spoil."""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MAGIC = b"sb3_q2rl transitions 1\n"
# Length of the body, and its checksum
HEAD = struct.Struct("<II")

Observation = np.ndarray | dict[str, np.ndarray]


class Transition(NamedTuple):
    """
    :param observation: before the action
    :param action: (action_dim,) that was given
    :param executed: (action_dim,) that was executed
    :param reward: scaled and shifted, as the environment gave it
    :param terminated: success
    :param truncated: a fault, a stop, a failure. A time limit is the wrapper's affair, and not known here
    :param next_observation: after it
    :param info: of the step, what JSON can hold of it
    :param time_s: of the step, seconds since 1970
    """

    observation: Observation
    action: np.ndarray
    executed: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    next_observation: Observation
    info: dict[str, Any]
    time_s: float


class LoggedEpisode(NamedTuple):
    """
    :param seed: that ``reset`` was given
    :param about: what the log was told about the environment
    :param steps: at least one
    """

    seed: int | None
    about: dict[str, Any]
    steps: list[Transition]


class TransitionLog:
    """
    A process that is killed loses at most the step it was writing; a power cut at most the episode, for ``fsync`` comes
    with the episodes' ends. Nothing is opened before the first record. A file that exists is continued, after what was
    torn off at its end is cut away.

    The format: :data:`MAGIC`, then records of a length, a CRC-32 and a zlib-compressed body, which holds a line of JSON
    and the arrays it describes. No pickle.

    :param path: the file
    :param about: the environment, for whoever reads the file; what JSON can hold
    """

    def __init__(self, path: str | Path, about: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.about = about or {}
        self._file: Any = None

    def append_reset(self, observation: Observation, seed: int | None = None) -> None:
        """
        :param observation: the first one of an episode
        :param seed: that ``reset`` was given
        """
        self._sync()
        head = {"kind": "reset", "seed": seed, "about": self.about, "time_s": time.time()}
        self._append(head, _flat(observation))

    def append_step(
        self,
        observation: Observation,
        action: np.ndarray,
        executed: np.ndarray,
        reward: float,
        terminated: bool,
        truncated: bool,
        info: dict[str, Any],
    ) -> None:
        """
        :param observation: after the step
        :param action: given
        :param executed: what was executed
        :param reward: of the step
        :param terminated: of the step
        :param truncated: of the step
        :param info: of the step; arrays and objects in it are left out
        """
        plain = {key: value for key, value in info.items() if isinstance(value, bool | int | float | str)}
        head = {"kind": "step", "reward": reward, "terminated": terminated, "truncated": truncated, "info": plain}
        head["intervened"] = "intervene_action" in info
        arrays = {"action": np.asarray(action, np.float32), "executed": np.asarray(executed, np.float32)}
        self._append({**head, "time_s": time.time()}, {**arrays, **_flat(observation)})
        if terminated or truncated:
            self._sync()

    def close(self) -> None:
        """May be called again; appending opens the file anew."""
        if self._file is not None:
            self._sync()
            self._file.close()
            self._file = None

    def _append(self, head: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        head["arrays"] = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
        parts = [
            json.dumps(head).encode(),
            b"\n",
            *(np.ascontiguousarray(array).tobytes() for array in arrays.values()),
        ]
        body = zlib.compress(b"".join(parts), level=1)
        if self._file is None:
            self._open()
        # One write without a buffer of our own: the operating system has all of it, whatever happens to this process
        self._file.write(HEAD.pack(len(body), zlib.crc32(body)) + body)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "a+b", buffering=0)  # noqa: SIM115
        file.seek(0)
        sound = _sound_length(file, self.path)
        file.seek(sound)
        if torn := file.readall():  # kept: should the disk have failed in the middle, what follows is not lost
            self.path.with_name(f"{self.path.name}.torn-{time.time_ns()}").write_bytes(torn)
            file.truncate(sound)
        if sound == 0:
            file.write(MAGIC)
        self._file = file

    def _sync(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())


def read_episodes(path: str | Path) -> Iterator[LoggedEpisode]:
    """
    :param path: written by :class:`TransitionLog`
    :return: one episode after the other, also the unfinished last one; without what was torn off at the end
    :raises ValueError: another kind of file
    """
    episode: LoggedEpisode | None = None
    before: Observation = np.zeros(0)
    for head, arrays in read_records(path):
        if head["kind"] == "reset":
            if episode is not None and episode.steps:
                yield episode
            episode, before = LoggedEpisode(head["seed"], head["about"], []), _unflat(arrays)
            continue
        assert episode is not None
        action, executed = arrays.pop("action"), arrays.pop("executed")
        after = _unflat(arrays)
        info = {**head["info"], "intervened": head["intervened"]}
        ends = head["terminated"], head["truncated"]
        step = Transition(before, action, executed, head["reward"], *ends, after, info, head["time_s"])
        episode.steps.append(step)
        before = after
    if episode is not None and episode.steps:
        yield episode


def read_records(path: str | Path, start: int = 0) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """
    :param path: the file
    :param start: how many records to leave out
    :return: the JSON part and the arrays of each sound record
    :raises ValueError: another kind of file
    """
    with open(path, "rb") as file:
        for number, body in enumerate(_bodies(file, Path(path))):
            if number < start:
                continue
            line, _, data = zlib.decompress(body).partition(b"\n")
            head = json.loads(line)
            arrays, offset = {}, 0
            for name, dtype, shape in head.pop("arrays"):
                count = int(np.prod(shape))
                arrays[name] = np.frombuffer(data, np.dtype(dtype), count, offset).reshape(shape).copy()
                offset += arrays[name].nbytes
            yield head, arrays


def _bodies(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The bodies of all sound records."""
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        if MAGIC.startswith(magic):  # killed while it was made
            return
        raise ValueError(f"{path} is no file of transitions: it begins with {magic[:16]!r}.")
    while len(head := file.read(HEAD.size)) == HEAD.size:
        size, checksum = HEAD.unpack(head)
        body = file.read(size)
        if len(body) < size or zlib.crc32(body) != checksum:
            return
        yield body


def _sound_length(file: BinaryIO, path: Path) -> int:
    sizes = [HEAD.size + len(body) for body in _bodies(file, path)]
    file.seek(0)
    return len(MAGIC) + sum(sizes) if file.read(len(MAGIC)) == MAGIC else 0


def _flat(observation: Observation) -> dict[str, np.ndarray]:
    if isinstance(observation, dict):
        return {f"observation/{key}": value for key, value in observation.items()}
    return {"observation": observation}


def _unflat(arrays: dict[str, np.ndarray]) -> Observation:
    if "observation" in arrays:
        return arrays["observation"]
    return {name.removeprefix("observation/"): array for name, array in arrays.items()}
