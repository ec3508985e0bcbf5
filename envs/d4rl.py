"""
D4RL tasks on gymnasium-robotics, with the sparse rewards that offline-to-online papers use: -1 for every step until
success, 0 for the step that succeeds and ends the episode, then scaled.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils.ezpickle import EzPickle

# Far beyond what the simulator gives (m, rad, m/s, rad/s). Finite, because checkers object to infinite bounds.
OBSERVATION_LIMIT = 1e3


def make_simulator(env_id: str, **kwargs: Any) -> gym.Env:
    """
    Make an environment of gymnasium-robotics without its time limit and wrappers.

    :param env_id: e.g. ``"AdroitHandDoor-v1"``
    :param kwargs: for the environment's constructor
    :return: the bare environment
    :raises ImportError: gymnasium-robotics is not installed
    """
    try:
        # gymnasium-robotics prints a notice about *dense* rewards when it is imported; these tasks are sparse.
        from farama_notifications import notifications

        notifications.pop("gymnasium_robotics", None)
    except ImportError:
        pass
    try:
        import gymnasium_robotics
    except ImportError as error:
        raise ImportError(
            f"{env_id} needs gymnasium-robotics, which could not be imported ({error}). "
            "Install the extra `d4rl`: pip install 'sb3_q2rl[d4rl]'"
        ) from error
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        # Without a display MuJoCo's default (GLFW) aborts the process at the first rendering.
        os.environ.setdefault("MUJOCO_GL", "egl")
    gym.register_envs(gymnasium_robotics)
    spec = gym.spec(env_id)
    assert isinstance(spec.entry_point, str)
    env = load_env_creator(spec.entry_point)(**{**spec.kwargs, **kwargs})
    assert isinstance(env, gym.Env)
    return env


class _AdroitBinaryEnv(gym.Env, EzPickle):
    """
    An Adroit hand task whose episode ends at the first success. Observations and actions are the simulator's
    (24 joints of the hand plus the arm; actions in [-1, 1] are joint position targets).

    reward = ``reward_scale`` * raw + ``reward_bias`` with raw = -1, or 0 on success: -5 / +5 as published.

    :param render_mode: ``None``, ``"rgb_array"`` or ``"human"``
    :param reward_scale: factor of the raw reward
    :param reward_bias: added after scaling
    :param simulator_kwargs: for the simulator, e.g. ``width=320, height=240`` (pixels) or ``camera_id``
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 100}  # noqa: RUF012
    simulator_id: ClassVar[str]

    def __init__(
        self,
        render_mode: str | None = None,
        reward_scale: float = 10.0,
        reward_bias: float = 5.0,
        **simulator_kwargs: Any,
    ) -> None:
        EzPickle.__init__(
            self, render_mode=render_mode, reward_scale=reward_scale, reward_bias=reward_bias, **simulator_kwargs
        )
        self.render_mode = render_mode
        self.reward_scale = reward_scale
        self.reward_bias = reward_bias
        # Any: the simulator's state getters are not part of gymnasium's interface
        self._simulator: Any = make_simulator(
            self.simulator_id, reward_type="sparse", render_mode=render_mode, **simulator_kwargs
        )
        self.observation_space = gym.spaces.Box(
            -OBSERVATION_LIMIT, OBSERVATION_LIMIT, self._simulator.observation_space.shape, np.float32
        )
        self.action_space = self._simulator.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: the same seed gives the same sequence of initial states
        :param options: ``{"initial_state_dict": ...}`` starts in a state that :meth:`get_env_state` gave
        :return: observation (obs_dim,), info
        """
        super().reset(seed=seed)
        observation, info = self._simulator.reset(seed=seed, options=options)
        return observation.astype(np.float32), {**info, "is_success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: (action_dim,) in [-1, 1]
        :return: observation (obs_dim,), reward, terminated (= success), truncated (always False here: the time limit
            is gymnasium's wrapper), info with ``is_success``
        """
        observation, _, _, _, info = self._simulator.step(action)
        success = bool(info.pop("success"))
        raw_reward = 0.0 if success else -1.0
        reward = self.reward_scale * raw_reward + self.reward_bias
        return observation.astype(np.float32), reward, success, False, {**info, "is_success": success}

    def get_env_state(self) -> dict[str, np.ndarray]:
        """:return: the full simulator state, for ``reset(options={"initial_state_dict": ...})``"""
        return self._simulator.get_env_state()

    def render(self) -> np.ndarray | None:
        """:return: (height, width, 3) uint8 in mode ``rgb_array``, else None"""
        return self._simulator.render()

    def close(self) -> None:
        self._simulator.close()


class AdroitHandDoorBinaryEnv(_AdroitBinaryEnv):
    """Undo the latch and swing the door open: success when its hinge passes 1.35 rad. 39 observations, 28 actions."""

    simulator_id = "AdroitHandDoor-v1"


