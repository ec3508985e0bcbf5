"""What was recorded on a robot as a file of demonstrations in robomimic's layout."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np

from sb3_q2rl.data.demonstrations import Source, as_source
from sb3_q2rl.demos.play import Episode, Observation
from sb3_q2rl.demos.record import Recorded, check_writable, write_episode, write_masks
from sb3_q2rl.envs.franka.transition_log import LoggedEpisode, read_episodes


def log_to_demonstrations(
    log_path: str | Path, path: str | Path, source: Source = "human", keep_failures: bool = False
) -> Recorded:
    """
    Actions are the executed ones, rewards raw, as robomimic's are. Flat observations get the name ``flat``; of images
    each has its own. Episodes that a fault or a person's stop ended are left out, with ``keep_failures``, too.

    :param log_path: a log of :class:`~sb3_q2rl.envs.franka.transition_log.TransitionLog`
    :param path: HDF5 file to write. It appears when it is complete
    :param source: who acted: ``"human"``, ``"scripted"``, ``"policy-generated"`` or ``"unknown"``
    :param keep_failures: keep episodes without success, too
    :return: what came out
    :raises ValueError: no episode to keep, another kind of file, or a path that cannot be written, an unknown source
    """
    as_source(source)
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    check_writable(path, unfinished)
    n_played = n_successes = n_kept = n_steps = 0
    about = {}
    try:
        with h5py.File(unfinished, "w") as file:
            data = file.create_group("data")
            for logged in read_episodes(log_path):
                about = logged.about
                success = logged.steps[-1].terminated
                n_played += 1
                n_successes += success
                if success or (keep_failures and "robot_error" not in logged.steps[-1].info):
                    write_episode(data.create_group(f"demo_{n_kept}"), _episode(logged))
                    n_steps += len(logged.steps)
                    n_kept += 1
            if n_kept == 0:
                raise ValueError(
                    f"`log_path` {log_path} has {n_played} episodes, and none that succeeded; nothing was written. "
                    "`keep_failures=True` keeps those that did not."
                )
            data.attrs["total"] = n_steps
            data.attrs["env_args"] = json.dumps(about)
            data.attrs["source"] = source
            write_masks(file.create_group("mask"), n_kept)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return Recorded(path, n_kept, n_successes, n_played, n_steps)


def _episode(logged: LoggedEpisode) -> Episode:
    steps = logged.steps
    scale, bias = logged.about.get("reward_scale", 1.0), logged.about.get("reward_bias", 0.0)
    return Episode(
        seed=-1 if logged.seed is None else logged.seed,
        success=steps[-1].terminated,
        states=np.zeros((len(steps), 0)),  # a real world has none
        actions=np.stack([step.executed for step in steps]),
        rewards=np.array([(step.reward - bias) / scale for step in steps]),
        observations=[_named(steps[0].observation), *(_named(step.next_observation) for step in steps)],
        model_xml=None,
    )


def _named(observation: np.ndarray | Observation) -> Observation:
    return observation if isinstance(observation, dict) else {"flat": observation}
