"""robomimic HDF5 files, low-dimensional observations: ``data/demo_<i>`` groups and ``mask/<name>`` filters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch as th

from sb3_q2rl.data.assemble import RecordedEpisode, assemble
from sb3_q2rl.data.checks import Observations
from sb3_q2rl.data.demonstrations import Demonstrations, Source, as_source
from sb3_q2rl.data.hdf5 import array, open_hdf5
from sb3_q2rl.data.robosuite_objects import object_conversion

# What policies for Lift, Can and Square usually read (robosuite, low-dimensional).
DEFAULT_OBS_KEYS = ("object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
# What robomimic calls the observation of a gym environment.
GYM_OBS_KEYS = ("flat",)


def is_robomimic(file: h5py.File) -> bool:
    """A group ``data`` of groups ``demo_<number>``."""
    data = file.get("data")
    return isinstance(data, h5py.Group) and any(name.startswith("demo_") for name in data)


def load_robomimic(
    path: Path,
    *,
    obs_keys: Sequence[str] | None = None,
    as_dict: bool = False,
    mask: str | None = None,
    clip_actions: bool = False,
    source: Source | None = None,
    reward_scale: float = 1.0,
    reward_bias: float = 0.0,
) -> Demonstrations:
    """
    robomimic marks in ``dones`` the successes, the last step, or both. A done step with a positive reward is a success:
    the episode is taken to terminate there, and the steps after it are left out. Without one it is truncated. Where an
    episode has an attribute ``success`` that is false, as those of our recorder may, no reward makes it one; where the
    environment's reward was shaped (``reward_shaping`` in ``env_args``), only one of 1 or above does.

    The ``object`` observations of robosuite 1.4 and earlier become those of 1.5.

    :param path: the file
    :param obs_keys: which observations, in this order. By default object, robot0_eef_pos, robot0_eef_quat and
        robot0_gripper_qpos; in a file that lacks one of them and has ``flat``, as of gym environments, this
    :param as_dict: keep them apart, as a dict, instead of one concatenated vector
    :param mask: use only the episodes of this filter, e.g. "train" or "valid"
    :param clip_actions: clip actions beyond [-1, 1] instead of refusing them
    :param source: who acted; by default what the attribute ``source`` of ``data`` says, as in files of our recorder,
        and else "human". robomimic's PH and MH files are human, its MG files are policy-generated and do not say so
    :param reward_scale: robomimic's files hold raw rewards, 1 for success and else 0 (of the kitchen: finished
        sub-tasks); an algorithm that is given the path passes what its environment makes of them
    :param reward_bias: reward = ``reward_scale`` * raw reward + ``reward_bias``
    :raises ValueError: unknown keys, mask or source, no observations, or misshapen data
    """
    with open_hdf5(path) as file:
        names = _episode_names(file, path, mask)
        keys = _default_keys(file["data"]) if obs_keys is None else tuple(obs_keys)
        made_in = _made_in(file["data"])
        episodes = [_read_episode(file["data"][name], keys, as_dict, made_in) for name in names]
        if source is None:
            source = _recorded_source(file["data"], path)
    episodes = [episode._replace(rewards=reward_scale * episode.rewards + reward_bias) for episode in episodes]
    return assemble(episodes, origin=path, source=source, clip_actions=clip_actions)


def _episode_names(file: h5py.File, path: Path, mask: str | None) -> list[str]:
    found = {match[1]: name for name in file["data"] if (match := re.fullmatch(r"demo_(\d+)", name))}
    names = [found[number] for number in sorted(found, key=int)]
    if mask is None:
        return names
    masks = list(file.get("mask", {}))
    if mask not in masks:
        raise ValueError(f"{path}: `mask` is {mask!r}, but the file's filters are {', '.join(masks) or 'none'}.")
    chosen = {name.decode() if isinstance(name, bytes) else str(name) for name in file["mask"][mask][()]}
    if not chosen <= set(names):
        raise ValueError(f"{path}: the filter {mask!r} names {sorted(chosen - set(names))}, which the file lacks.")
    return [name for name in names if name in chosen]


def _default_keys(data: h5py.Group) -> tuple[str, ...]:
    present = set(next(iter(data.values())).get("obs", ()))
    if present.issuperset(GYM_OBS_KEYS) and not present.issuperset(DEFAULT_OBS_KEYS):
        return GYM_OBS_KEYS
    return DEFAULT_OBS_KEYS


def _recorded_source(data: h5py.Group, path: Path) -> Source:
    label = data.attrs.get("source", "human")
    try:
        return as_source(label.decode() if isinstance(label, bytes) else str(label))
    except ValueError as error:
        raise ValueError(f"{path}: in the attributes of `data`, {error} Pass `source` yourself.") from error


def _made_in(data: h5py.Group) -> Mapping[str, Any]:
    """What the file tells about its environment; nothing if it does not, or not as robomimic does."""
    try:
        told = json.loads(data.attrs.get("env_args", "{}"))
    except (TypeError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _read_episode(
    group: h5py.Group, obs_keys: tuple[str, ...], as_dict: bool, made_in: Mapping[str, Any]
) -> RecordedEpisode:
    if "obs" not in group:
        raise ValueError(
            f"{group.file.filename}: {group.name} holds simulator states but no observations. "
            "Run robomimic's `dataset_states_to_obs` on the file first."
        )
    actions, rewards = array(group, "actions"), array(group, "rewards")
    dones = array(group, "dones").astype(bool)
    if not len(actions) == len(rewards) == len(dones):
        raise ValueError(
            f"{group.file.filename}: {group.name} has {len(actions)} actions, {len(rewards)} rewards and {len(dones)} "
            "dones: expected as many of each. The file is damaged."
        )
    # A reward for sub-tasks is positive without success
    may_succeed = bool(group.attrs.get("success", True))
    is_shaped = bool((made_in.get("env_kwargs") or {}).get("reward_shaping", False))
    successes = np.flatnonzero(dones & (rewards >= 1 - 1e-4 if is_shaped else rewards > 0) & may_succeed)
    length = int(successes[0]) + 1 if len(successes) else len(actions)
    return RecordedEpisode(
        observations=_observations(group["obs"], obs_keys, as_dict, length, made_in),
        actions=actions[:length],
        rewards=rewards[:length],
        terminated=len(successes) > 0,
        next_observations=(
            _observations(group["next_obs"], obs_keys, as_dict, length, made_in) if "next_obs" in group else None
        ),
    )


def _observations(
    group: h5py.Group, obs_keys: tuple[str, ...], as_dict: bool, length: int, made_in: Mapping[str, Any]
) -> Observations:
    values = {key: array(group, key)[:length] for key in obs_keys}
    if "object" in values:
        convert = object_conversion(made_in, values["object"].shape[1:])
        if convert is not None:
            values["object"] = convert(th.as_tensor(values["object"])).numpy()
    if as_dict:
        return values
    wrong = {key: value.shape for key, value in values.items() if value.ndim != 2}
    if wrong:
        raise ValueError(
            f"{group.file.filename}: {wrong} in {group.name} are no vectors, so they cannot be concatenated. "
            "Choose other `obs_keys`, or pass `as_dict=True`."
        )
    return np.concatenate(list(values.values()), axis=1)
