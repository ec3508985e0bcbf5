"""Every transition of a robot on disk as it happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sb3_q2rl.envs.records import RecordFile, read_records

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
    :param info: of the step, what JSON can hold of it, and ``intervened``: a person acted
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
    A process that is killed loses at most the step it was writing, see :class:`~sb3_q2rl.envs.records.RecordFile`; a
    power cut at most the episode. A file that exists is continued.

    :param path: the file
    :param about: the environment, for whoever reads the file; what JSON can hold
    """

    def __init__(self, path: str | Path, about: dict[str, Any] | None = None) -> None:
        self.about = about or {}
        self._records = RecordFile(path)

    def append_reset(self, observation: Observation, seed: int | None = None) -> None:
        """
        :param observation: the first one of an episode
        :param seed: that ``reset`` was given
        """
        self._records.sync()
        head = {"kind": "reset", "seed": seed, "about": self.about, "time_s": time.time()}
        self._records.append(head, _flat(observation))

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
        plain["intervened"] = "intervene_action" in info
        head = {"kind": "step", "reward": reward, "terminated": terminated, "truncated": truncated, "info": plain}
        arrays = {"action": np.asarray(action, np.float32), "executed": np.asarray(executed, np.float32)}
        self._records.append({**head, "time_s": time.time()}, {**arrays, **_flat(observation)})
        if terminated or truncated:
            self._records.sync()

    def close(self) -> None:
        """May be called again; appending opens the file anew."""
        self._records.close()


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
        ends = head["terminated"], head["truncated"]
        step = Transition(before, action, executed, head["reward"], *ends, after, head["info"], head["time_s"])
        episode.steps.append(step)
        before = after
    if episode is not None and episode.steps:
        yield episode


def _flat(observation: Observation) -> dict[str, np.ndarray]:
    if isinstance(observation, dict):
        return {f"observation/{key}": value for key, value in observation.items()}
    return {"observation": observation}


def _unflat(arrays: dict[str, np.ndarray]) -> Observation:
    if "observation" in arrays:
        return arrays["observation"]
    return {name.removeprefix("observation/"): array for name, array in arrays.items()}
