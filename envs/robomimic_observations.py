"""
What the robomimic tasks observe: named parts in an order of our own, read from the simulator itself. robosuite's
concatenated ``object-state`` changed its order and a sign from 1.4 to 1.5, and 1.5.2's relative poses are those of the
last step, or zero in the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# The flat observation is these robomimic keys, one after the other. Quaternions are (x, y, z, w).
OBSERVATION_KEYS = ("object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
PROPRIOCEPTION_SIZES = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}


@dataclass(frozen=True)
class Task:
    """
    :param name: ours, and robomimic's
    :param robosuite_name: robosuite's environment
    :param object_body: the body of the object that is handled
    :param object_sizes: the parts of the key ``"object"`` by robosuite's names, in the order of robosuite 1.5
    """

    name: str
    robosuite_name: str
    object_body: str
    object_sizes: dict[str, int]


def _relative_then_absolute(name: str) -> dict[str, int]:
    return {f"{name}_to_robot0_eef_pos": 3, f"{name}_to_robot0_eef_quat": 4, f"{name}_pos": 3, f"{name}_quat": 4}


TASKS = {
    task.name: task
    for task in (
        Task("Lift", "Lift", "cube_main", {"cube_pos": 3, "cube_quat": 4, "gripper_to_cube_pos": 3}),
        Task("Can", "PickPlaceCan", "Can_main", _relative_then_absolute("Can")),
        Task("Square", "NutAssemblySquare", "SquareNut_main", _relative_then_absolute("SquareNut")),
    )
}


def find_task(name: str) -> Task:
    if name not in TASKS:
        raise ValueError(f"`task` {name!r} is not known. Tasks: {', '.join(TASKS)}")
    return TASKS[name]


def observation_slices(task: str) -> dict[str, slice]:
    """
    Where the keys are in the flat observation: those of :data:`OBSERVATION_KEYS` and the parts of ``"object"``.

    :param task: ``"Lift"``, ``"Can"`` or ``"Square"``
    :return: e.g. ``{"object": slice(0, 10), "cube_pos": slice(0, 3), ..., "robot0_eef_pos": slice(10, 13), ...}``
    """
    object_sizes = find_task(task).object_sizes
    slices = {"object": slice(0, sum(object_sizes.values()))}
    start = 0
    for name, size in {**object_sizes, **PROPRIOCEPTION_SIZES}.items():
        slices[name] = slice(start, start + size)
        start += size
    return slices


def observe_state(task: Task, model: Any, data: Any) -> dict[str, np.ndarray]:
    """
    :param task: what to look at
    :param model: mujoco.MjModel
    :param data: mujoco.MjData
    :return: float32 by the names of :data:`OBSERVATION_KEYS`, in this order
    """
    gripper = data.site_xpos[model.site("gripper0_right_grip_site").id]
    # robomimic's data and policies have the position of the grip site and the orientation of the hand's body
    hand = model.body("robot0_right_hand").id
    body = model.body(task.object_body).id
    position, quat, hand_quat = data.xpos[body], data.xquat[body], data.xquat[hand]
    if "gripper_to_cube_pos" in task.object_sizes:
        parts = [position, _xyzw(quat), position - gripper]
    else:
        relative_quat = _product(_conjugate(hand_quat), quat)
        relative_quat *= -1.0 if relative_quat[0] < 0 else 1.0  # as robosuite: of the two, the one with w >= 0
        relative_position = data.xmat[hand].reshape(3, 3).T @ (position - gripper)
        parts = [relative_position, _xyzw(relative_quat), position, _xyzw(quat)]
    fingers = [data.qpos[model.joint(f"gripper0_right_finger_joint{i}").qposadr[0]] for i in (1, 2)]
    values = (np.concatenate(parts), gripper, _xyzw(hand_quat), np.array(fingers))
    return {key: value.astype(np.float32) for key, value in zip(OBSERVATION_KEYS, values, strict=True)}


def _xyzw(quat: np.ndarray) -> np.ndarray:
    return quat[[1, 2, 3, 0]]


def _conjugate(quat: np.ndarray) -> np.ndarray:
    return quat * np.array([1.0, -1.0, -1.0, -1.0])


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton's product of quaternions (w, x, y, z)."""
    vector = a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])
    return np.concatenate([[a[0] * b[0] - a[1:] @ b[1:]], vector])
