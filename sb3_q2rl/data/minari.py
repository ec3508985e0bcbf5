"""Minari HDF5 files (``main_data.hdf5``): one group an episode, with one observation more than there are actions."""

from __future__ import annotations

from pathlib import Path

import h5py

from sb3_q2rl.data.assemble import RecordedEpisode, assemble
from sb3_q2rl.data.checks import Observations
from sb3_q2rl.data.demonstrations import Demonstrations, Source
from sb3_q2rl.data.hdf5 import array, open_hdf5

_PREFIX = "episode_"


def is_minari(file: h5py.File) -> bool:
    """Groups called ``episode_<number>`` at the top level."""
    return any(name.startswith(_PREFIX) and isinstance(file[name], h5py.Group) for name in file)


def load_minari(path: Path, *, clip_actions: bool = False, source: Source = "unknown") -> Demonstrations:
    """
    An episode that Minari marks as neither terminated nor truncated at its last step is taken as truncated.

    :param path: ``main_data.hdf5`` of a Minari data set
    :param clip_actions: clip actions beyond [-1, 1] instead of refusing them
    :param source: who acted; Minari keeps that in another file
    :raises ValueError: data sets are missing or do not fit together
    """
    with open_hdf5(path) as file:
        names = [name for name in file if name.startswith(_PREFIX)]
        names.sort(key=lambda name: int(name.removeprefix(_PREFIX)))
        episodes = []
        for name in names:
            group = file[name]
            terminations = array(group, "terminations")
            episodes.append(
                RecordedEpisode(
                    observations=_observations(group),
                    actions=array(group, "actions"),
                    rewards=array(group, "rewards"),
                    terminated=len(terminations) > 0 and bool(terminations[-1]),
                )
            )
    return assemble(episodes, origin=path, source=source, clip_actions=clip_actions)


def _observations(group: h5py.Group) -> Observations:
    item = group.get("observations")
    if not isinstance(item, h5py.Group):
        return array(group, "observations")
    return {key: array(item, key) for key in item}
