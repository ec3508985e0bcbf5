"""Which reader does a file of demonstrations need?"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gymnasium import spaces

from sb3_q2rl.data.d4rl import is_d4rl, load_d4rl
from sb3_q2rl.data.demonstrations import Demonstrations
from sb3_q2rl.data.hdf5 import open_hdf5
from sb3_q2rl.data.minari import is_minari, load_minari
from sb3_q2rl.data.npz import is_npz, load_npz
from sb3_q2rl.data.robomimic import is_robomimic, load_robomimic
from sb3_q2rl.data.shipped import SHIPPED_DEMONSTRATIONS

_HDF5_READERS: tuple[tuple[Callable[..., bool], Callable[..., Demonstrations]], ...] = (
    (is_robomimic, load_robomimic),
    (is_minari, load_minari),
    (is_d4rl, load_d4rl),
)
_KINDS = (
    "npz (observations, actions, rewards, episode_ends), D4RL HDF5 (observations, actions, rewards, terminals), "
    "Minari HDF5 (episode_<i>), robomimic HDF5 (data/demo_<i>)"
)


def load_demonstrations(path_or_name: str | Path, *, clip_actions: bool = False, **options: Any) -> Demonstrations:
    """
    :param path_or_name: a file, or the name of a shipped data set
    :param clip_actions: clip actions beyond [-1, 1] instead of refusing them
    :param options: handed to the reader
    :raises FileNotFoundError: neither a file nor a shipped name
    :raises ValueError: an unknown kind, an option that its reader does not know, or what the reader finds wrong
    """
    shipped = SHIPPED_DEMONSTRATIONS.get(str(path_or_name))
    if shipped is not None:
        if options:
            raise ValueError(f"The shipped {path_or_name!s} takes no options, but {', '.join(options)} came.")
        return shipped()
    path = Path(path_or_name)
    if not path.is_file():
        raise FileNotFoundError(
            f"There are no demonstrations {path_or_name!s}: it is neither a file nor one of the shipped names "
            f"({', '.join(SHIPPED_DEMONSTRATIONS)})."
        )
    read = _reader(path)
    known = _options(read)
    if not options.keys() <= set(known):
        raise ValueError(
            f"{path} is read by `{read.__name__}`, which takes the options {', '.join(known)}, not "
            f"{', '.join(sorted(options.keys() - set(known)))}."
        )
    return read(path, clip_actions=clip_actions, **options)


def reader_options(path_or_name: str | Path) -> list[str]:
    """
    :param path_or_name: a file, or the name of a shipped data set
    :return: the options that its reader takes; none for what is shipped or missing
    """
    is_file = str(path_or_name) not in SHIPPED_DEMONSTRATIONS and Path(path_or_name).is_file()
    return _options(_reader(Path(path_or_name))) if is_file else []


def options_for_space(path_or_name: str | Path, space: spaces.Space) -> dict[str, Any]:
    """
    :param path_or_name: a file, or the name of a shipped data set
    :param space: of an environment's observations
    :return: what makes the file's reader give observations as that environment does: a Dict's keys, kept apart
    """
    if isinstance(space, spaces.Dict) and "as_dict" in reader_options(path_or_name):
        return {"as_dict": True, "obs_keys": list(space.spaces)}
    return {}


def _options(read: Callable[..., Demonstrations]) -> list[str]:
    return [name for name in inspect.signature(read).parameters if name != "path"]


def _reader(path: Path) -> Callable[..., Demonstrations]:
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty. Download or copy it again.")
    if is_npz(path):
        return load_npz
    with path.open("rb") as file:
        is_hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
    if is_hdf5:
        with open_hdf5(path) as hdf5:
            for recognises, load in _HDF5_READERS:
                if recognises(hdf5):
                    return load
            found = ", ".join(hdf5) or "nothing"
        raise ValueError(f"{path} is HDF5, but of no known layout: at its top is {found}. Known kinds: {_KINDS}.")
    raise ValueError(f"{path} is no file of demonstrations of a known kind, or it is damaged. Known kinds: {_KINDS}.")
