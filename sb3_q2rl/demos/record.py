"""Demonstrations of a scripted expert as a file in robomimic's layout, which robomimic's own tools read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple, cast

import gymnasium as gym
import h5py
import numpy as np
from tqdm import tqdm

from sb3_q2rl.demos.experts import find_expert
from sb3_q2rl.demos.play import Episode, Observation, Recordable, episode_seeds, play
from sb3_q2rl.envs.robomimic import RobomimicImageEnv

# An expert that succeeds more seldom than this, after so many episodes, will not finish
GIVE_UP_RATE, GIVE_UP_AFTER = 0.1, 20
# Every tenth demonstration is held out, as in robomimic's files
VALID_EVERY = 10


class Recorded(NamedTuple):
    """
    :param path: the file
    :param n_episodes: in the file
    :param n_successes: among those played
    :param n_played: with the failures that were not kept
    :param n_steps: in the file
    """

    path: Path
    n_episodes: int
    n_successes: int
    n_played: int
    n_steps: int


def record_demonstrations(
    env_id: str,
    path: str | Path,
    n_episodes: int = 50,
    noise: float = 0.1,
    seed: int = 0,
    keep_failures: bool = False,
    progress_bar: bool = True,
) -> Recorded:
    """
    Play until there are ``n_episodes`` to keep, and write them. Rewards are raw, not scaled and shifted as those of our
    environments: 1 for success and else 0 with robosuite, the number of finished sub-tasks in the kitchen. ``dones``
    mark success and the last step. ``mask/valid`` holds out every tenth demonstration, in short files the last;
    ``mask/train`` has the others.

    :param env_id: an environment that has an expert
    :param path: HDF5 file to write. It appears when it is complete
    :param n_episodes: how many to keep
    :param noise: standard deviation of the noise on the actions, see :func:`~sb3_q2rl.demos.play.play`
    :param seed: of everything; the same seed gives the same file
    :param keep_failures: keep episodes without success, too
    :param progress_bar: show one
    :return: what came out
    :raises ValueError: no expert, a number out of range, a path that cannot be written, or an expert that hardly ever
        succeeds
    """
    expert = find_expert(env_id)
    if n_episodes < 1:
        raise ValueError(f"`n_episodes` is {n_episodes}: at least one episode must be recorded.")
    check_noise(noise)
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    check_writable(path, unfinished)
    env = gym.make(env_id)
    n_successes = n_played = n_steps = n_kept = 0
    try:
        with h5py.File(unfinished, "w") as file, tqdm(total=n_episodes, desc=env_id, disable=not progress_bar) as bar:
            data = file.create_group("data")
            for episode_seed in episode_seeds(seed):
                episode = play(env, expert, episode_seed, noise)
                n_played += 1
                n_successes += episode.success
                bar.set_postfix(success=f"{n_successes}/{n_played}")
                if episode.success or keep_failures:
                    write_episode(data.create_group(f"demo_{n_kept}"), episode)
                    n_steps += len(episode.actions)
                    n_kept += 1
                    bar.update()
                elif n_played >= GIVE_UP_AFTER and n_successes < GIVE_UP_RATE * n_played:
                    raise ValueError(
                        f"The expert of {env_id} succeeded in only {n_successes} of {n_played} episodes with `noise` "
                        f"{noise:g}, too few to go on; nothing was written. Use less noise (0.1 costs little), or "
                        "keep the failures: `keep_failures=True`, --keep-failures."
                    )
                if n_kept == n_episodes:
                    break
            data.attrs["total"] = n_steps
            data.attrs["env_args"] = json.dumps(_env_args(env.unwrapped))
            data.attrs["source"] = "scripted"
            write_masks(file.create_group("mask"), n_episodes)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
        env.close()
    return Recorded(path, n_episodes, n_successes, n_played, n_steps)


def check_noise(noise: float) -> None:
    """
    :param noise: standard deviation
    :raises ValueError: negative or not finite
    """
    if not 0.0 <= noise < np.inf:
        raise ValueError(f"`noise` is {noise}: it must be a standard deviation, 0 or above; actions are in [-1, 1].")


def write_episode(group: h5py.Group, episode: Episode) -> None:
    """
    :param group: ``data/demo_<i>``, still empty
    :param episode: what goes into it
    """
    n_steps = len(episode.actions)
    dones = np.zeros(n_steps, dtype=np.int64)
    dones[-1] = 1
    group.attrs["num_samples"] = n_steps
    if episode.model_xml is not None:
        group.attrs["model_file"] = episode.model_xml
    group.attrs["seed"] = episode.seed
    group.attrs["success"] = episode.success
    for name, values in (
        ("actions", episode.actions),
        ("states", episode.states),
        ("rewards", episode.rewards),
        ("dones", dones),
    ):
        group.create_dataset(name, data=values)
    _write_observations(group.create_group("obs"), episode.observations[:-1])
    _write_observations(group.create_group("next_obs"), episode.observations[1:])


def _write_observations(group: h5py.Group, observations: list[Observation]) -> None:
    for key in observations[0]:
        values = np.stack([observation[key] for observation in observations])
        # Images shrink to a fraction, and readers want one at a time
        options: dict[str, Any] = {"chunks": (1, *values.shape[1:]), "compression": 4} if values.ndim > 2 else {}
        group.create_dataset(key, data=values, **options)


def write_masks(group: h5py.Group, n_episodes: int) -> None:
    held_out = set(range(VALID_EVERY - 1, n_episodes, VALID_EVERY))
    if not held_out and n_episodes > 1:
        held_out = {n_episodes - 1}
    for name, chosen in (("train", set(range(n_episodes)) - held_out), ("valid", held_out)):
        group.create_dataset(name, data=np.array([f"demo_{i}" for i in sorted(chosen)], dtype="S"))


def _env_args(env: gym.Env) -> dict[str, Any]:
    arguments = cast(Recordable, env).env_args
    if isinstance(env, RobomimicImageEnv):
        n_pixels = env.image_size
        arguments["env_kwargs"] |= {
            "camera_names": env.camera_names,
            "camera_heights": n_pixels,
            "camera_widths": n_pixels,
        }
    return arguments


def check_writable(path: Path, unfinished: Path) -> None:
    """Before hours of playing, not after."""
    if path.is_dir():
        raise ValueError(f"`path` {path} is a folder. Name a file in it.")
    try:
        unfinished.touch()
    except OSError as error:
        raise ValueError(
            f"`path` {path} cannot be written: {error.strerror}. The folder {path.parent} must exist and be writable."
        ) from error
