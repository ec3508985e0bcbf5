"""Checkpoints of a whole run: model, replay buffer, statistics, random generators. Written completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

Model = TypeVar("Model", bound=OfflineToOnlineSAC)

_NAME = re.compile(r"step_(\d+)(_offline_\d+)?")
_MANIFEST = "manifest.json"


class CheckpointCallback(BaseCallback):
    """
    Save the run at the end of an episode, at most every ``save_freq`` steps, also when the estimation or warm-up is
    over, and when ``learn`` ends. Go on with :func:`resume`.

    :param directory: Where; each checkpoint is a directory ``step_000012345`` in it
    :param save_freq: Environment steps between two checkpoints
    :param keep: How many of the newest to keep
    :param verbose: 1: a line for each
    :raises ValueError: the directory holds checkpoints of a longer run, which would be taken for this one's newest
    """

    def __init__(self, directory: str | Path, save_freq: int = 10_000, keep: int = 2, verbose: int = 0) -> None:
        super().__init__(verbose)
        if save_freq < 1 or keep < 1:
            raise ValueError(f"`save_freq`={save_freq} and `keep`={keep} must both be at least 1.")
        self.directory = Path(directory)
        self.save_freq = save_freq
        self.keep = keep
        self._last_saved: int | None = None
        self._had_started = False

    def _on_training_start(self) -> None:
        self.refuse_another_run()
        assert isinstance(self.model, OfflineToOnlineSAC)
        self._had_started = self.model.has_started
        if self._last_saved is None or self._last_saved > self.model.num_timesteps:
            self._last_saved = self.model.num_timesteps

    def refuse_another_run(self) -> None:
        """:raises ValueError: the directory holds checkpoints of a longer run than the model's"""
        newest, step = _checkpoints(self.directory)[-1:], self.model.num_timesteps
        if newest and _step(newest[0]) > step:
            raise ValueError(
                f"`directory` {self.directory} holds {newest[0].name} of another run, and this one is at step {step}. "
                "Go on from there with resume(), or name an empty directory."
            )

    def _on_rollout_start(self) -> None:
        # Between two rollouts nothing is pending: the last transition is stored, and learnt from
        assert isinstance(self.model, OfflineToOnlineSAC)
        assert self.model._last_episode_starts is not None
        assert self._last_saved is not None
        has_just_started = self.model.has_started and not self._had_started
        is_due = self.model.num_timesteps - self._last_saved >= self.save_freq
        if has_just_started or (is_due and self.model._last_episode_starts.any()):
            self._had_started = self.model.has_started
            self._save()

    def _on_training_end(self) -> None:
        if self._last_saved != self.model.num_timesteps:
            self._save()

    def _save(self) -> None:
        assert isinstance(self.model, OfflineToOnlineSAC)
        path = save_checkpoint(self.model, self.directory, self.keep)
        self._last_saved = self.model.num_timesteps
        if self.verbose > 0:
            print(f"Checkpoint: {path}")

    def _on_step(self) -> bool:
        return True


def checkpoints_of(callback: MaybeCallback) -> CheckpointCallback | None:
    """
    :param callback: What ``learn`` was given
    :return: the :class:`CheckpointCallback` among them, for what happens before the first environment step
    """
    callback = callback.callbacks if isinstance(callback, CallbackList) else callback
    several = callback if isinstance(callback, list) else [callback]
    return next((one for one in several if isinstance(one, CheckpointCallback)), None)


