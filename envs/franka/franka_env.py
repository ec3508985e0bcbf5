"""One environment for a Franka with a Robotiq 2F-85: simulated or real, from the state or from images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.utils.ezpickle import EzPickle

from sb3_q2rl.envs.franka.config import FrankaConfig, task_limits
from sb3_q2rl.envs.franka.franka_actions import ACTION_DIM, action_of, target_of
from sb3_q2rl.envs.franka.franka_observations import (
    IMAGE_KEYS,
    IMAGE_SIZE,
    OBSERVATION_LIMIT,
    observation_slices,
    observe_robot,
    robot_sizes,
)
from sb3_q2rl.envs.franka.guard import GuardedRobot
from sb3_q2rl.envs.franka.operators import Operator, Signals
from sb3_q2rl.envs.franka.robot import Command, FrankaRobot, RobotError
from sb3_q2rl.envs.franka.safety import Limits
from sb3_q2rl.envs.franka.tasks import draw_start, find_task
from sb3_q2rl.envs.franka.transition_log import TransitionLog

# An executed action that differs by less is the one that was asked for
SAME_ACTION = 1e-3
# Between two attempts to recover a real robot; each waits twice as long as the last
FIRST_WAIT_S = 1.0

__all__ = ["FrankaEnv", "observation_slices"]


class FrankaEnv(gym.Env, EzPickle):
    """
    A Franka under a Cartesian impedance controller, at 10 Hz. An action is the change of the controller's target (x, y,
    z in ``translation_scale_m``, rotation vector in ``rotation_scale_rad``, both in the base's frame) and the gripper
    (> 0.5 closes, < -0.5 opens, between them it stays), all in [-1, 1].

    The change counts from the last *target*, not from the measured pose. The tool hangs a little behind its target, by
    friction and by whatever it presses against; steps that start from where it is would lose that little each time, so
    that it creeps back under load and can never press harder than one step's worth. Counting from the target, force
    builds up as steps follow each other, until the target is ``max_lead_m`` ahead of the tool: further it cannot run.
    ``target_offset`` is observed.

    reward = ``reward_scale`` * success + ``reward_bias``: 4 for the step that succeeds and ends the episode, else -1.
    What cannot succeed any more (a lost part, a robot's fault, a person's stop) is truncated, not terminated: with -1
    a step, an end without a future would be worth more than going on.

    ``info`` has ``is_success`` and ``force_n``; ``executed_action`` where the robot did something else than it was
    given; ``intervene_action`` where a person acted; ``robot_error``, a text, where a fault ended the episode. The
    next ``reset`` recovers from it, or raises :class:`RobotError` with what a person must do.

    :param task: ``"peg_insertion"``, ...
    :param robot: ``"sim"``, or any :class:`FrankaRobot`, which is guarded here. Nothing is opened before ``reset``
    :param obs_mode: ``"state"``: a flat vector, in simulation with the objects, see :func:`observation_slices`;
        ``"image"``: a Dict with ``workspace_rgb``, ``wrist_rgb`` (84, 84, 3) uint8 and ``state``, the robot's own
    :param operator: a person who ends episodes, and may act. A real robot without one runs to the time limit
    :param record_to: a file that every transition is appended to as it happens, see :class:`TransitionLog`
    :param render_mode: ``None`` or ``"rgb_array"``
    :param reward_scale: factor of the raw reward (0 or 1)
    :param reward_bias: added after scaling
    :param config: scales of actions, parts of observations
    :param limits: None: those of the task
    :raises ValueError: a task, mode or robot that is not known
    :raises ImportError: the simulator is not installed
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        task: str = "peg_insertion",
        robot: Literal["sim"] | FrankaRobot = "sim",
        obs_mode: Literal["state", "image"] = "state",
        operator: Operator | None = None,
        record_to: str | Path | None = None,
        render_mode: str | None = None,
        reward_scale: float = 5.0,
        reward_bias: float = -1.0,
        config: FrankaConfig | None = None,
        limits: Limits | None = None,
    ) -> None:
        EzPickle.__init__(
            self, task, robot, obs_mode, operator, record_to, render_mode, reward_scale, reward_bias, config, limits
        )
        self.task = find_task(task)
        if obs_mode not in ("state", "image"):
            raise ValueError(f"`obs_mode` must be 'state' or 'image', got {obs_mode!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"`render_mode` must be None or 'rgb_array', got {render_mode!r}")
        if isinstance(robot, str) and robot != "sim":
            raise ValueError(
                f"`robot` must be 'sim' or a robot, e.g. FCIRobot(host=...) of sb3_q2rl.envs.franka.fci, got {robot!r}"
            )
        self.obs_mode, self.render_mode, self.operator = obs_mode, render_mode, operator
        self.reward_scale, self.reward_bias = reward_scale, reward_bias
        self.config = config or FrankaConfig()
        self.limits = limits or task_limits(self.task)
        self.simulator: Any = self._make_simulator() if isinstance(robot, str) else None
        self.robot: FrankaRobot = self.simulator if isinstance(robot, str) else robot
        period_s = 1 / self.config.control_hz
        self.guard = GuardedRobot(self.robot, self.limits, period_s, real_time=self.simulator is None)
        about = {**self.env_args, "reward_scale": reward_scale, "reward_bias": reward_bias}
        self.log = None if record_to is None else TransitionLog(record_to, about)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self.observation_space = self._make_observation_space()
        self._home_xyzw = np.array(self.limits.home_xyzw)
        self._was_connected = self._is_faulty = False
        self._observation: Any = None

    def _make_simulator(self) -> Any:
        from sb3_q2rl.envs.franka.mujoco_robot import MujocoRobot

        return MujocoRobot(self.task, self.config.control_hz)

    # ------------------------------------------------------------------ observations

    def _make_observation_space(self) -> gym.Space:
        sizes = dict(robot_sizes(self.config))
        if self.obs_mode == "state" and self.simulator is not None:
            sizes |= self.task.object_sizes
        vector = gym.spaces.Box(-OBSERVATION_LIMIT, OBSERVATION_LIMIT, (sum(sizes.values()),), np.float32)
        if self.obs_mode == "state":
            return vector
        image = gym.spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        return gym.spaces.Dict({**dict.fromkeys(IMAGE_KEYS, image), "state": vector})

    def _parts(self) -> dict[str, np.ndarray]:
        objects = {}
        if self.simulator is not None:
            values = self.simulator.objects()
            objects = {name: np.asarray(values[name], dtype=np.float32) for name in self.task.object_sizes}
        return {**objects, **self._robot_parts()}

    def _robot_parts(self) -> dict[str, np.ndarray]:
        state = self.guard.state()
        assert self.guard.target is not None
        return observe_robot(state, self.guard.target, self._home_xyzw, self.config)

    def _observe(self) -> Any:
        if self.obs_mode == "state":
            return np.concatenate(list(self._parts().values()))
        return {**self._images(), "state": np.concatenate(list(self._robot_parts().values()))}

    def _images(self) -> dict[str, np.ndarray]:
        images = self.guard.images()
        missing = [key for key in IMAGE_KEYS if key not in images]
        if missing:
            raise ValueError(
                f"`obs_mode` is 'image', but the robot has no {' and no '.join(missing)}. Give it both cameras, or use "
                "`obs_mode='state'`."
            )
        return {key: images[key] for key in IMAGE_KEYS}

    def named_observation(self) -> dict[str, np.ndarray]:
        """:return: float32, without images: the parts by name, and ``flat``, all of them in the order of the vector"""
        parts = self._parts()
        return {"flat": np.concatenate(list(parts.values())), **parts}

    # ------------------------------------------------------------------ episodes

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        Connect if need be, recover if need be, and go to a start: in simulation at once, with a real robot up, over and
        down, after the operator has agreed.

        :param seed: of the starts; in simulation the same seed gives the same episode, and the same episodes after it
        :param options: ``{"person_checked": True}``: somebody has looked after the robot asked for it
        :return: observation, info with ``is_success`` and ``force_n``
        :raises RobotError: a person must look first; or the first connection failed
        :raises ValueError: ``obs_mode`` is ``"image"`` and the robot lacks a camera: nothing has moved
        """
        super().reset(seed=seed)
        if (options or {}).get("person_checked"):
            self.guard.person_checked()
        self._observation = self._ready()
        if self.log is not None:
            self.log.append_reset(self._observation, seed)
        return self._observation, {"is_success": False, "force_n": self.guard.force_n}

    def _ready(self) -> Any:
        """Try until the robot is at a start, or a person is needed who is not there."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                if self._is_faulty:
                    self.guard.recover()
                self.guard.connect()
                self._was_connected = True
                self._go_to_start()
                observation = self._observe()
                self._is_faulty = False
                return observation
            except RobotError as error:
                if not self._was_connected:
                    raise
                if not error.recoverable:
                    if self.operator is None:
                        self._is_faulty = True
                        raise
                    self.operator.ask(f"{error} See to the robot.")
                    self.guard.person_checked()
                elif self._is_faulty and self.simulator is None:
                    time.sleep(wait_s)
                    wait_s *= 2
                self._is_faulty = True

    def _go_to_start(self) -> None:
        if self.simulator is not None:
            self.simulator.begin_episode(self.np_random)
            state = self.simulator.state()
            width = self.task.start.gripper_width_m
            self.guard.begin(Command(state.position_m, state.quaternion_xyzw, width))
            return
        if self.obs_mode == "image":
            self._images()  # a camera that is not there is told before the arm moves
        if self.operator is not None:
            self.guard.stop()  # a person may take longer than the watchdog waits, and nothing shall be pressed upon
            self.operator.ask("Prepare the next episode, and step back: the arm is going to move.")
        self.guard.move(draw_start(self.task, self.np_random), attend=self._poll)
        self._poll()  # what else was pressed before the episode says nothing about it

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """
        :param action: (7,) in [-1, 1]; what lies beyond is clipped
        :return: observation, reward, terminated (= success), truncated (a fault, a stop or a failure: the time limit is
            gymnasium's wrapper), info
        :raises ValueError: an action of another shape, or with entries that are not finite
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise ValueError(f"`action` must be {ACTION_DIM} finite numbers, got {action!r}")
        if self._observation is None or self._is_faulty:
            raise gym.error.ResetNeeded("Call reset() before step(): there is no episode, or a fault ended it.")
        signals, executed, fault = self._act(action)
        info: dict[str, Any] = {"force_n": self.guard.force_n}
        if signals.action is not None:
            info["intervene_action"] = executed
        if np.abs(executed - action).max() > SAME_ACTION:
            info["executed_action"] = executed
        if fault is not None:
            info["robot_error"] = str(fault)
            self._is_faulty = True
        success, failure = (False, False) if fault else self.judge(signals)
        info["is_success"] = success
        truncated = not success and (failure or fault is not None)
        reward = float(self.reward_scale * success + self.reward_bias)
        if self.log is not None:
            self.log.append_step(self._observation, action, executed, reward, success, truncated, info)
        return self._observation, reward, success, truncated, info

    def _act(self, action: np.ndarray) -> tuple[Signals, np.ndarray, RobotError | None]:
        """:return: what the person did, the executed action (0 where nothing was), and what went wrong"""
        signals, executed = Signals(), np.zeros(ACTION_DIM, np.float32)
        try:
            signals = self._poll()
            asked = action if signals.action is None else np.asarray(signals.action, dtype=np.float64)
            executed = self._execute(asked.clip(-1.0, 1.0))
            signals = signals.and_then(self._poll())
            self._observation = self._observe()
        except RobotError as error:
            return signals, executed, error
        return signals, executed, None

    def _poll(self) -> Signals:
        """
        :return: what the person does, if it is no stop
        :raises RobotError: a stop, or nobody could press it any more
        """
        if self.operator is None:
            return Signals()
        try:
            signals = self.operator.poll()
        except Exception as error:  # whatever a device's driver may raise
            raise self.guard.stop_for(f"the operator's device failed ({type(error).__name__}: {error}).") from error
        if signals.stop:
            raise self.guard.stop_for("a person stopped the arm.", recoverable=False)
        return signals

    def judge(self, signals: Signals) -> tuple[bool, bool]:
        """
        Did this step end the episode? A task of one's own overrides it.

        :param signals: what the person did since the last step
        :return: success, failure
        """
        if self.simulator is None:
            return signals.success, signals.failure
        success = signals.success or bool(self.simulator.is_success())
        return success, signals.failure or bool(self.simulator.is_failure())

    def _execute(self, action: np.ndarray) -> np.ndarray:
        """:return: the action that leads to what was executed"""
        last = self.guard.target
        assert last is not None
        open_m = self.limits.max_gripper_width_m
        wanted = target_of(action, last, open_m, self.config, self.task.fixed_gripper_width_m)
        executed = self.guard.command(wanted)
        return action_of(action, last, wanted, executed, self.config).astype(np.float32)

    # ------------------------------------------------------------------ around them

    def get_state(self) -> np.ndarray:
        """:return: of the simulator, a row of ``states`` in robomimic's files; empty on a real robot"""
        return np.zeros(0) if self.simulator is None else self.simulator.get_state()

    @property
    def model_xml(self) -> None:
        """:return: None: the simulator's model is the same in all episodes of a task"""
        return None

    @property
    def env_args(self) -> dict[str, Any]:
        """:return: robomimic's attribute of the name; its type 2 is an environment of gym"""
        arguments = {"task": self.task.name, "obs_mode": self.obs_mode}
        return {"env_name": "sb3_q2rl.envs.franka.FrankaEnv", "env_version": "0", "type": 2, "env_kwargs": arguments}

    def render(self) -> np.ndarray | None:
        """:return: (size, size, 3) uint8 in mode ``rgb_array``: of a simulator 256 pixels, else the camera's picture"""
        if self.render_mode != "rgb_array":
            return None
        if self.simulator is not None:
            return self.simulator.render()
        return self.guard.images().get("workspace_rgb")

    def close(self) -> None:
        """Stop the arm, close its connections and the file."""
        try:
            if self._was_connected:
                self.guard.close()
        finally:
            self._was_connected = False
            self._observation = None
            if self.log is not None:
                self.log.close()
            if self.operator is not None:
                self.operator.close()
