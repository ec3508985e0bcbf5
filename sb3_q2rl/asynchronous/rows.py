"""Rows of a replay buffer as records: all that ``add`` needs to make the same row in another buffer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sb3_q2rl.common.buffers import BCDictReplayBuffer, BCHerReplayBuffer, BCReplayBuffer
from sb3_q2rl.envs.records import Record

Buffer = BCReplayBuffer | BCDictReplayBuffer | BCHerReplayBuffer


class NewRows:
    """
    The rows of a buffer that were added since the last call.

    :param buffer: what is there now is not new
    """

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self._next = buffer.pos

    def take(self) -> Iterator[Record]:
        """:return: each row, oldest first"""
        while self._next != self.buffer.pos:
            if self._next >= self.buffer.buffer_size:  # the buffer was full, and began anew
                self._next = 0
                continue
            yield to_record(self.buffer, self._next)
            self._next += 1


def to_record(buffer: Buffer, row: int) -> Record:
    """
    :param buffer: where it is
    :param row: which; all environments of it
    :return: arrays whose first dimension is the environment
    """
    rows, columns = np.full(buffer.n_envs, row), np.arange(buffer.n_envs)
    arrays: dict[str, np.ndarray] = {}
    for part, stored in (("observation", buffer.observations), ("next", buffer.next_observations)):
        if isinstance(stored, dict):
            arrays |= {f"{part}/{key}": values[rows, columns] for key, values in stored.items()}
        else:
            arrays[part] = stored[rows, columns]
    for name in ("actions", "rewards", "dones", "timeouts", "bc_actions", "bc_log_prob", "bc_entropy", "bc_acted"):
        arrays[name] = getattr(buffer, name)[row]
    return Record({"kind": "row"}, arrays)


def add_record(buffer: Buffer, record: Record) -> None:
    """
    :param buffer: what to add it to
    :param record: of :func:`to_record`
    """
    arrays = record.arrays
    infos: list[dict[str, Any]] = [
        {
            "bc_step": tuple(arrays[name][i] for name in ("bc_actions", "bc_log_prob", "bc_entropy", "bc_acted")),
            "TimeLimit.truncated": bool(arrays["timeouts"][i]),
        }
        for i in range(len(arrays["rewards"]))
    ]
    observations, following = _unflat("observation", arrays), _unflat("next", arrays)
    buffer.add(observations, following, arrays["actions"], arrays["rewards"], arrays["dones"], infos)


def _unflat(name: str, arrays: dict[str, np.ndarray]) -> Any:
    if name in arrays:
        return arrays[name]
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}
