"""Demonstrations as one ``.npz`` file of plain arrays: one row a step, and where the episodes end."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from sb3_q2rl.data.assemble import RecordedEpisode, assemble
from sb3_q2rl.data.checks import Observations, as_array, named_arrays
from sb3_q2rl.data.demonstrations import Demonstrations, Source, as_source

# Dict observations are stored as one array a key, named "observations/<key>".
_SEPARATOR = "/"


def is_npz(path: Path) -> bool:
    """A zip archive with at least one ``.npy`` member."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(".npy") for name in archive.namelist())


def load_npz(path: Path, *, clip_actions: bool = False, source: Source | None = None) -> Demonstrations:
    """
    Arrays ``observations`` (n, ...), ``actions`` (n, action_dim), ``rewards`` (n,) and ``episode_ends`` (n_episodes,);
    optional ``next_observations``, ``terminated`` (n,), true only at the end of episodes, and ``source``. Without
    ``terminated`` no episode is taken to have ended its task.

    :param path: the file
    :param clip_actions: clip actions beyond [-1, 1] instead of refusing them
    :param source: who acted; by default what the file says
    :raises ValueError: arrays are missing or wrong, or the file wants to be unpickled
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (
        *(ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
        *(NotImplementedError, SyntaxError),
    ) as error:
        raise ValueError(f"{path} cannot be read as plain arrays ({error}). Write it again with `save_npz`.") from error
    missing = {"actions", "rewards", "episode_ends"} - arrays.keys()
    observations = _observations(arrays, "observations")
    if missing or observations is None:
        names = ", ".join(sorted(missing | (set() if observations is not None else {"observations"})))
        raise ValueError(f"{path} lacks the arrays {names}; it holds {', '.join(arrays) or 'nothing'}.")
    for name, n_dims, shape in (("actions", 2, "(n, action_dim)"), ("episode_ends", 1, "(n_episodes,)")):
        if arrays[name].ndim != n_dims:
            raise ValueError(f"{path}: `{name}` has the shape {arrays[name].shape}, expected {shape}.")
    n_steps = len(arrays["actions"])
    try:
        ends = as_array("episode_ends", arrays["episode_ends"], np.int64)
        terminated = as_array("terminated", arrays.get("terminated", np.zeros(n_steps)), bool)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if len(ends) == 0 or ends[0] <= 0 or (np.diff(ends) <= 0).any() or ends[-1] != n_steps:
        raise ValueError(f"{path}: `episode_ends` must increase from above 0 to the number of actions, {n_steps}.")
    next_observations = _observations(arrays, "next_observations")
    _check_rows(path, n_steps, ends, observations, next_observations, arrays["rewards"], terminated)
    if source is None:
        source = as_source(str(arrays.get("source", "unknown")))
    episodes = [
        RecordedEpisode(
            observations=_slice(observations, start, end),
            actions=arrays["actions"][start:end],
            rewards=arrays["rewards"][start:end],
            terminated=bool(terminated[end - 1]),
            next_observations=None if next_observations is None else _slice(next_observations, start, end),
        )
        for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)
    ]
    return assemble(episodes, origin=path, source=source, clip_actions=clip_actions)


def save_npz(demonstrations: Demonstrations, path: str | Path) -> Path:
    """
    :param demonstrations: what to write
    :param path: the file; an existing one is replaced at once and whole
    :return: the path
    """
    path = Path(path)
    arrays: dict[str, np.ndarray] = {
        "actions": demonstrations.actions,
        "rewards": demonstrations.rewards,
        "terminated": demonstrations.terminated,
        "episode_ends": demonstrations.episode_ends,
        "source": np.array(demonstrations.source),
    }
    for name in ("observations", "next_observations"):
        value: Observations = getattr(demonstrations, name)
        if isinstance(value, dict):
            arrays.update({f"{name}{_SEPARATOR}{key}": array for key, array in value.items()})
        else:
            arrays[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    os.replace(partial, path)
    return path


def _check_rows(
    path: Path,
    n_steps: int,
    ends: np.ndarray,
    observations: Observations,
    next_observations: Observations | None,
    rewards: np.ndarray,
    terminated: np.ndarray,
) -> None:
    columns: dict[str, Observations] = {"observations": observations, "rewards": rewards, "terminated": terminated}
    if next_observations is not None:
        columns["next_observations"] = next_observations
    for name, column in named_arrays(**columns).items():
        if column.ndim == 0 or len(column) != n_steps:
            raise ValueError(
                f"{path}: `{name}` has the shape {column.shape}, expected one row for each of the {n_steps} actions. "
                "What follows an episode's last action belongs into `next_observations`."
            )
    early = np.setdiff1d(np.flatnonzero(terminated), ends - 1)
    if len(early):
        raise ValueError(
            f"{path}: `terminated` is true in {len(early)} rows that end no episode, the first is row {early[0]}. An "
            "episode ends with its task: correct `episode_ends`, or leave the rows after it out."
        )


def _observations(arrays: dict[str, np.ndarray], name: str) -> Observations | None:
    if name in arrays:
        return arrays[name]
    prefix = name + _SEPARATOR
    keyed = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    return keyed or None


def _slice(observations: Observations, start: int, end: int) -> Observations:
    if isinstance(observations, dict):
        return {key: value[start:end] for key, value in observations.items()}
    return observations[start:end]
