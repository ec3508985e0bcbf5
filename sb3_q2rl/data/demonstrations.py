"""Demonstrations: checked, flat arrays of transitions with the ends of their episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np

from sb3_q2rl.data.checks import (
    Observations,
    as_array,
    check_action_range,
    check_columns,
    check_episode_ends,
    check_finite,
)

Source: TypeAlias = Literal["human", "policy-generated", "scripted", "unknown"]

# Observations keep their own: images stay uint8
_DTYPES = {
    "actions": np.float32,
    "rewards": np.float32,
    "terminated": bool,
    "truncated": bool,
    "episode_ends": np.int64,
}


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """
    Whole episodes of somebody acting, stored one after the other. Everything is checked when the object is built, so
    whoever uses it may rely on the shapes, on finite numbers and on actions in [-1, 1], the scale of SB3's buffers.
    Lists become arrays.

    The arrays are already transitions: row i holds what a replay buffer needs for one step. ``episode_ends`` says
    where the episodes stop: episode k is ``rows episode_ends[k - 1] : episode_ends[k]``.

    :param observations: (n, *obs_shape), or a dict of those
    :param next_observations: the observations after the actions, same structure
    :param actions: (n, action_dim), in [-1, 1]
    :param rewards: (n,)
    :param terminated: (n,) bool, the task ended here: nothing to bootstrap on
    :param truncated: (n,) bool, the recording ended here, the task did not
    :param episode_ends: (n_episodes,) one past the last row of each episode, increasing; the last one is n
    :param source: who acted: "human", "policy-generated", "scripted" or "unknown"
    :raises ValueError: when a shape, a number, an action's range or an episode's end is wrong
    """

    observations: Observations
    next_observations: Observations
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    episode_ends: np.ndarray
    source: Source = "unknown"

    def __post_init__(self) -> None:
        as_source(self.source)
        self._make_arrays()
        if self.episode_ends.ndim != 1:
            raise ValueError(f"`episode_ends` has shape {self.episode_ends.shape}, expected (n_episodes,).")
        if self.episode_ends.size == 0 or self.actions.size == 0:
            raise ValueError("There is no step in these demonstrations: at least one episode of one step is needed.")
        check_columns(
            len(self.actions),
            observations=self.observations,
            next_observations=self.next_observations,
            actions=self.actions,
            rewards=self.rewards,
            terminated=self.terminated,
            truncated=self.truncated,
        )
        check_finite(observations=self.observations, next_observations=self.next_observations)
        check_finite(actions=self.actions, rewards=self.rewards)
        check_action_range(self.actions)
        check_episode_ends(self.episode_ends, self.terminated | self.truncated)

    def _make_arrays(self) -> None:
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, as_array(name, getattr(self, name), dtype))
        for name in ("observations", "next_observations"):
            value = getattr(self, name)
            if isinstance(value, dict):
                arrays: Observations = {key: as_array(f"{name}[{key!r}]", part) for key, part in value.items()}
            else:
                arrays = as_array(name, value)
            object.__setattr__(self, name, arrays)

    @classmethod
    def load(cls, path_or_name: str | Path, *, clip_actions: bool = False, **options: Any) -> Demonstrations:
        """
        Read a file of demonstrations, whatever its kind, or a data set that is shipped with the package.

        :param path_or_name: an ``.npz``, D4RL, Minari or robomimic file, or a shipped name such as
            "adroit-door-human"
        :param clip_actions: clip actions beyond [-1, 1] instead of refusing them
        :param options: what the reader of that kind takes, e.g. ``obs_keys`` and ``mask`` for robomimic files
        :raises FileNotFoundError: neither a file nor a shipped name
        :raises ValueError: an unknown kind, a damaged file, or content that is no valid demonstration
        """
        from sb3_q2rl.data.detect import load_demonstrations

        return load_demonstrations(path_or_name, clip_actions=clip_actions, **options)

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def n_episodes(self) -> int:
        return len(self.episode_ends)

    @property
    def episode_lengths(self) -> np.ndarray:
        return np.diff(self.episode_ends, prepend=0)

    @property
    def action_dim(self) -> int:
        return int(self.actions.shape[1])

    def episodes(self) -> Iterator[Demonstrations]:
        """One episode after the other, each as ``Demonstrations`` (views, nothing is copied)."""
        for start, end in zip(self.episode_ends - self.episode_lengths, self.episode_ends, strict=True):
            yield self._rows(slice(int(start), int(end)), np.array([end - start]))

    def select(self, episode_indices: np.ndarray | list[int]) -> Demonstrations:
        """
        :param episode_indices: which episodes to keep, in that order
        :raises ValueError: no episode is left
        """
        if len(episode_indices) == 0:
            raise ValueError("`episode_indices` is empty: name at least one episode to keep.")
        starts = self.episode_ends - self.episode_lengths
        rows = np.concatenate([np.arange(starts[i], self.episode_ends[i]) for i in episode_indices])
        return self._rows(rows, np.cumsum(self.episode_lengths[episode_indices]))

    def split(self, held_out_fraction: float, seed: int = 0) -> tuple[Demonstrations, Demonstrations]:
        """
        Split by whole episodes: steps of one episode are too alike to judge each other.

        :param held_out_fraction: share of the episodes to hold out, in (0, 1); at least one is held out
        :param seed: of the random choice
        :return: (training, held-out)
        :raises ValueError: fewer than two episodes, or a fraction that leaves no episode to train on
        """
        if not 0 < held_out_fraction < 1:
            raise ValueError(f"`held_out_fraction` is {held_out_fraction}: it must lie between 0 and 1, both excluded.")
        n_held_out = max(1, round(held_out_fraction * self.n_episodes))
        if n_held_out >= self.n_episodes:
            raise ValueError(
                f"{self.n_episodes} episode(s) cannot be split with `held_out_fraction`={held_out_fraction}: "
                "at least one episode must remain to train on. Use more episodes or a smaller fraction."
            )
        order = np.random.default_rng(seed).permutation(self.n_episodes)
        return self.select(np.sort(order[n_held_out:])), self.select(np.sort(order[:n_held_out]))

    def with_success_rewards(self, success: np.ndarray, *, step_reward: float, success_reward: float) -> Demonstrations:
        """
        The same episodes under a sparse reward: an episode ends, terminated, at its first success; one without
        success stays truncated. Needed whenever the recorded reward is not the one of the environment to learn in.

        :param success: (n,) bool, was the task solved after this step?
        :param step_reward: reward of every other step
        :param success_reward: reward of the step that succeeds
        """
        if success.shape != (len(self),):
            raise ValueError(f"`success` has shape {success.shape}, expected one flag a step: ({len(self)},).")
        success = success.astype(bool)
        kept = []
        for start, end in zip(self.episode_ends - self.episode_lengths, self.episode_ends, strict=True):
            solved = np.flatnonzero(success[start:end])
            kept.append(np.arange(start, start + solved[0] + 1 if len(solved) else end))
        rows = np.concatenate(kept)
        episode_ends = np.cumsum([len(episode) for episode in kept])
        truncated = np.zeros(len(rows), dtype=bool)
        truncated[episode_ends - 1] = ~success[rows[episode_ends - 1]]
        return Demonstrations(
            observations=_take(self.observations, rows),
            next_observations=_take(self.next_observations, rows),
            actions=self.actions[rows],
            rewards=np.where(success[rows], success_reward, step_reward).astype(np.float32),
            terminated=success[rows],
            truncated=truncated,
            episode_ends=episode_ends,
            source=self.source,
        )

    def _rows(self, rows: slice | np.ndarray, episode_ends: np.ndarray) -> Demonstrations:
        return Demonstrations(
            observations=_take(self.observations, rows),
            next_observations=_take(self.next_observations, rows),
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            terminated=self.terminated[rows],
            truncated=self.truncated[rows],
            episode_ends=episode_ends,
            source=self.source,
        )


def as_source(source: str) -> Source:
    """
    :param source: label of who acted
    :raises ValueError: an unknown label
    """
    if source not in get_args(Source):
        raise ValueError(f"`source` is {source!r}, expected one of {', '.join(get_args(Source))}.")
    return cast(Source, source)


def _take(observations: Observations, rows: slice | np.ndarray) -> Observations:
    if isinstance(observations, dict):
        return {key: value[rows] for key, value in observations.items()}
    return observations[rows]
