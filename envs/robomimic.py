"""
robomimic's tasks Lift, Can and Square on robosuite, from the state or from images, with the sparse rewards and time
limits of offline-to-online papers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.utils.ezpickle import EzPickle

from sb3_q2rl.envs.robomimic_observations import (
    OBSERVATION_KEYS,
    PROPRIOCEPTION_SIZES,
    find_task,
    observation_slices,
    observe_state,
)
from sb3_q2rl.envs.robosuite_cameras import Cameras, open_viewer
from sb3_q2rl.envs.robosuite_fast import ACTION_DIM, CONTROL_FREQUENCY_HZ, FastRobosuite

CAMERAS = ("agentview", "robot0_eye_in_hand")
IMAGE_SIZE = 84
# m. Finite, because checkers object to infinite bounds
OBSERVATION_LIMIT = 1e3

__all__ = ["OBSERVATION_KEYS", "Pose", "RobomimicEnv", "RobomimicImageEnv", "observation_slices"]


class Pose(NamedTuple):
    """
    :param position_m: (3,) in the world
    :param rotation: (3, 3) columns are its axes in the world
    """

    position_m: np.ndarray
    rotation: np.ndarray


class RobomimicEnv(gym.Env, EzPickle):
    """
    One of robomimic's tasks: a Panda under operational space control at 20 Hz. An action is the change of the gripper's
    pose (x, y, z in 5 cm, axis-angle in 0.5 rad) and the gripper's command (> 0 closes), all in [-1, 1].

    reward = ``reward_scale`` * success + ``reward_bias``: 4 for the step that succeeds and ends the episode, else -1.

    :param task: ``"Lift"``, ``"Can"`` or ``"Square"``
    :param render_mode: ``None``, ``"rgb_array"`` or ``"human"``
    :param reward_scale: factor of the raw reward (0 or 1)
    :param reward_bias: added after scaling
    :param render_camera: the camera of ``"rgb_array"``
    :param render_size: pixels of an edge of its pictures
    :raises ValueError: a task or camera that is not known
    :raises ImportError: robosuite is not installed
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array"],
        "render_fps": CONTROL_FREQUENCY_HZ,
    }

    def __init__(
        self,
        task: str,
        render_mode: str | None = None,
        reward_scale: float = 5.0,
        reward_bias: float = -1.0,
        render_camera: str = "agentview",
        render_size: int = 256,
    ) -> None:
        EzPickle.__init__(self, task, render_mode, reward_scale, reward_bias, render_camera, render_size)
        self.task = find_task(task)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"`render_mode` must be None, 'rgb_array' or 'human', got {render_mode!r}")
        self.render_mode = render_mode
        self.reward_scale, self.reward_bias = reward_scale, reward_bias
        self.render_camera, self.render_size = render_camera, render_size
        self.simulator = FastRobosuite(self.task.robosuite_name)
        self._picture: Cameras | None = None
        self._viewer: Any = None
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self.observation_space = self._make_observation_space()

    def _make_observation_space(self) -> gym.Space:
        n_inputs = sum(self.task.object_sizes.values()) + sum(PROPRIOCEPTION_SIZES.values())
        return gym.spaces.Box(-OBSERVATION_LIMIT, OBSERVATION_LIMIT, (n_inputs,), np.float32)

    def _observe(self) -> Any:
        return np.concatenate(list(self.named_observation().values()))

    def named_observation(self) -> dict[str, np.ndarray]:
        """:return: float32 by the names of :data:`OBSERVATION_KEYS`, in this order; for image environments too"""
        return observe_state(self.task, self.simulator.model, self.simulator.data)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: the same seed gives the same episode, and the same episodes after it
        :param options: unused
        :return: observation, info with ``is_success``
        """
        super().reset(seed=seed)
        self.simulator.reset(seed)
        self._show()
        return self._observe(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """
        :param action: (7,) in [-1, 1]; what lies beyond is clipped
        :return: observation, reward, terminated (= success), truncated (always False here: the time limit is
            gymnasium's wrapper), info with ``is_success``
        :raises ValueError: an action of another shape, or with entries that are not finite
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise ValueError(f"`action` must be {ACTION_DIM} finite numbers, got {action!r}")
        self.simulator.step(action)
        success = self.simulator.is_success()
        self._show()
        reward = self.reward_scale * success + self.reward_bias
        return self._observe(), float(reward), success, False, {"is_success": success}

    def pose(self, name: str) -> Pose:
        """
        :param name: of a site or body of the model, e.g. ``"gripper0_right_grip_site"``, ``"cube_main"``, ``"peg1"``
        :return: its present pose
        :raises KeyError: no such site or body
        """
        model, data = self.simulator.model, self.simulator.data
        for kind, positions, rotations in (
            (model.site, data.site_xpos, data.site_xmat),
            (model.body, data.xpos, data.xmat),
        ):
            try:
                index = kind(name).id
            except KeyError:
                continue
            return Pose(positions[index].copy(), rotations[index].reshape(3, 3).copy())
        sites = [model.site(i).name for i in range(model.nsite)]
        bodies = [model.body(i).name for i in range(model.nbody)]
        raise KeyError(f"{name!r} is neither a site ({', '.join(sites)}) nor a body ({', '.join(bodies)})")

    def get_state(self) -> np.ndarray:
        """:return: (1 + nq + nv,) float64: time, qpos, qvel, a row of ``states`` in robomimic's files"""
        return self.simulator.get_state()

    @property
    def model_xml(self) -> str:
        """:return: the model of this episode, robomimic's ``model_file``; it names no folder of this machine"""
        return self.simulator.model_xml

    @property
    def env_args(self) -> dict[str, Any]:
        """:return: what robomimic makes the same environment of, its attribute ``env_args`` before it becomes JSON"""
        kwargs = self.simulator.make_kwargs
        version = self.simulator.version
        return {"env_name": self.simulator.name, "env_version": version, "type": 1, "env_kwargs": {**kwargs}}

    def set_state(self, state: np.ndarray, model_xml: str | None = None) -> Any:
        """
        Start an episode in a recorded state. The recorded actions then lead where they led, if it was the first of its
        episode. In later states robosuite has a memory that is not recorded: the gripper's ramp and the posture that
        the arm's null space holds.

        :param state: (1 + nq + nv,) as :meth:`get_state` gives it
        :param model_xml: the model it was recorded with; None means that of the present episode
        :return: observation
        """
        self.simulator.set_state(state, model_xml)
        self._show()
        return self._observe()

    def _show(self) -> None:
        if self.render_mode != "human":
            return
        model, data = self.simulator.model, self.simulator.data
        if self._viewer is not None and self._viewer.m is not model:
            self._viewer.close()
            self._viewer = None
        if self._viewer is None:
            self._viewer = open_viewer(model, data)
        self._viewer.sync()

    def render(self) -> np.ndarray | None:
        """:return: (render_size, render_size, 3) uint8 in mode ``rgb_array``, else None"""
        if self.render_mode != "rgb_array":
            return None
        names = [self.render_camera]
        self._picture = self._cameras(self._picture, names, self.render_size, fast=False)
        return self._picture.render()[0]

    def _cameras(self, present: Cameras | None, names: list[str], size: int, fast: bool) -> Cameras:
        """:return: the present ones, or new ones where the simulator has loaded another model"""
        if present is not None:
            if present.model is self.simulator.model:
                return present
            present.close()
        return Cameras(self.simulator.model, self.simulator.data, names, size, fast)

    def close(self) -> None:
        if self._picture is not None:
            self._picture.close()
        if self._viewer is not None:
            self._viewer.close()
        self._picture = self._viewer = None


class RobomimicImageEnv(RobomimicEnv):
    """
    The same task from images: a Dict with ``<camera>_image`` (image_size, image_size, 3) uint8 for each camera and the
    proprioception of :data:`OBSERVATION_KEYS`, but nothing of the object. The names are robomimic's.

    :param camera_names: of the model, e.g. ``"agentview"``, ``"robot0_eye_in_hand"``, ``"frontview"``
    :param image_size: pixels of an edge
    :param kwargs: see :class:`RobomimicEnv`
    :raises ValueError: a camera that is not known
    :raises RuntimeError: no OpenGL here
    """

    def __init__(
        self, task: str, camera_names: tuple[str, ...] = CAMERAS, image_size: int = IMAGE_SIZE, **kwargs: Any
    ) -> None:
        self.camera_names, self.image_size = list(camera_names), image_size
        self._eyes: Cameras | None = None
        super().__init__(task, **kwargs)
        EzPickle.__init__(self, task, camera_names, image_size, **kwargs)

    def _make_observation_space(self) -> gym.Space:
        self._eyes = self._cameras(None, self.camera_names, self.image_size, fast=True)
        shape = (self.image_size, self.image_size, 3)
        spaces: dict[str, gym.Space] = {
            f"{name}_image": gym.spaces.Box(0, 255, shape, np.uint8) for name in self.camera_names
        }
        for key, size in PROPRIOCEPTION_SIZES.items():
            spaces[key] = gym.spaces.Box(-OBSERVATION_LIMIT, OBSERVATION_LIMIT, (size,), np.float32)
        return gym.spaces.Dict(spaces)

    def _observe(self) -> dict[str, np.ndarray]:
        self._eyes = self._cameras(self._eyes, self.camera_names, self.image_size, fast=True)
        images = zip(self.camera_names, self._eyes.render(), strict=True)
        observation = {f"{name}_image": image for name, image in images}
        return observation | {key: value for key, value in self.named_observation().items() if key != "object"}

    def close(self) -> None:
        super().close()
        if self._eyes is not None:
            self._eyes.close()
            self._eyes = None
