"""Two bins with parts, one kind in each, and a tray that wants one part of both kinds."""

from __future__ import annotations

from typing import Any

import numpy as np

from sb3_q2rl.envs.franka.objects import about_z, add_box, in_frame
from sb3_q2rl.envs.franka.posture import Pose
from sb3_q2rl.envs.franka.robot import Command
from sb3_q2rl.envs.franka.simulator import Simulator

KINDS = ("a", "b")
# Half edges; both fit between the fingers across their y
PART_M = {"a": (0.015, 0.015, 0.018), "b": (0.025, 0.012, 0.015)}
RGBA = {"a": (0.8, 0.2, 0.15, 1.0), "b": (0.15, 0.35, 0.8, 1.0)}
MASS_KG = 0.06
BIN_M = {"a": (0.46, 0.15), "b": (0.46, -0.15)}
BIN_HALF_M, TRAY_HALF_M = (0.075, 0.065), (0.06, 0.06)
TRAY_M, TRAY_SPREAD_M = (0.52, 0.0), 0.015
WALL_M, WALL_HEIGHT_M, FLOOR_M = 0.004, 0.015, 0.003
# One part a bin lies in the middle, two at either side of it
CENTRED_SPREAD_M, OFF_CENTRE_M, OFF_CENTRE_SPREAD_M = 0.008, 0.033, 0.005
TURN_SPREAD_RAD = 0.3
# A part rests in the tray when its middle is so low that it does not lie on another, and the hand has gone
RESTING_M, RELEASED_M = 0.035, 0.045
# x and y where the fingers, at the workspace's edge, do not reach a part any more. The table goes on: nothing falls off
REACH_LOW_M, REACH_HIGH_M = np.array([0.31, -0.27]), np.array([0.67, 0.27])


class KittingScene:
    """
    See :class:`~sb3_q2rl.envs.franka.tasks.Scene`. Of each kind the first part is observed, or the one that is in the
    tray.

    :param n_parts: in each bin: 1 in its middle, or 2 beside it
    """

    def __init__(self, n_parts: int) -> None:
        self._n_parts = n_parts

    def build(self, spec: Any) -> None:
        """:param spec: mujoco.MjSpec of the arm"""
        for kind in KINDS:
            _add_container(spec.worldbody.add_body(name=f"bin_{kind}", pos=[*BIN_M[kind], 0.0]), BIN_HALF_M)
            for i in range(self._n_parts):
                part = spec.worldbody.add_body(name=f"part_{kind}{i}", pos=[*BIN_M[kind], 0.1 + 0.1 * i])
                part.add_freejoint()
                add_box(part, PART_M[kind], rgba=RGBA[kind], mass_kg=MASS_KG)
        tray = spec.worldbody.add_body(name="tray", mocap=True, pos=[*TRAY_M, 0.0])
        _add_container(tray, TRAY_HALF_M)

    def place(self, simulator: Simulator, start: Command, rng: np.random.Generator) -> None:
        """
        :param simulator: of this scene
        :param start: of the arm
        :param rng: of the episode
        """
        xy = np.array(TRAY_M) + rng.uniform(-TRAY_SPREAD_M, TRAY_SPREAD_M, 2)
        simulator.fix("tray", Pose(np.array([*xy, 0.0]), np.eye(3)))
        for kind in KINDS:
            side = rng.choice([-1.0, 1.0])
            for i in range(self._n_parts):
                if self._n_parts == 1:
                    offset_m = rng.uniform(-CENTRED_SPREAD_M, CENTRED_SPREAD_M, 2)
                else:
                    offset_m = rng.uniform(-OFF_CENTRE_SPREAD_M, OFF_CENTRE_SPREAD_M, 2)
                    offset_m[0] += side * (1 - 2 * i) * OFF_CENTRE_M
                position_m = np.array([*(np.array(BIN_M[kind]) + offset_m), FLOOR_M + PART_M[kind][2]])
                turn = about_z(rng.uniform(-TURN_SPREAD_RAD, TURN_SPREAD_RAD))
                simulator.put(f"part_{kind}{i}", Pose(position_m, turn))
        simulator.teleport(start)

    def observe(self, simulator: Simulator) -> dict[str, np.ndarray]:
        """
        :param simulator: of this scene
        :return: in the base's frame: the tray, and for each kind from the tool to the part, from the tray to the part,
            and the direction of the part's x, doubled, since half a turn makes no difference
        """
        tray = simulator.pose("tray")
        observed = {"tray_pos": tray.position_m}
        for kind in KINDS:
            part = self._observed(simulator, kind)
            yaw_rad = np.arctan2(part.rotation[1, 0], part.rotation[0, 0])
            observed[f"tool_to_{kind}_pos"] = part.position_m - simulator.tool.position_m
            observed[f"{kind}_to_tray_pos"] = in_frame(tray, part.position_m)
            observed[f"{kind}_turn"] = np.array([np.cos(2 * yaw_rad), np.sin(2 * yaw_rad)])
        return observed

    def is_success(self, simulator: Simulator) -> bool:
        """:return: a part of each kind rests in the tray, and the hand has let it go"""
        return all(any(self._is_in_tray(simulator, part) for part in self._parts(simulator, kind)) for kind in KINDS)

    def is_failure(self, simulator: Simulator) -> bool:
        """:return: of one kind, no part is left within reach"""
        return any(all(map(_is_lost, self._parts(simulator, kind))) for kind in KINDS)

    def _parts(self, simulator: Simulator, kind: str) -> list[Pose]:
        return [simulator.pose(f"part_{kind}{i}") for i in range(self._n_parts)]

    def _observed(self, simulator: Simulator, kind: str) -> Pose:
        parts = self._parts(simulator, kind)
        return next((part for part in parts if self._is_in_tray(simulator, part)), parts[0])

    def _is_in_tray(self, simulator: Simulator, part: Pose) -> bool:
        x, y, z = in_frame(simulator.pose("tray"), part.position_m)
        resting = abs(x) < TRAY_HALF_M[0] and abs(y) < TRAY_HALF_M[1] and z < RESTING_M
        return bool(resting and np.linalg.norm(part.position_m - simulator.tool.position_m) > RELEASED_M)


def _is_lost(part: Pose) -> bool:
    return bool((part.position_m[:2] < REACH_LOW_M).any() or (part.position_m[:2] > REACH_HIGH_M).any())


def _add_container(body: Any, half_m: tuple[float, float]) -> None:
    x, y = half_m
    rgba = (0.85, 0.85, 0.8, 1.0)
    add_box(body, (x + WALL_M, y + WALL_M, FLOOR_M / 2), (0.0, 0.0, FLOOR_M / 2), rgba=rgba)
    for sign in (-1.0, 1.0):
        height_m = FLOOR_M + WALL_HEIGHT_M / 2
        add_box(body, (WALL_M / 2, y + WALL_M, WALL_HEIGHT_M / 2), (sign * (x + WALL_M / 2), 0.0, height_m), rgba=rgba)
        add_box(body, (x, WALL_M / 2, WALL_HEIGHT_M / 2), (0.0, sign * (y + WALL_M / 2), height_m), rgba=rgba)
