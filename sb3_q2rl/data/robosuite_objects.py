"""The ``object`` observations of robosuite 1.4 and earlier, and what they are in 1.5: for old policies and files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch as th

Conversion = Callable[[th.Tensor], th.Tensor]


def old_lift_object(objects: th.Tensor) -> th.Tensor:
    """
    1.5 writes gripper_to_cube_pos = cube - gripper, 1.4 wrote gripper - cube. Its own inverse.

    :param objects: (n, 10) of 1.5: cube position 3, quaternion 4, gripper_to_cube_pos 3
    :return: (n, 10) of 1.4
    """
    return th.cat([objects[:, :7], -objects[:, 7:]], dim=1)


def old_single_object(objects: th.Tensor) -> th.Tensor:
    """
    Can and Square: 1.5 puts the object's pose relative to the gripper first, 1.4 put it last. Its own inverse.

    :param objects: (n, 14) of 1.5: relative position 3, relative quaternion 4, position 3, quaternion 4
    :return: (n, 14) of 1.4: position, quaternion, relative position, relative quaternion
    """
    return th.cat([objects[:, 7:], objects[:, :7]], dim=1)


# By robomimic's name of the environment: the size of its object-state, and what turns the new one into the old
_CHANGED: dict[str, tuple[int, Conversion]] = {
    "Lift": (10, old_lift_object),
    "PickPlaceCan": (14, old_single_object),
    "NutAssemblySquare": (14, old_single_object),
}


def object_conversion(env_metadata: Mapping[str, Any], object_shape: tuple[int, ...]) -> Conversion | None:
    """
    What to do with the key ``object`` of a robosuite 1.5 environment before an old policy sees it, and with that of an
    old file of demonstrations before anything of 1.5 does.

    :param env_metadata: of the checkpoint, or of the file (``env_args``): ``env_name``, ``env_version``
    :param object_shape: of the ``object`` observation there
    :return: ``None`` where nothing has to be done
    """
    name = env_metadata.get("env_name")
    if name not in _CHANGED:
        return None
    size, convert = _CHANGED[name]
    version = re.match(r"(\d+)\.(\d+)", str(env_metadata.get("env_version")))
    if object_shape != (size,):
        return None  # a variant with more robots or objects: its order is its own
    if version is None:
        warnings.warn(
            f"This file for {name} does not say which robosuite made it (`env_version` is "
            f"{env_metadata.get('env_version')!r}). Its `object` observations are taken to be those of robosuite 1.5; "
            "those of 1.4 or earlier are others. If what is learnt from it never succeeds, write `env_version` into a "
            "checkpoint's `env_metadata`, or into the `env_args` of demonstrations.",
            stacklevel=2,
        )
        return None
    return convert if tuple(map(int, version.groups())) < (1, 5) else None
