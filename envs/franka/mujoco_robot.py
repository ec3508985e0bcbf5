"""A simulated Franka behind the interface of the real one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_q2rl.envs.franka.robot import Command, RobotState
from sb3_q2rl.envs.franka.rotations import from_rotation_vector, inverse, product, to_rotation_vector
from sb3_q2rl.envs.franka.tasks import Task, draw_start
from sb3_q2rl.envs.robosuite_cameras import Cameras

CAMERAS = ("workspace_rgb", "wrist_rgb")
IMAGE_SIZE = 84
# Where reset moves end
ARRIVED_M, ARRIVED_PERIODS = 0.003, 20


class MujocoRobot:
    """
    A Franka, see :class:`~sb3_q2rl.envs.franka.robot.FrankaRobot`, with the simulated things of a task. Time passes in
    ``command`` and ``move`` alone.

    :param task: what is around the arm
    :param control_hz: commands in a simulated second
    :raises ImportError: robosuite or mujoco is not installed
    :raises ValueError: a rate that the simulator's time step does not divide
    """

    def __init__(self, task: Task, control_hz: float = 10.0) -> None:
        try:
            from sb3_q2rl.envs.franka.simulator import Simulator
        except ImportError as error:
            raise ImportError(
                f"The simulated Franka needs mujoco, which could not be imported ({error}). Install the extra "
                "`robosuite`: pip install 'sb3_q2rl[robosuite]'"
            ) from error
        self.task, self.control_hz = task, control_hz
        self._scene = task.make_scene()
        self.simulator = Simulator(self._scene, control_hz)
        self._cameras: dict[tuple[tuple[str, ...], int, bool], Cameras] = {}
        self.begin_episode(np.random.default_rng(0))

    # What every Franka can do

    def connect(self) -> None:
        """Nothing to be done."""

    def state(self) -> RobotState:
        """:return: of now; ``wrench`` is the mean over the last control period"""
        simulator = self.simulator
        return RobotState(
            time_s=simulator.time_s,
            position_m=simulator.tool.position_m,
            quaternion_xyzw=simulator.tool_xyzw,
            gripper_width_m=simulator.width_m,
            wrench=simulator.wrench,
            joint_positions_rad=simulator.joint_positions_rad,
            joint_velocities_rad_s=simulator.joint_velocities_rad_s,
        )

    def command(self, command: Command) -> Command:
        """
        Pull for one control period of simulated time.

        :param command: where to
        :return: the same: nothing is cut here
        """
        self.simulator.step(command)
        return command

    def move(self, command: Command, duration_s: float) -> None:
        """
        Go there along a straight line.

        :param command: the goal
        :param duration_s: simulated, of the whole way
        """
        start_m, start_xyzw = self.simulator.tool.position_m, self.simulator.tool_xyzw
        turn_rad = to_rotation_vector(product(command.quaternion_xyzw, inverse(start_xyzw)))
        n_periods = max(1, round(duration_s * self.control_hz))
        for i in range(1, n_periods + ARRIVED_PERIODS + 1):
            part = min(1.0, i / n_periods)
            position_m = (1 - part) * start_m + part * np.asarray(command.position_m)
            turned = product(from_rotation_vector(part * turn_rad), start_xyzw)
            self.simulator.step(Command(position_m, turned, command.gripper_width_m))
            beside_m = float(np.linalg.norm(self.simulator.tool.position_m - command.position_m))
            if i >= n_periods and beside_m < ARRIVED_M:
                return

    def images(self) -> Mapping[str, np.ndarray]:
        """:return: both cameras' pictures, (84, 84, 3) uint8"""
        return dict(zip(CAMERAS, self._pictures(CAMERAS, IMAGE_SIZE, fast=True), strict=True))

    def recover(self) -> None:
        """Nothing to be done."""

    def stop(self) -> None:
        """It stands whenever no command is carried out."""

    def close(self) -> None:
        """Free what the graphics library holds."""
        for cameras in self._cameras.values():
            cameras.close()
        self._cameras.clear()

    # What only a simulated one can do

    def begin_episode(self, rng: np.random.Generator) -> None:
        """
        Put the things where they start, and the arm, at once.

        :param rng: draws the start; the same state of it gives the same episode
        """
        self.simulator.restart()
        self._scene.place(self.simulator, draw_start(self.task, rng), rng)

    def objects(self) -> dict[str, np.ndarray]:
        """:return: what the task's ``object_sizes`` names, float64, in its order"""
        observed = self._scene.observe(self.simulator)
        return {name: observed[name] for name in self.task.object_sizes}

    def is_success(self) -> bool:
        """:return: judged by the geometry"""
        return self._scene.is_success(self.simulator)

    def is_failure(self) -> bool:
        """:return: the episode cannot succeed any more"""
        return self._scene.is_failure(self.simulator)

    def get_state(self) -> np.ndarray:
        """:return: (n,) float64; begins with time, qpos, qvel"""
        return self.simulator.get_state()

    def set_state(self, state: np.ndarray) -> None:
        """
        :param state: as :meth:`get_state` gave it; what follows is the same again
        :raises ValueError: of another task
        """
        self.simulator.set_state(state)

    def render(self, camera: str = CAMERAS[0], size: int = 256) -> np.ndarray:
        """
        :param camera: "workspace_rgb" or "wrist_rgb"
        :param size: pixels of an edge
        :return: (size, size, 3) uint8, in good quality
        """
        return self._pictures((camera,), size, fast=False)[0]

    def _pictures(self, names: tuple[str, ...], size: int, fast: bool) -> list[np.ndarray]:
        key = names, size, fast
        if key not in self._cameras:
            simulator: Any = self.simulator
            self._cameras[key] = Cameras(simulator.model, simulator.data, names, size, fast)
        self.simulator.refresh_cameras()
        return self._cameras[key].render()
