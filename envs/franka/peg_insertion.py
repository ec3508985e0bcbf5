"""A square peg, held by the hand, into a square hole."""

from __future__ import annotations

from typing import Any

import numpy as np

from sb3_q2rl.envs.franka.objects import DOWN, FLOOR_M, about_z, add_box, add_socket, in_frame, turn_between
from sb3_q2rl.envs.franka.posture import Pose
from sb3_q2rl.envs.franka.robot import Command
from sb3_q2rl.envs.franka.simulator import Simulator

WIDTH_M, LENGTH_M, MASS_KG = 0.020, 0.100, 0.12
CLEARANCE_M, DEPTH_M = 0.0020, 0.050
BLOCK_HALF_EDGE_M = 0.045
# From the middle of the pads to the peg's middle
HELD_M = 0.032
# Where the block stands, and how far it is moved and turned between episodes
BLOCK_M, BLOCK_SPREAD_M, BLOCK_SPREAD_RAD = (0.52, 0.0), 0.02, 0.1
# The last millimetres are not judged: the pads may have slipped a little along the peg
INSERTED_M = 0.047
LOST_M = 0.06
SETTLE_STEPS = 3


class PegInsertionScene:
    """A block on the table and a peg in the hand, see :class:`~sb3_q2rl.envs.franka.tasks.Scene`."""

    def build(self, spec: Any) -> None:
        """:param spec: mujoco.MjSpec of the arm"""
        block = spec.worldbody.add_body(name="hole", mocap=True, pos=[*BLOCK_M, DEPTH_M + FLOOR_M])
        add_socket(block, WIDTH_M + CLEARANCE_M, DEPTH_M, BLOCK_HALF_EDGE_M, rgba=(0.25, 0.3, 0.4, 1.0))
        peg = spec.worldbody.add_body(name="peg", pos=[*BLOCK_M, 0.3])
        peg.add_freejoint()
        add_box(peg, (WIDTH_M / 2, WIDTH_M / 2, LENGTH_M / 2), rgba=(0.85, 0.35, 0.1, 1.0), mass_kg=MASS_KG)
        peg.add_site(name="peg_tip", pos=[0.0, 0.0, LENGTH_M / 2], size=[0.002] * 3, group=4)

    def place(self, simulator: Simulator, start: Command, rng: np.random.Generator) -> None:
        """
        :param simulator: of this scene
        :param start: of the arm
        :param rng: of the episode
        """
        xy = np.array(BLOCK_M) + rng.uniform(-BLOCK_SPREAD_M, BLOCK_SPREAD_M, 2)
        turn = about_z(rng.uniform(-BLOCK_SPREAD_RAD, BLOCK_SPREAD_RAD))
        simulator.fix("hole", Pose(np.array([*xy, DEPTH_M + FLOOR_M]), turn))
        simulator.teleport(Command(start.position_m, start.quaternion_xyzw, WIDTH_M))
        tool = simulator.tool
        simulator.put("peg", Pose(tool.position_m + HELD_M * tool.rotation[:, 2], tool.rotation))
        hold = Command(start.position_m, start.quaternion_xyzw, gripper_width_m=0.0)
        for _ in range(SETTLE_STEPS):
            simulator.step(hold)

    def observe(self, simulator: Simulator) -> dict[str, np.ndarray]:
        """
        :param simulator: of this scene
        :return: the hole's mouth in the base's frame, and in the hole's frame the peg's tip and how it is turned away
            from where it fits
        """
        hole, peg = simulator.pose("hole"), simulator.pose("peg")
        tip_m = peg.position_m + LENGTH_M / 2 * peg.rotation[:, 2]
        return {
            "hole_pos": hole.position_m,
            "peg_to_hole_pos": in_frame(hole, tip_m),
            "peg_to_hole_rot": turn_between(hole.rotation @ DOWN, peg.rotation),
        }

    def is_success(self, simulator: Simulator) -> bool:
        """:return: the peg's tip is at the hole's bottom; its walls keep it from being anywhere else at that height"""
        x, y, z = self.observe(simulator)["peg_to_hole_pos"]
        return bool(z < -INSERTED_M and max(abs(x), abs(y)) < WIDTH_M / 2)

    def is_failure(self, simulator: Simulator) -> bool:
        """:return: the hand lost the peg"""
        return bool(np.linalg.norm(simulator.pose("peg").position_m - simulator.tool.position_m) > LOST_M)
