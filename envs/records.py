"""A file of records that is only appended to: whoever writes may be killed, and whoever reads may follow along."""

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

MAGIC = b"sb3_q2rl records 1\n"
# Length of the body, and its checksum
HEAD = struct.Struct("<II")


class Record(NamedTuple):
    """
    :param head: what JSON can hold
    :param arrays: by name
    """

    head: dict[str, Any]
    arrays: dict[str, np.ndarray]


class RecordFile:
    """
    A process that is killed loses at most the record it was writing; a power cut what came after ``sync``. Nothing is
    opened before the first record. A file that exists is continued, after what was torn off at its end is put aside.

    The format: :data:`MAGIC`, then records of a length, a CRC-32 and a zlib-compressed body, which holds a line of JSON
    and the arrays it describes. No pickle.

    :param path: the file
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: Any = None

    def append(self, head: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """
        :param head: what JSON can hold
        :param arrays: by name
        :raises OSError: the disk is full
        :raises ValueError: the file exists, and is of another kind
        """
        described = {**head, "arrays": [[name, array.dtype.str, array.shape] for name, array in arrays.items()]}
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
        body = zlib.compress(json.dumps(described).encode() + b"\n" + data, level=1)
        if self._file is None:
            self._open()
        # One write without a buffer of our own: the operating system has all of it, whatever happens to this process
        record = HEAD.pack(len(body), zlib.crc32(body)) + body
        if self._file.write(record) != len(record):
            raise OSError(f"{self.path} could not take a whole record: the disk is full.")

    def sync(self) -> None:
        """Let the disk have it, too."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """May be called again; appending opens the file anew."""
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "a+b", buffering=0)  # noqa: SIM115
        sound = _sound_length(file, self.path)
        file.seek(sound)
        if torn := file.readall():  # kept: should the disk have failed in the middle, what follows is not lost
            self.path.with_name(f"{self.path.name}.torn-{time.time_ns()}").write_bytes(torn)
            file.truncate(sound)
        if sound == 0:
            file.write(MAGIC)
        self._file = file


class RecordReader:
    """
    Follows a file that somebody else appends to. It may not exist yet.

    :param path: the file
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: BinaryIO | None = None

    def new(self) -> Iterator[Record]:
        """
        :return: what was added since the last call, up to the last whole record
        :raises ValueError: another kind of file
        """
        if self._file is None:
            if not self.path.exists():
                return
            self._file = open(self.path, "rb")  # noqa: SIM115
        for body in _bodies(self._file, self.path):
            yield _parse(body)

    @property
    def position(self) -> int:
        """Bytes that were read."""
        return 0 if self._file is None else self._file.tell()

    def close(self) -> None:
        """Reading again begins at the start."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_records(path: str | Path) -> Iterator[Record]:
    """
    :param path: the file
    :return: all sound records up to the first that is not
    :raises ValueError: another kind of file
    """
    with open(path, "rb") as file:
        for body in _bodies(file, Path(path)):
            yield _parse(body)


def _bodies(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The bodies of the whole records from here; then the file stands behind the last of them."""
    if file.tell() == 0:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            file.seek(0)
            if MAGIC.startswith(magic):  # still being made, or killed then
                return
            raise ValueError(f"{path} is no file of records: it begins with {magic[:16]!r}.")
    while True:
        start = file.tell()
        head = file.read(HEAD.size)
        size, checksum = HEAD.unpack(head) if len(head) == HEAD.size else (0, None)
        body = file.read(size)
        # No record is empty: a power cut may leave zeros, and the checksum of nothing is zero
        if size == 0 or len(body) < size or zlib.crc32(body) != checksum:
            file.seek(start)
            return
        yield body


def _parse(body: bytes) -> Record:
    line, _, data = zlib.decompress(body).partition(b"\n")
    head = json.loads(line)
    arrays, offset = {}, 0
    for name, dtype, shape in head.pop("arrays"):
        array = np.frombuffer(data, np.dtype(dtype), int(np.prod(shape)), offset).reshape(shape)
        arrays[name] = array.copy()
        offset += array.nbytes
    return Record(head, arrays)


def _sound_length(file: BinaryIO, path: Path) -> int:
    file.seek(0)
    for _ in _bodies(file, path):
        pass
    return file.tell()
