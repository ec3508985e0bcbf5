"""D4RL HDF5 files: flat arrays; an episode ends where ``terminals`` or ``timeouts`` says so."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from sb3_q2rl.data.assemble import RecordedEpisode, assemble
from sb3_q2rl.data.demonstrations import Demonstrations, Source
from sb3_q2rl.data.hdf5 import array, open_hdf5


def is_d4rl(file: h5py.File) -> bool:
    """Flat data sets at the top level."""
    return all(isinstance(file.get(name), h5py.Dataset) for name in ("observations", "actions", "terminals"))


def load_d4rl(path: Path, *, clip_actions: bool = False, source: Source = "unknown") -> Demonstrations:
    """
    Rows after the last end are an episode that was still running: they are kept, as a truncated one.

    :param path: the file; ``observations``, ``actions``, ``rewards``, ``terminals``, and optionally ``timeouts`` and
        ``next_observations``
    :param clip_actions: clip actions beyond [-1, 1] instead of refusing them
    :param source: who acted; D4RL's files do not say it
    :raises ValueError: data sets are missing or of different lengths, or no episode could be told from the next
    """
    with open_hdf5(path) as file:
        columns = {name: array(file, name) for name in ("observations", "actions", "rewards", "terminals")}
        for name in ("timeouts", "next_observations"):
            if name in file:
                columns[name] = array(file, name)
    n_steps = len(columns["actions"])
    for name, column in columns.items():
        if len(column) != n_steps:
            raise ValueError(f"{path}: `{name}` has {len(column)} rows, `actions` has {n_steps}. The file is damaged.")
    if n_steps == 0:
        raise ValueError(f"{path} holds no steps.")
    terminals = columns["terminals"].astype(bool)
    done = terminals | columns["timeouts"].astype(bool) if "timeouts" in columns else terminals
    if not done.any() and "timeouts" not in columns:
        raise ValueError(
            f"{path} marks no end of an episode: `terminals` is never set and there are no `timeouts`. Add a data set "
            "`timeouts` that is 1 at each episode's last step."
        )
    ends = np.flatnonzero(done) + 1
    if len(ends) == 0 or ends[-1] != n_steps:
        ends = np.append(ends, n_steps)
    next_observations = columns.get("next_observations")
    episodes = [
        RecordedEpisode(
            observations=columns["observations"][start:end],
            actions=columns["actions"][start:end],
            rewards=columns["rewards"][start:end],
            terminated=bool(terminals[end - 1]),
            next_observations=None if next_observations is None else next_observations[start:end],
        )
        for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)
    ]
    return assemble(episodes, origin=path, source=source, clip_actions=clip_actions)
