"""Next observations that are not stored: the frame after step t is the one that step t + 1 begins with."""

from __future__ import annotations

from typing import Any

import numpy as np


class NextFrames:
    """
    Reads and writes like a replay buffer's array of next observations, at half the memory: it looks one row further
    in the array of observations. Only frames that no row begins with are kept aside: those at an episode's end.

    :param frames: (n_rows, n_envs, *shape), the buffer's observations. The buffer writes a row there before it writes
        the same row here
    """

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames
        self.kept: dict[tuple[int, int], np.ndarray] = {}
        self.last_row: int | None = None
        self.latest = np.zeros(frames.shape[1:], frames.dtype)  # what followed the last row

    def __setitem__(self, rows: int | np.ndarray, next_frames: np.ndarray) -> None:
        """
        :param rows: the row, or several consecutive ones
        :param next_frames: (n_envs, *shape) or (n_rows, n_envs, *shape)
        """
        if isinstance(rows, np.ndarray):
            for row, frames in zip(rows.tolist(), next_frames, strict=True):
                self[row] = frames
            return
        if self.last_row is not None:
            is_next = rows == (self.last_row + 1) % len(self.frames)
            for env_idx, frame in enumerate(self.latest):
                if not (is_next and np.array_equal(frame, self.frames[rows, env_idx])):
                    self.kept[self.last_row, env_idx] = frame.copy()
        for env_idx in range(len(self.latest)):
            self.kept.pop((rows, env_idx), None)
        self.last_row = rows
        self.latest[:] = next_frames

    def __getitem__(self, index: tuple[Any, ...]) -> np.ndarray:
        """
        :param index: rows (batch,) and environments (batch,); HER adds a full slice
        :return: (batch, *shape)
        """
        rows, env_indices = index[:2]
        frames = self.frames[(rows + 1) % len(self.frames), env_indices]
        for i, place in enumerate(zip(rows.tolist(), env_indices.tolist(), strict=True)):
            if place[0] == self.last_row:
                frames[i] = self.latest[place[1]]
            elif place in self.kept:
                frames[i] = self.kept[place]
        return frames
