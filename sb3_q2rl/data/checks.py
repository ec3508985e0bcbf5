"""What every set of demonstrations must satisfy. Each error says what came, what was expected and what to do."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Observations: TypeAlias = np.ndarray | dict[str, np.ndarray]

# Readers of float32 files meet 1.0000001: that is rounding, not an action out of range.
ACTION_TOLERANCE = 1e-5


def as_array(name: str, values: Any, dtype: type | None = None) -> np.ndarray:
    """
    :param name: of the column
    :param values: an array, or what can be made one, such as a list
    :param dtype: of the array; ``None``: that which the values have
    :return: the same array where nothing is to be done
    :raises ValueError: rows of different shapes, entries that are no numbers, or fractions where none can be
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"`{name}` is no array: {error} Expected rows of one shape.") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` holds entries of {array.dtype}, expected an array of numbers.")
    if dtype is None:
        return array
    with np.errstate(invalid="ignore"):  # NaN is told below
        cast: np.ndarray = array.astype(dtype, copy=False)
    if cast.dtype.kind in "bi" and (changed := cast != array).any():
        kind = "true or false" if dtype is bool else "whole numbers"
        raise ValueError(f"`{name}` holds {array[changed][0]}; expected {kind}.")
    return cast


def named_arrays(**columns: Observations) -> dict[str, np.ndarray]:
    """The columns as flat ``name -> array``, with dict observations as ``observations[key]``."""
    arrays: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        if isinstance(column, dict):
            arrays.update({f"{name}[{key!r}]": value for key, value in column.items()})
        else:
            arrays[name] = column
    return arrays


def check_columns(n_steps: int, **columns: Observations) -> None:
    """
    :param n_steps: expected length of every column
    :param columns: the arrays by name
    :raises ValueError: a column is shorter or longer, an action is no vector, a reward no scalar, or the observations
        after the actions are of another structure or shape than those before
    """
    for name, array in named_arrays(**columns).items():
        if array.shape[:1] != (n_steps,):
            raise ValueError(
                f"`{name}` has {len(array) if array.ndim else 'no'} rows, but there are {n_steps} actions; expected "
                "one row a step."
            )
    for name, n_dims in {"actions": 2, "rewards": 1, "terminated": 1, "truncated": 1}.items():
        shape = np.asarray(columns[name]).shape
        if len(shape) != n_dims:
            raise ValueError(f"`{name}` has shape {shape}, expected {'(n, action_dim)' if n_dims == 2 else '(n,)'}.")
    before = {name: array.shape for name, array in named_arrays(observations=columns["observations"]).items()}
    after = {name: array.shape for name, array in named_arrays(observations=columns["next_observations"]).items()}
    if before != after:
        raise ValueError(f"`next_observations` have shapes {after}, expected those of `observations`: {before}.")


def check_finite(**columns: Observations) -> None:
    """
    :param columns: the arrays by name
    :raises ValueError: NaN or infinity, with the number of bad entries and the first bad row
    """
    for name, array in named_arrays(**columns).items():
        bad = ~np.isfinite(array)
        if bad.any():
            row = int(np.flatnonzero(bad.reshape(len(array), -1).any(axis=1))[0])
            raise ValueError(
                f"`{name}` holds {int(bad.sum())} entries that are NaN or infinite, the first in row {row}. "
                "Remove that episode from the file, or repair it."
            )


def check_action_range(actions: np.ndarray) -> None:
    """
    :param actions: (n, action_dim)
    :raises ValueError: an entry lies beyond [-1, 1]
    """
    excess = np.abs(actions) - 1.0
    n_beyond = int((excess > ACTION_TOLERANCE).sum())
    if n_beyond:
        raise ValueError(
            f"`actions` holds {n_beyond} of {actions.size} entries ({100 * n_beyond / actions.size:.1f} %) beyond "
            f"[-1, 1], the farthest at {1 + excess.max():.4g}. Demonstrations are kept on the scale of the policy: "
            "scale the actions by the bounds of the action space, or pass `clip_actions=True` to clip them."
        )


def check_episode_ends(episode_ends: np.ndarray, done: np.ndarray) -> None:
    """
    :param episode_ends: (n_episodes,) one past the last row of each episode
    :param done: (n,) bool, terminated or truncated
    :raises ValueError: the ends do not increase up to n, or the flags disagree with them
    """
    n_steps = len(done)
    if episode_ends[0] <= 0 or (np.diff(episode_ends) <= 0).any() or episode_ends[-1] != n_steps:
        raise ValueError(
            f"`episode_ends` must increase and end at the number of steps, {n_steps}; it runs from {episode_ends[0]} "
            f"to {episode_ends[-1]}. The file may be cut off."
        )
    expected = np.zeros(n_steps, dtype=bool)
    expected[episode_ends - 1] = True
    wrong = np.flatnonzero(expected != done)
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} rows disagree with `episode_ends`, the first is row {wrong[0]}: the last step of every "
            "episode, and no other, must be terminated or truncated."
        )
