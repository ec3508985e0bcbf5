"""A pipe that lies on the table: grasp it, turn it upright, and put it into the socket that it fits."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from sb3_q2rl.envs.franka.arm_model import VISUAL_GROUP
from sb3_q2rl.envs.franka.objects import FLOOR_M, about_z, add_box, in_frame
from sb3_q2rl.envs.franka.posture import Pose
from sb3_q2rl.envs.franka.robot import Command
from sb3_q2rl.envs.franka.simulator import Simulator

# Across its eight edges
DIAMETER_M, LENGTH_M, MASS_KG = 0.030, 0.160, 0.10
CLEARANCE_M, DEPTH_M = 0.0020, 0.057
WALL_M = 0.012
EIGHTH_RAD = np.pi / 4
SOCKET_M, SOCKET_SPREAD_M = (0.54, -0.11), 0.02
PIPE_M, PIPE_SPREAD_M, PIPE_SPREAD_RAD = (0.50, 0.06), 0.02, 0.25
# On two of its edges
LYING_M = DIAMETER_M / 2 * np.cos(EIGHTH_RAD / 2)
INSERTED_M = 0.054
# Where the arm does not reach it any more
REACH_LOW_M, REACH_HIGH_M = np.array([0.28, -0.32, -0.02]), np.array([0.74, 0.32, 0.6])
# Columns: x along what lies on the table, towards the end that is inserted (+y of the base); z up
ALONG_Y = about_z(np.pi / 2)


class PipeAssemblyScene:
    """
    A pipe with eight edges, and a socket with eight walls that leaves it free to turn, see
    :class:`~sb3_q2rl.envs.franka.tasks.Scene`. The pipe's x points to the end that is inserted.
    """

    def build(self, spec: Any) -> None:
        """:param spec: mujoco.MjSpec of the arm"""
        socket = spec.worldbody.add_body(name="socket", mocap=True, pos=[*SOCKET_M, DEPTH_M + FLOOR_M])
        inner_m = (DIAMETER_M + CLEARANCE_M) / 2
        outer_m = inner_m + WALL_M
        for i in range(8):
            angle_rad = i * EIGHTH_RAD
            distance_m = inner_m + WALL_M / 2
            add_box(
                socket,
                (WALL_M / 2, outer_m * np.tan(EIGHTH_RAD / 2), DEPTH_M / 2),
                (distance_m * np.cos(angle_rad), distance_m * np.sin(angle_rad), -DEPTH_M / 2),
                (np.cos(angle_rad / 2), 0.0, 0.0, np.sin(angle_rad / 2)),
                rgba=(0.25, 0.3, 0.4, 1.0),
            )
        add_box(socket, (outer_m, outer_m, FLOOR_M / 2), (0.0, 0.0, -DEPTH_M - FLOOR_M / 2), rgba=(0.2, 0.24, 0.3, 1.0))
        pipe = spec.worldbody.add_body(name="pipe", pos=[*PIPE_M, LYING_M])
        pipe.add_freejoint()
        side_m = DIAMETER_M / 2 * np.cos(EIGHTH_RAD)
        for i in range(2):
            angle_rad = (i + 0.5) * EIGHTH_RAD
            add_box(
                pipe,
                (LENGTH_M / 2, side_m, side_m),
                quaternion_wxyz=(np.cos(angle_rad / 2), np.sin(angle_rad / 2), 0.0, 0.0),
                mass_kg=MASS_KG / 2,
                visible=False,
            )
        pipe.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[DIAMETER_M / 2, LENGTH_M / 2, 0.0],
            quat=[np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0],
            rgba=[0.9, 0.75, 0.2, 1.0],
            group=VISUAL_GROUP,
            contype=0,
            conaffinity=0,
            mass=0.0,
        )

    def place(self, simulator: Simulator, start: Command, rng: np.random.Generator) -> None:
        """
        :param simulator: of this scene
        :param start: of the arm
        :param rng: of the episode
        """
        xy = np.array(SOCKET_M) + rng.uniform(-SOCKET_SPREAD_M, SOCKET_SPREAD_M, 2)
        simulator.fix("socket", Pose(np.array([*xy, DEPTH_M + FLOOR_M]), np.eye(3)))
        xy = np.array(PIPE_M) + rng.uniform(-PIPE_SPREAD_M, PIPE_SPREAD_M, 2)
        turn = about_z(rng.uniform(-PIPE_SPREAD_RAD, PIPE_SPREAD_RAD)) @ ALONG_Y
        simulator.put("pipe", Pose(np.array([*xy, LYING_M]), turn))
        simulator.teleport(start)

    def observe(self, simulator: Simulator) -> dict[str, np.ndarray]:
        """
        :param simulator: of this scene
        :return: in the base's frame: the socket's mouth, and from the tool to the pipe's middle; in the socket's frame:
            the end that is inserted, and the unit vector from the pipe's middle to it
        """
        socket, pipe = simulator.pose("socket"), simulator.pose("pipe")
        axis = pipe.rotation[:, 0]
        return {
            "socket_pos": socket.position_m,
            "tool_to_pipe_pos": pipe.position_m - simulator.tool.position_m,
            "pipe_to_socket_pos": in_frame(socket, pipe.position_m + LENGTH_M / 2 * axis),
            "pipe_axis": socket.rotation.T @ axis,
        }

    def is_success(self, simulator: Simulator) -> bool:
        """:return: the pipe's end is at the socket's bottom; the walls keep it from being elsewhere at that height"""
        x, y, z = self.observe(simulator)["pipe_to_socket_pos"]
        return bool(z < -INSERTED_M and np.hypot(x, y) < DIAMETER_M / 2)

    def is_failure(self, simulator: Simulator) -> bool:
        """:return: the pipe is out of reach"""
        position_m = simulator.pose("pipe").position_m
        return bool((position_m < REACH_LOW_M).any() or (position_m > REACH_HIGH_M).any())
