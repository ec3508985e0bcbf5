"""
robosuite's tabletop tasks, with the work of a step and of a reset reduced to what changes the state.

Where robosuite's time goes, and what is done here instead. Trajectories stay the same, bit for bit: tests compare them.

* A control period is 25 simulator steps, and after each robosuite rebuilds dictionaries of some thirty observables,
  evaluates the site Jacobian six times and looks every index up by name. ``ControlPeriod`` does each once.
* A reset parses and compiles the model again, to draw the size of Lift's cube. :meth:`FastRobosuite.reset` keeps the
  model and writes the cube's new size into it.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import numpy as np

ROBOT = "Panda"
CONTROL_FREQUENCY_HZ = 20
ACTION_DIM = 7
# robosuite's own, see its Lift: every edge of the cube is drawn anew each episode
CUBE_HALF_EDGE_M = (0.020, 0.022)
CUBE_DENSITY_KG_M3 = 1000.0
TESTED_ROBOSUITE = (1, 5)
TESTED_MUJOCO = ((3, 3), (3, 10))  # from, below


@contextmanager
def quiet_robosuite() -> Iterator[None]:
    """robosuite warns of optional packages and macro files that nobody here needs; its errors still come through."""
    logger = logging.getLogger("robosuite_logs")

    def only_errors(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    logger.addFilter(only_errors)
    try:
        yield
    finally:
        logger.removeFilter(only_errors)


def import_robosuite() -> Any:
    """
    :return: the module robosuite
    :raises ImportError: robosuite is not installed
    :raises RuntimeError: it is, but mujoco did not find the OpenGL library that MUJOCO_GL names
    """
    _warn_of_installed_versions()
    try:
        with quiet_robosuite():
            import robosuite
    except ImportError as error:
        raise ImportError(
            f"The robomimic tasks need robosuite, which could not be imported ({error}). "
            "Install the extra `robosuite`: pip install 'sb3_q2rl[robosuite]'"
        ) from error
    except Exception as error:  # PyOpenGL raises whatever the missing library led to
        raise RuntimeError(
            f"robosuite is installed but could not be imported ({error!r}). Usually an OpenGL library is missing, "
            "which mujoco loads at once: on Debian or Ubuntu apt install libegl1 libegl-mesa0 libgl1-mesa-dri, or, for "
            "MUJOCO_GL=osmesa, apt install libosmesa6"
        ) from error
    return robosuite


def _warn_of_installed_versions() -> None:
    try:
        versions = metadata.version("robosuite"), metadata.version("mujoco")
    except metadata.PackageNotFoundError:
        return  # the import will tell, or it is a checkout that has no version
    warn_if_untested(*versions)


def warn_if_untested(robosuite_version: str, mujoco_version: str) -> None:
    """
    :param robosuite_version: e.g. ``"1.5.2"``
    :param mujoco_version: e.g. ``"3.9.0"``
    """
    if _version(robosuite_version) != TESTED_ROBOSUITE:
        warnings.warn(
            f"robosuite {robosuite_version} is installed, 1.5 was tested. Between 1.4 and 1.5 the controllers and the "
            "signs of observations changed; trajectories and policies may not carry over.",
            stacklevel=2,
        )
    if not TESTED_MUJOCO[0] <= _version(mujoco_version) < TESTED_MUJOCO[1]:
        warnings.warn(
            f"mujoco {mujoco_version} is installed, 3.3 to 3.9 were tested. robosuite 1.5 reads fields that "
            "mujoco 3.10 removed: pip install 'mujoco>=3.3,<3.10'",
            stacklevel=2,
        )


def _version(version: str) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


class FastRobosuite:
    """
    One robosuite task with a Panda, operational space control of its pose in deltas, 20 Hz, sparse reward.

    :param name: robosuite's name of the task: ``"Lift"``, ``"PickPlaceCan"``, ``"NutAssemblySquare"``
    """

    def __init__(self, name: str) -> None:
        robosuite = import_robosuite()
        import mujoco

        from sb3_q2rl.envs.robosuite_control import ControlPeriod

        self._mujoco, self._control_period = mujoco, ControlPeriod
        self.name, self.version = name, robosuite.__version__
        with quiet_robosuite():
            controller = robosuite.load_composite_controller_config(robot=ROBOT)
            self.make_kwargs: dict[str, Any] = {
                "robots": [ROBOT],
                "controller_configs": controller,
                "control_freq": CONTROL_FREQUENCY_HZ,
                "reward_shaping": False,
                "use_object_obs": True,
                "use_camera_obs": False,
                "has_renderer": False,
                "has_offscreen_renderer": False,
                "ignore_done": True,
            }
            self.env: Any = robosuite.make(name, **self.make_kwargs, hard_reset=False)
        self._loaded_xml: str | None = None
        self._control = self._control_period(self.env)

    @property
    def model(self) -> Any:
        """:return: mujoco.MjModel; another object after :meth:`set_state` with a model of another episode"""
        return self.env.sim.model._model

    @property
    def data(self) -> Any:
        """:return: mujoco.MjData"""
        return self.env.sim.data._data

    def reset(self, seed: int | None = None) -> None:
        """
        :param seed: restarts robosuite's generator; with None it goes on
        """
        if seed is not None:
            # In place, because the samplers of object poses hold this very generator
            self.env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        self.env.hard_reset = self._loaded_xml is not None  # back from a model that was loaded to the task's own
        self._loaded_xml = None
        with quiet_robosuite():
            if self.name == "Lift" and not self.env.hard_reset:
                self._resize_cube(np.array([self.env.rng.uniform(*CUBE_HALF_EDGE_M) for _ in range(3)]))
            self.env.reset()
        self.env.hard_reset = False
        self._control = self._control_period(self.env)

    def step(self, action: np.ndarray) -> None:
        """
        :param action: (7,) float64 in [-1, 1]
        """
        self._control.run(action)

    def is_success(self) -> bool:
        """:return: robosuite's own check of the task"""
        return bool(self.env._check_success())

    def get_state(self) -> np.ndarray:
        """:return: (1 + nq + nv,) float64: time in s, qpos, qvel"""
        return np.concatenate([[self.data.time], self.data.qpos, self.data.qvel])

    @property
    def model_xml(self) -> str:
        """:return: the model of this episode, with paths of meshes that begin at robosuite's folder"""
        xml = self.env.model.get_xml() if self._loaded_xml is None else self._loaded_xml
        return re.sub(r'file="[^"]*?/(robosuite/models/assets/)', r'file="\1', xml)

    def set_state(self, state: np.ndarray, model_xml: str | None = None) -> None:
        """
        Go to a recorded state as to an episode's start: the gripper's command is neutral and the arm's present posture
        is the one that the null space holds.

        :param state: (1 + nq + nv,) as :meth:`get_state` gives it
        :param model_xml: the model that it was recorded with; None means the present one
        :raises ValueError: the state's length is not the model's
        """
        env = self.env
        with quiet_robosuite():
            if model_xml is None or model_xml == self.model_xml:
                env.deterministic_reset = True
                env.reset()
                env.deterministic_reset = False
            else:
                env.reset_from_xml_string(model_xml)
                self._loaded_xml = model_xml
        expected = 1 + self.model.nq + self.model.nv
        if np.shape(state) != (expected,):
            raise ValueError(
                f"`state` has shape {np.shape(state)}, this model wants ({expected},) = [time, qpos ({self.model.nq}), "
                f"qvel ({self.model.nv})]. A state of another task or robosuite version needs its own `model_xml`."
            )
        env.sim.set_state_from_flattened(np.asarray(state, dtype=np.float64))
        arm = env.robots[0].composite_controller.part_controllers["right"]
        arm.update_initial_joints(self.data.qpos[arm.qpos_index])
        self._control = self._control_period(env)

    def _resize_cube(self, half_edges_m: np.ndarray) -> None:
        """What the model's compiler would write for a cube of this size (half edges x, y, z)."""
        model, cube = self.model, self.env.cube
        body = model.body(cube.root_body).id
        geoms = np.flatnonzero(model.geom_bodyid == body)
        x, y, z = half_edges_m
        model.geom_size[geoms] = half_edges_m
        model.geom_aabb[geoms, 3:] = half_edges_m
        model.geom_rbound[geoms] = np.sqrt(x * x + y * y + z * z)
        model.bvh_aabb[model.body_bvhadr[body], 3:] = half_edges_m
        mass = CUBE_DENSITY_KG_M3 * (8 * x * y * z)
        model.body_mass[body] = mass
        model.body_inertia[body] = mass * np.array([y * y + z * z, x * x + z * z, x * x + y * y]) / 3
        self._mujoco.mj_setConst(model, self.data)
        for geom in self.env.model.worldbody.iter("geom"):
            if geom.get("name") in cube.contact_geoms + cube.visual_geoms:
                geom.set("size", " ".join(str(float(value)) for value in half_edges_m))
        cube.size = list(half_edges_m)