def save_checkpoint(
    model: OfflineToOnlineSAC, directory: str | Path, keep: int = 2, offline_steps: int | None = None
) -> Path:
    """
    Write under a temporary name, flush to disk, rename. Whatever happens in between, the previous checkpoint is whole.

    :param model: The model
    :param directory: Where
    :param keep: Remove all but so many of the newest
    :param offline_steps: Of an offline phase, between two environment steps
    :return: the new checkpoint's directory
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for leftover in directory.glob(".partial_*"):
        shutil.rmtree(leftover, ignore_errors=True)
    path = directory / _name(model.num_timesteps, offline_steps)
    partial = directory / f".partial_{path.name}"
    partial.mkdir()
    model.save(partial / "model.zip")
    model.save_replay_buffer(partial / "replay_buffer.pkl")
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.save(str(partial / "vec_normalize.pkl"))
    th.save(_generator_states(model.get_env()), partial / "generators.pt")
    digests = {file.name: _digest(file) for file in partial.iterdir()}
    (partial / _MANIFEST).write_text(json.dumps(digests, indent=2))
    for file in (*partial.iterdir(), partial):
        _flush(file)
    replaced = _set_aside(path) if path.exists() else None
    os.replace(partial, path)
    _flush(directory)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)
    for old in _checkpoints(directory)[:-keep]:
        _remove(old)
    return path


def latest_checkpoint(directory: str | Path) -> Path:
    """
    :param directory: Where :class:`CheckpointCallback` writes
    :raises FileNotFoundError: there is none
    """
    checkpoints = _checkpoints(Path(directory))
    if not checkpoints:
        raise FileNotFoundError(
            f"There is no checkpoint in {directory}: expected a directory step_... written by CheckpointCallback."
        )
    return checkpoints[-1]


def resume(algorithm: type[Model], directory: str | Path, env: GymEnv, **kwargs: Any) -> Model:
    """
    The newest checkpoint, ready for ``learn(total - model.num_timesteps, reset_num_timesteps=False)``. The environments
    start new episodes: simulators cannot be saved in general.

    A checkpoint is a pickle, as all of SB3's files are: resume only runs whose author you trust.

    :param algorithm: The model's class
    :param directory: Where :class:`CheckpointCallback` wrote
    :param env: The environment, made as for the first start
    :param kwargs: For ``algorithm.load``
    :raises FileNotFoundError: there is no checkpoint
    :raises ValueError: the checkpoint is damaged, or of another number or normalisation of environments
    """
    path = latest_checkpoint(directory)
    _verify(path)
    model = algorithm.load(path / "model.zip", env=env, **kwargs)
    model.load_replay_buffer(path / "replay_buffer.pkl")
    _restore_normalization(path / "vec_normalize.pkl", model.get_vec_normalize_env())
    _set_generator_states(th.load(path / "generators.pt", weights_only=True), model.get_env())
    return model


def _restore_normalization(file: Path, normalizer: VecNormalize | None) -> None:
    if file.exists() != (normalizer is not None):
        had, has = ("with", "is not") if file.exists() else ("without", "is")
        raise ValueError(
            f"The run was made {had} VecNormalize, but `env` {has} wrapped in it. Make it as for the first start."
        )
    if normalizer is not None:
        saved = VecNormalize.load(str(file), normalizer.venv)
        normalizer.obs_rms, normalizer.ret_rms = saved.obs_rms, saved.ret_rms


def _verify(path: Path) -> None:
    """:raises ValueError: a file is missing, or not as it was written"""
    try:
        digests = json.loads((path / _MANIFEST).read_text())
        wrong = [name for name, digest in digests.items() if _digest(path / name) != digest]
    except (OSError, ValueError) as error:
        wrong = [str(error)]
    if wrong:
        others = [other.name for other in _checkpoints(path.parent) if other != path]
        raise ValueError(
            f"The checkpoint {path} is damaged ({', '.join(wrong)}). Remove it to go on from "
            f"{others[-1] if others else 'an earlier one; there is none, so start anew'}."
        )


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _name(num_timesteps: int, offline_steps: int | None) -> str:
    return f"step_{num_timesteps:09d}" + ("" if offline_steps is None else f"_offline_{offline_steps:09d}")


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _checkpoints(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("step_*") if _NAME.fullmatch(path.name))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    shutil.rmtree(_set_aside(path), ignore_errors=True)


def _set_aside(path: Path) -> Path:
    """A kill in the middle of a removal must not leave half a checkpoint under a valid name."""
    doomed = path.with_name(f".partial_old_{path.name}")
    os.replace(path, doomed)
    return doomed


def _generator_states(env: VecEnv | None) -> dict[str, Any]:
    """The states of all random generators as plain numbers and tensors."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [name, th.as_tensor(keys.astype(np.int64)), *rest],  # type: ignore[union-attr]
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all(),
        "env": [] if env is None else [_plain(rng.bit_generator.state) for rng in env.get_attr("np_random")],
    }


def _set_generator_states(states: dict[str, Any], env: VecEnv | None) -> None:
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    th.set_rng_state(states["torch"])
    if len(states["cuda"]) == th.cuda.device_count():
        th.cuda.set_rng_state_all(states["cuda"])
    if env is None or len(states["env"]) != env.num_envs:
        return
    env.unwrapped._reset_seeds()  # loading a model with a seed would otherwise replay the run's first episodes
    for i, state in enumerate(states["env"]):
        generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
        generator.bit_generator.state = state
        env.set_attr("np_random", generator, indices=i)


def _plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state
