"""What the Franka shall do: each task's limits, its start, and the simulated scene that judges it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from sb3_q2rl.envs.franka.robot import Command
from sb3_q2rl.envs.franka.rotations import TOOL_DOWN_XYZW, from_rotation_vector, product


class Scene(Protocol):
    """The simulated things around the arm. One object serves one simulator."""

    def build(self, spec: Any) -> None:
        """
        :param spec: mujoco.MjSpec with the arm and the table, whose top is z = 0 in the base's frame
        """

    def place(self, simulator: Any, start: Command, rng: np.random.Generator) -> None:
        """
        Begin an episode: put the objects where they start, and the arm.

        :param simulator: the :class:`~sb3_q2rl.envs.franka.simulator.Simulator`, everything at rest
        :param start: of the arm
        :param rng: of the episode
        """

    def observe(self, simulator: Any) -> dict[str, np.ndarray]:
        """:return: by the names and of the sizes of ``Task.object_sizes``, float64"""

    def is_success(self, simulator: Any) -> bool:
        """:return: judged by the geometry alone"""

    def is_failure(self, simulator: Any) -> bool:
        """:return: what was lost cannot be brought back"""


@dataclass(frozen=True)
class Task:
    """
    Lengths in the base's frame.

    :param name: as ``FrankaEnv(task=...)`` takes it
    :param max_episode_steps: at 10 Hz
    :param workspace_low_m: (3,) corner of the box that the tool centre point may not leave
    :param workspace_high_m: (3,) the opposite one
    :param max_tilt_rad: between the tool's z and straight down
    :param max_yaw_rad: about the vertical, to either side of the start's
    :param fixed_gripper_width_m: what the gripper is told in every step, where the task leaves no choice; None: the
        action decides
    :param start: where the arm begins, before it is varied
    :param start_spread_m: (3,) half the box of the starts, uniform
    :param start_spread_yaw_rad: to either side, uniform
    :param object_sizes: what the simulator tells of the objects, in this order
    :param make_scene: the simulated scene, one for each simulator
    """

    name: str
    max_episode_steps: int
    workspace_low_m: tuple[float, float, float]
    workspace_high_m: tuple[float, float, float]
    max_tilt_rad: float
    max_yaw_rad: float
    fixed_gripper_width_m: float | None
    start: Command
    start_spread_m: tuple[float, float, float]
    start_spread_yaw_rad: float
    object_sizes: Mapping[str, int]
    make_scene: Callable[[], Scene]


def _peg_scene() -> Scene:
    from sb3_q2rl.envs.franka.peg_insertion import PegInsertionScene

    return PegInsertionScene()


PEG_INSERTION = Task(
    name="peg_insertion",
    max_episode_steps=200,
    workspace_low_m=(0.40, -0.12, 0.06),
    workspace_high_m=(0.64, 0.12, 0.28),
    max_tilt_rad=0.25,
    max_yaw_rad=0.6,
    fixed_gripper_width_m=0.0,
    # The peg is in the hand, which holds it
    start=Command(np.array([0.52, 0.0, 0.20]), np.array(TOOL_DOWN_XYZW), gripper_width_m=0.0),
    start_spread_m=(0.04, 0.04, 0.02),
    start_spread_yaw_rad=0.2,
    # of the peg's tip in the hole's frame: position, rotation vector
    object_sizes={"hole_pos": 3, "peg_to_hole_pos": 3, "peg_to_hole_rot": 3},
    make_scene=_peg_scene,
)

# The fingers open along the base's x, the way in which a lying pipe is grasped
TOOL_ACROSS_XYZW = (np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0)


def _pipe_scene() -> Scene:
    from sb3_q2rl.envs.franka.pipe_assembly import PipeAssemblyScene

    return PipeAssemblyScene()


PIPE_ASSEMBLY = Task(
    name="pipe_assembly",
    max_episode_steps=400,
    workspace_low_m=(0.38, -0.20, 0.012),
    workspace_high_m=(0.66, 0.20, 0.32),
    # The hand lies when the pipe stands
    max_tilt_rad=1.75,
    max_yaw_rad=0.7,
    fixed_gripper_width_m=None,
    start=Command(np.array([0.50, 0.02, 0.18]), np.array(TOOL_ACROSS_XYZW), gripper_width_m=0.085),
    start_spread_m=(0.03, 0.03, 0.02),
    start_spread_yaw_rad=0.2,
    object_sizes={"socket_pos": 3, "tool_to_pipe_pos": 3, "pipe_to_socket_pos": 3, "pipe_axis": 3},
    make_scene=_pipe_scene,
)


def _kitting_scene(n_parts: int) -> Scene:
    from sb3_q2rl.envs.franka.kitting import KittingScene

    return KittingScene(n_parts)


KITTING = Task(
    name="kitting",
    max_episode_steps=500,
    workspace_low_m=(0.36, -0.22, 0.015),
    workspace_high_m=(0.62, 0.22, 0.26),
    max_tilt_rad=0.25,
    max_yaw_rad=0.8,
    fixed_gripper_width_m=None,
    start=Command(np.array([0.46, 0.0, 0.18]), np.array(TOOL_DOWN_XYZW), gripper_width_m=0.085),
    start_spread_m=(0.03, 0.03, 0.02),
    start_spread_yaw_rad=0.1,
    object_sizes={
        "tray_pos": 3,
        **{"tool_to_a_pos": 3, "a_to_tray_pos": 3, "a_turn": 2},
        **{"tool_to_b_pos": 3, "b_to_tray_pos": 3, "b_turn": 2},
    },
    make_scene=partial(_kitting_scene, 1),
)
# Policies made for one part in the middle of each bin meet two, beside it
KITTING_MODIFIED = replace(KITTING, name="kitting_modified", make_scene=partial(_kitting_scene, 2))

TASKS = {task.name: task for task in (PEG_INSERTION, PIPE_ASSEMBLY, KITTING, KITTING_MODIFIED)}


def draw_start(task: Task, rng: np.random.Generator) -> Command:
    """
    :param task: what shall begin
    :param rng: of the episode
    :return: the task's start, varied
    """
    offset_m = rng.uniform(-1.0, 1.0, 3) * task.start_spread_m
    yaw_rad = rng.uniform(-1.0, 1.0) * task.start_spread_yaw_rad
    turned = product(from_rotation_vector(np.array([0.0, 0.0, yaw_rad])), task.start.quaternion_xyzw)
    return Command(task.start.position_m + offset_m, turned, task.start.gripper_width_m)


def find_task(name: str) -> Task:
    """
    :param name: of the task
    :return: the task
    :raises ValueError: no such task
    """
    if name not in TASKS:
        raise ValueError(f"`task` {name!r} does not exist. Tasks: {', '.join(map(repr, TASKS))}")
    return TASKS[name]