class AdroitHandPenBinaryEnv(_AdroitBinaryEnv):
    """
    Turn a pen in the hand to a random orientation: success when it is within 0.075 m and cos(angle) > 0.95 of the
    goal. 45 observations, 24 actions.
    """

    simulator_id = "AdroitHandPen-v1"


class FrankaKitchenCompleteEnv(gym.Env, EzPickle):
    """
    D4RL's kitchen-complete: open the microwave, move the kettle, turn on the light, slide the cabinet, in any order,
    with a Franka arm under joint velocity control. 59 observations (arm 9 positions, 9 velocities; objects 21 and 20),
    9 actions. D4RL's own observation leaves the velocities out and appends the goal, which is constant.

    reward = ``reward_scale`` * raw + ``reward_bias`` with raw = the number of sub-tasks finished so far in the episode:
    -4 to 0 as published. A sub-task counts as finished once it has been, even if it is undone.

    :param render_mode: ``None``, ``"rgb_array"`` or ``"human"``
    :param reward_scale: factor of the raw reward
    :param reward_bias: added after scaling
    :param simulator_kwargs: for the simulator, e.g. ``width=320, height=240`` (pixels) or ``object_noise_ratio``
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 12}  # noqa: RUF012
    SUBTASKS: ClassVar[tuple[str, ...]] = ("microwave", "kettle", "light switch", "slide cabinet")
    # Recordings need no copy of the model: it is part of gymnasium-robotics and the same in every episode
    model_xml: ClassVar[None] = None

    def __init__(
        self,
        render_mode: str | None = None,
        reward_scale: float = 1.0,
        reward_bias: float = -4.0,
        **simulator_kwargs: Any,
    ) -> None:
        EzPickle.__init__(self, render_mode, reward_scale, reward_bias, **simulator_kwargs)
        self.render_mode = render_mode
        self.reward_scale = reward_scale
        self.reward_bias = reward_bias
        self.simulator: Any = make_simulator(
            "FrankaKitchen-v1", tasks_to_complete=list(self.SUBTASKS), render_mode=render_mode, **simulator_kwargs
        )
        self._simulator_kwargs = simulator_kwargs
        self._observation = self.simulator.reset(seed=0)[0]["observation"].astype(np.float32)
        self.observation_space = gym.spaces.Box(
            -OBSERVATION_LIMIT, OBSERVATION_LIMIT, self._observation.shape, np.float32
        )
        self.action_space = gym.spaces.Box(-1.0, 1.0, self.simulator.action_space.shape, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: the same seed gives the same noise; the kitchen itself always starts alike
        :param options: unused
        :return: observation (59,), info
        """
        super().reset(seed=seed)
        observation, _ = self.simulator.reset(seed=seed)
        self._observation = observation["observation"].astype(np.float32)
        return self._observation.copy(), self._info([])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: (9,) in [-1, 1]
        :return: observation (59,), reward, terminated (= all four are finished), truncated (always False here), info
        """
        observation, _, _, _, info = self.simulator.step(np.asarray(action, dtype=np.float64))
        finished = list(info["episode_task_completions"])
        reward = self.reward_scale * len(finished) + self.reward_bias
        success = len(finished) == len(self.SUBTASKS)
        self._observation = observation["observation"].astype(np.float32)
        return self._observation.copy(), float(reward), success, False, self._info(finished)

    def _info(self, finished: list[str]) -> dict[str, Any]:
        """:return: ``is_success``: all are; ``success``: the fraction that is; ``finished``: which, in their order"""
        fraction = len(finished) / len(self.SUBTASKS)
        return {"is_success": fraction == 1.0, "success": fraction, "finished": finished}

    def named_observation(self) -> dict[str, np.ndarray]:
        """:return: the latest observation, its noise included, by the name that robomimic gives a gym environment's"""
        return {"flat": self._observation.copy()}

    def get_state(self) -> np.ndarray:
        """:return: (1 + nq + nv,) float64: time, qpos, qvel, a row of ``states`` in robomimic's files"""
        data = self.simulator.data
        return np.concatenate([[data.time], data.qpos, data.qvel])

    @property
    def env_args(self) -> dict[str, Any]:
        """:return: robomimic's attribute ``env_args`` before it becomes JSON; type 2 means a gym environment"""
        rewards = {"reward_scale": self.reward_scale, "reward_bias": self.reward_bias}
        return {
            "env_name": "FrankaKitchenComplete-v0",
            "env_version": version("gymnasium-robotics"),
            "type": 2,
            "env_kwargs": {**rewards, **self._simulator_kwargs},
        }

    def render(self) -> np.ndarray | None:
        """:return: (height, width, 3) uint8 in mode ``rgb_array``, else None"""
        return self.simulator.render()

    def close(self) -> None:
        self.simulator.close()
