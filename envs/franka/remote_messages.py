"""What passes between :class:`RemoteRobot` and ``serve``: msgpack, no pickle; and the key that both ends share."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sb3_q2rl.envs.franka.robot import Command, RobotState

_INSTALL = "A remote robot needs pyzmq and msgpack. Install them: pip install sb3_q2rl[franka]"


def import_zmq() -> Any:
    """
    :return: the module
    :raises ImportError: it is not installed; says what to do
    """
    try:
        import zmq
        import zmq.auth.thread
    except ImportError as error:
        raise ImportError(_INSTALL) from error
    return zmq


def pack(message: list[Any]) -> bytes:
    """
    :param message: of numbers, strings, lists and what :func:`to_plain` makes
    """
    return _msgpack().packb(message)


def unpack(data: bytes) -> list[Any]:
    """
    :param data: from :func:`pack`, or from a stranger
    :raises ValueError: it is not a list that msgpack reads
    """
    message = _msgpack().unpackb(data)
    if not isinstance(message, list):
        raise ValueError(f"a message must be a list, this is {type(message).__name__}")
    return message


def to_plain(value: Any) -> Any:
    """
    :param value: what a robot's method takes or returns
    :return: for :func:`pack`. A state carries its age, for clocks of two machines do not agree
    """
    if isinstance(value, RobotState):
        plain = {name: to_plain(item) for name, item in asdict(value).items()}
        return {"state": plain, "age_s": time.monotonic() - value.time_s}
    if isinstance(value, Command):
        return {"command": {name: to_plain(item) for name, item in asdict(value).items()}}
    if isinstance(value, np.ndarray):
        return {"array": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, dict):
        return {"mapping": {name: to_plain(item) for name, item in value.items()}}
    return None if value is None else float(value)


def from_plain(plain: Any) -> Any:
    """
    :param plain: from :func:`to_plain`
    :return: the value; a state's time is on this machine's clock, as if it had taken no time to come
    """
    if not isinstance(plain, dict):
        return plain
    if "state" in plain:
        values = {field.name: from_plain(plain["state"][field.name]) for field in fields(RobotState)}
        return RobotState(**{**values, "time_s": time.monotonic() - plain["age_s"]})
    if "command" in plain:
        return Command(**{field.name: from_plain(plain["command"][field.name]) for field in fields(Command)})
    if "array" in plain:
        return np.frombuffer(plain["array"], np.dtype(plain["dtype"])).reshape(plain["shape"]).copy()
    return {name: from_plain(item) for name, item in plain["mapping"].items()}


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise ImportError(_INSTALL) from error
    return msgpack


@dataclass(frozen=True)
class Key:
    """
    Both ends' CURVE key pairs, in Z85. Whoever has this file moves the robot.

    :param server_public: with the next, proves to the client that this is its robot
    :param server_secret: stays with the server in textbooks; one file for both machines is what people get right
    :param client_public: with the next, proves to the server that the client may command
    :param client_secret: likewise
    """

    server_public: str
    server_secret: str
    client_public: str
    client_secret: str

    @classmethod
    def generate(cls) -> Key:
        zmq = import_zmq()
        return cls(*(part.decode() for _ in range(2) for part in zmq.curve_keypair()))

    def save(self, path: str | Path) -> None:
        """
        :param path: a new file, readable by its owner only
        :raises FileExistsError: it exists; a key is not overwritten by accident
        """
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(f"{name} {value}\n" for name, value in asdict(self).items())

    @classmethod
    def load(cls, path: str | Path) -> Key:
        """
        :param path: from :meth:`save`
        :raises ValueError: the file is not a key, or others may read it
        """
        path = Path(path)
        if path.stat().st_mode & 0o077:
            raise ValueError(f"`key` {path} can be read by others, who could then move the robot: chmod 600 {path}")
        values = dict(line.split(maxsplit=1) for line in path.read_text().splitlines() if len(line.split()) == 2)
        names = [field.name for field in fields(cls)]
        if sorted(values) != sorted(names) or any(len(value.strip()) != 40 for value in values.values()):
            raise ValueError(f"`key` {path} is no key file: it must have a line for each of {', '.join(names)}")
        return cls(**{name: values[name].strip() for name in names})
