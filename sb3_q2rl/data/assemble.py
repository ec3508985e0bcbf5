"""From what files hold, episode by episode, to Demonstrations. The rule for missing last observations lives here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sb3_q2rl.data.checks import Observations
from sb3_q2rl.data.demonstrations import Demonstrations, Source


class RecordedEpisode(NamedTuple):
    """
    One episode as a file holds it.

    :param observations: (T, *obs_shape), or (T + 1, *obs_shape) with the one after the last action
    :param actions: (T, action_dim)
    :param rewards: (T,)
    :param terminated: did the task end with the last step? Otherwise the recording was cut there
    :param next_observations: (T, *obs_shape), where the file has them
    """

    observations: Observations
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    next_observations: Observations | None = None


def assemble(
    episodes: Sequence[RecordedEpisode], *, origin: str | Path, source: Source, clip_actions: bool
) -> Demonstrations:
    """
    Many files do not hold the observation after an episode's last action. Where the task ended there, nothing will
    ever be bootstrapped on it, so the last observation is repeated; where it did not, a made-up observation would
    poison the TD target, so the last step is dropped and the one before it becomes the truncated one.

    :param episodes: in the order of the file
    :param origin: file the episodes came from, for the error messages
    :param source: who acted
    :param clip_actions: clip actions beyond [-1, 1] instead of refusing them
    :raises ValueError: nothing is left, or the content is no valid demonstration
    """
    complete = [_with_next_observations(episode) for episode in episodes]
    complete = [episode for episode in complete if len(episode.actions) > 0]
    if not complete:
        raise ValueError(f"{origin} holds no usable episode: at least one of two steps is needed.")
    episode_ends = np.cumsum([len(episode.actions) for episode in complete])
    terminated = np.zeros(episode_ends[-1], dtype=bool)
    terminated[episode_ends - 1] = [episode.terminated for episode in complete]
    truncated = np.zeros_like(terminated)
    truncated[episode_ends - 1] = ~terminated[episode_ends - 1]
    try:
        actions = np.concatenate([episode.actions for episode in complete]).astype(np.float32)
        return Demonstrations(
            observations=_concatenate([episode.observations for episode in complete]),
            next_observations=_concatenate([episode.next_observations for episode in complete]),
            actions=np.clip(actions, -1.0, 1.0) if clip_actions else actions,
            rewards=np.concatenate([episode.rewards for episode in complete]).astype(np.float32),
            terminated=terminated,
            truncated=truncated,
            episode_ends=episode_ends,
            source=source,
        )
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error


def map_observations(function: Callable[[np.ndarray], np.ndarray], observations: Observations) -> Observations:
    """Apply a function to the observation array, or to each array of a dict."""
    if isinstance(observations, dict):
        return {key: function(value) for key, value in observations.items()}
    return function(observations)


def _with_next_observations(episode: RecordedEpisode) -> RecordedEpisode:
    n_steps = len(episode.actions)
    if episode.next_observations is not None:
        return episode
    lengths = (
        {len(value) for value in episode.observations.values()}
        if isinstance(episode.observations, dict)
        else {len(episode.observations)}
    )
    if lengths == {n_steps + 1}:
        return episode._replace(
            observations=map_observations(lambda x: x[:-1], episode.observations),
            next_observations=map_observations(lambda x: x[1:], episode.observations),
        )
    if lengths != {n_steps}:
        raise ValueError(
            f"An episode has {n_steps} actions and {sorted(lengths)} observations: expected as many, or one more."
        )
    if episode.terminated:
        shifted = map_observations(lambda x: np.concatenate([x[1:], x[-1:]]), episode.observations)
        return episode._replace(next_observations=shifted)
    return RecordedEpisode(
        observations=map_observations(lambda x: x[:-1], episode.observations),
        actions=episode.actions[:-1],
        rewards=episode.rewards[:-1],
        terminated=False,
        next_observations=map_observations(lambda x: x[1:], episode.observations),
    )


def _concatenate(parts: Sequence[Observations | None]) -> Observations:
    first = parts[0]
    if isinstance(first, dict):
        return {key: _as_float32(np.concatenate([part[key] for part in parts])) for key in first}  # type: ignore[index]
    return _as_float32(np.concatenate(parts))  # type: ignore[arg-type]


def _as_float32(array: np.ndarray) -> np.ndarray:
    # Images stay uint8; everything else has the precision of the networks.
    return array if array.dtype == np.uint8 else array.astype(np.float32)
