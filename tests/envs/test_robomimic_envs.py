"""The robomimic tasks: the physics of robosuite itself, observations, ends of episodes, seeds, states and errors."""

import json
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gym_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import SubprocVecEnv

import sb3_q2rl.envs  # noqa: F401

pytest.importorskip("robosuite", reason="needs the extra `robosuite`")

from sb3_q2rl.envs.robomimic import OBSERVATION_KEYS, RobomimicEnv, observation_slices
from sb3_q2rl.envs.robosuite_fast import import_robosuite, warn_if_untested

HUMAN_DEMONSTRATIONS = Path(__file__).parents[3] / "shared/data/lift_human/lift_robosuite3_mit_low_dim.hdf5"
TASKS = ["Lift", "Can", "Square"]
NO_ACTION = np.zeros(7, np.float32)


@pytest.fixture(params=TASKS, scope="module")
def env(request: pytest.FixtureRequest) -> Iterator[RobomimicEnv]:
    env = make(f"Robomimic{request.param}-v0")
    yield env
    env.close()


@pytest.fixture(scope="module")
def lift() -> Iterator[RobomimicEnv]:
    env = make("RobomimicLift-v0")
    yield env
    env.close()


def make(env_id: str, **kwargs: Any) -> RobomimicEnv:
    env = gym.make(env_id, **kwargs).unwrapped
    assert isinstance(env, RobomimicEnv)
    return env


def make_lift() -> gym.Env:
    return gym.make("RobomimicLift-v0")


def plain_robosuite(env: RobomimicEnv, seed: int, **kwargs: Any) -> Any:
    """The same episode in an environment of robosuite that compiles its model anew, as it does by default."""
    plain = import_robosuite().make(env.task.robosuite_name, **{**env.env_args["env_kwargs"], **kwargs})
    plain.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
    plain.reset()
    return plain


def solved_state(env: RobomimicEnv) -> np.ndarray:
    """The cube in the air; the can over its compartment; the nut around its peg: the next step succeeds."""
    env.reset(seed=0)
    state, model = env.get_state(), env.simulator.model
    landmark, height_m = {"Lift": ("cube_main", 0.2), "Can": ("VisualCan_main", 0.05), "Square": ("peg1", 0.005)}[
        env.task.name
    ]
    position = env.pose(landmark).position_m
    position[2] += height_m
    address = model.jnt_qposadr[model.body_jntadr[model.body(env.task.object_body).id]]
    state[1 + address : 1 + address + 3] = position
    return state


def test_checkers_are_silent(env: RobomimicEnv) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(env)
        gym_check_env(env, skip_render_check=True)
    assert env.observation_space.shape == (19 if env.task.name == "Lift" else 23,)
    assert env.observation_space.dtype == np.float32


def test_trajectories_are_those_of_robosuite(env: RobomimicEnv) -> None:
    """A hundred actions that also press the hand upon the table, after robosuite's own reset."""
    env.reset(seed=99)
    first, _ = env.reset(seed=7)
    plain = plain_robosuite(env, seed=7)
    rng = np.random.default_rng(7)
    actions = rng.uniform(-1, 1, (100, 7))
    actions[50:, 2] = -1.0
    assert np.array_equal(env.get_state(), plain.sim.get_state().flatten())
    for action in actions:
        observation, reward, _, _, _ = env.step(action)
        readings, plain_reward, _, _ = plain.step(action)
        np.testing.assert_allclose(env.get_state(), plain.sim.get_state().flatten(), rtol=0, atol=1e-10)
        assert reward == 5 * plain_reward - 1
        for key in OBSERVATION_KEYS[1:]:
            reading = readings[key]
            np.testing.assert_allclose(observation[observation_slices(env.task.name)[key]], reading, atol=1e-6)
    assert not np.allclose(first, observation)
    plain.close()


def test_the_kept_model_is_the_one_that_robosuite_compiles(env: RobomimicEnv) -> None:
    """Each field, for the second episode too: in Lift the cube has another size then."""
    env.reset(seed=5)
    env.reset(seed=6)
    plain = plain_robosuite(env, seed=6)
    ours, theirs = env.simulator.model, plain.sim.model._model
    names = [name for name in dir(ours) if isinstance(getattr(ours, name, None), np.ndarray)]
    assert len(names) > 200
    for name in names:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-12, err_msg=name)
    assert ours.stat.meaninertia == pytest.approx(theirs.stat.meaninertia, rel=1e-12)
    import mujoco

    compiled = mujoco.MjModel.from_xml_string(plain.edit_model_xml(env.model_xml))
    np.testing.assert_array_equal(compiled.body_mass, theirs.body_mass)
    plain.close()


def test_observation_is_robosuites_named_readings_in_our_order(env: RobomimicEnv) -> None:
    observation, _ = env.reset(seed=3)
    plain = plain_robosuite(env, seed=3)
    plain._get_observations(force_update=True)  # its relative poses are those of the reading before
    readings = plain._get_observations(force_update=True)
    slices = observation_slices(env.task.name)
    for name in slices:
        reading = readings["object-state" if name == "object" else name]
        np.testing.assert_allclose(observation[slices[name]], reading, atol=2e-6, err_msg=name)
    assert list(env.named_observation()) == list(OBSERVATION_KEYS)
    np.testing.assert_array_equal(np.concatenate(list(env.named_observation().values())), observation)
    plain.close()


def test_slices_are_documented_and_whole() -> None:
    assert observation_slices("Lift") == {
        "object": slice(0, 10),
        "cube_pos": slice(0, 3),
        "cube_quat": slice(3, 7),
        "gripper_to_cube_pos": slice(7, 10),
        "robot0_eef_pos": slice(10, 13),
        "robot0_eef_quat": slice(13, 17),
        "robot0_gripper_qpos": slice(17, 19),
    }
    assert list(observation_slices("Can"))[:3] == ["object", "Can_to_robot0_eef_pos", "Can_to_robot0_eef_quat"]
    assert observation_slices("Square")["robot0_gripper_qpos"] == slice(21, 23)


@pytest.mark.parametrize(("task", "horizon"), [("Lift", 300), ("Can", 300), ("Square", 500)])
def test_time_limit_is_registered(task: str, horizon: int) -> None:
    for suffix in ("", "Image"):
        spec = gym.spec(f"Robomimic{task}{suffix}-v0")
        assert spec.max_episode_steps == horizon


def test_failure_is_a_truncation_at_the_limit() -> None:
    env = gym.make("RobomimicLift-v0", max_episode_steps=3)
    env.reset(seed=0)
    for step in (1, 2, 3):
        observation, reward, terminated, truncated, info = env.step(NO_ACTION)
        assert (reward, terminated, truncated, info["is_success"]) == (-1.0, False, step == 3, False)
        assert env.observation_space.contains(observation)
    env.close()


def test_success_terminates_with_the_positive_reward(env: RobomimicEnv) -> None:
    env.set_state(solved_state(env))
    _, reward, terminated, truncated, info = env.step(NO_ACTION)
    assert (reward, terminated, truncated, info) == (4.0, True, False, {"is_success": True})
    assert isinstance(reward, float)
    assert isinstance(terminated, bool)


def test_seeded_episodes_reproduce_and_differ_between_seeds(env: RobomimicEnv) -> None:
    def rollout(seed: int) -> np.ndarray:
        first, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        steps = [env.step(env.action_space.sample())[0] for _ in range(4)]
        second, _ = env.reset()
        return np.stack([first, *steps, second])

    assert np.array_equal(rollout(3), rollout(3))
    assert not np.allclose(rollout(3)[0], rollout(4)[0])
    assert not np.allclose(rollout(3)[0], rollout(3)[-1]), "a reset without a seed must go on, not start again"


def test_a_recorded_start_replays_elsewhere(env: RobomimicEnv) -> None:
    """State, model and actions reach another environment; robosuite remembers one reading of the reset, hence 1e-4."""
    env.reset(seed=21)
    start, xml = env.get_state(), env.model_xml
    assert str(Path.home()) not in xml
    assert str(Path(sys.prefix)) not in xml
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 7))
    expected = [env.step(action)[0] for action in actions]
    other = RobomimicEnv(env.task.name)
    other.reset(seed=1)
    other.set_state(start, xml)
    replayed = [other.step(action)[0] for action in actions]
    np.testing.assert_allclose(replayed, expected, atol=1e-4)
    # and back to the task's own model
    np.testing.assert_array_equal(other.reset(seed=2)[0], env.reset(seed=2)[0])
    np.testing.assert_array_equal(other.step(actions[0])[0], env.step(actions[0])[0])
    other.close()


def test_human_demonstrations_play_back(lift: RobomimicEnv) -> None:
    """Recorded by people in robosuite 1.4, with observations that robosuite 1.5 computed of the recorded states."""
    if not HUMAN_DEMONSTRATIONS.exists():
        pytest.skip("the human Lift demonstrations are not beside the repository")
    import h5py

    successes = 0
    with h5py.File(HUMAN_DEMONSTRATIONS) as file:
        for demo in file["data"].values():
            states = demo["states"][:]
            lift.set_state(states[0], demo.attrs["model_file"])
            for row in (0, len(states) // 2, len(states) - 1):
                observation = lift.set_state(states[row])
                recorded = np.concatenate([demo["obs"][key][row] for key in OBSERVATION_KEYS])
                np.testing.assert_allclose(observation, recorded, atol=1e-5)
            lift.set_state(states[0])
            successes += any([lift.step(action)[4]["is_success"] for action in demo["actions"]])
    assert successes == 2


def test_env_args_make_robosuites_own_environment(lift: RobomimicEnv) -> None:
    arguments = json.loads(json.dumps(lift.env_args))
    assert {key: arguments[key] for key in ("env_name", "type")} == {"env_name": "Lift", "type": 1}
    plain = import_robosuite().make(arguments["env_name"], **arguments["env_kwargs"])
    assert plain.action_dim == 7
    plain.close()


def test_poses_by_name(lift: RobomimicEnv) -> None:
    observation, _ = lift.reset(seed=0)
    slices = observation_slices("Lift")
    hand, cube = lift.pose("gripper0_right_grip_site"), lift.pose("cube_main")
    np.testing.assert_allclose(cube.position_m - hand.position_m, observation[slices["gripper_to_cube_pos"]], atol=1e-6)
    np.testing.assert_allclose(hand.rotation @ hand.rotation.T, np.eye(3), atol=1e-9)
    with pytest.raises(KeyError, match=r"'cup' is neither a site .*grip_site.* nor a body .*cube_main"):
        lift.pose("cup")


def test_pickle_keeps_the_arguments() -> None:
    env = make("RobomimicLift-v0", reward_scale=2.0, reward_bias=1.0)
    copy = pickle.loads(pickle.dumps(env))
    copy.reset(seed=0)
    assert copy.step(NO_ACTION)[1] == 1.0
    np.testing.assert_array_equal(copy.reset(seed=5)[0], env.reset(seed=5)[0])
    env.close()
    copy.close()


def test_runs_in_subprocesses() -> None:
    envs = SubprocVecEnv([make_lift, make_lift])
    envs.seed(5)
    observations = envs.reset()
    assert isinstance(observations, np.ndarray)
    assert observations.shape == (2, 19)
    assert not np.allclose(observations[0], observations[1])
    _, rewards, _, infos = envs.step(np.zeros((2, 7), np.float32))
    assert rewards.tolist() == [-1.0, -1.0]
    assert [info["is_success"] for info in infos] == [False, False]
    envs.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "Stack"}, "`task` 'Stack' is not known. Tasks: Lift, Can, Square"),
        ({"task": "Lift", "render_mode": "ansi"}, "`render_mode` must be None, 'rgb_array' or 'human', got 'ansi'"),
    ],
)
def test_wrong_arguments(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RobomimicEnv(**kwargs)


@pytest.mark.parametrize("action", [np.zeros(6), np.full(7, np.nan)])
def test_wrong_actions(lift: RobomimicEnv, action: np.ndarray) -> None:
    lift.reset(seed=0)
    with pytest.raises(ValueError, match="`action` must be 7 finite numbers"):
        lift.step(action)


def test_state_of_another_task(lift: RobomimicEnv) -> None:
    lift.reset(seed=0)
    with pytest.raises(ValueError, match=r"`state` has shape \(9,\), this model wants \(32,\).*`model_xml`"):
        lift.set_state(np.zeros(9))


def test_missing_robosuite_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(ImportError, match=r"sb3_q2rl\[robosuite\]"):
        gym.make("RobomimicLift-v0")


def test_missing_opengl_names_the_packages() -> None:
    """A machine whose loader finds neither EGL nor OSMesa. States need OpenGL only where MUJOCO_GL asks for it."""
    program = (
        "import ctypes\n"
        "load = ctypes.CDLL.__init__\n"
        "def refuse(self, name, *args, **kwargs):\n"
        "    if 'EGL' in str(name) or 'OSMesa' in str(name):\n"
        "        raise OSError(f'{name}: cannot open shared object file')\n"
        "    load(self, name, *args, **kwargs)\n"
        "ctypes.CDLL.__init__ = refuse\n"
        "import gymnasium, sb3_q2rl.envs\n"
        "gymnasium.make('RobomimicLift-v0')\n"
        "print('states')\n"
        "gymnasium.make('RobomimicLiftImage-v0')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    packages = "libegl1 libegl-mesa0 libgl1-mesa-dri"
    for choice, made, message in (({}, "states\n", "Camera images"), ({"MUJOCO_GL": "osmesa"}, "", "not be imported")):
        result = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment, **choice},
            capture_output=True,
            text=True,
            timeout=120,
        )
        last_line = result.stderr.splitlines()[-1]
        assert result.stdout == made
        assert last_line.startswith("RuntimeError")
        assert message in last_line
        assert packages in last_line


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        (("1.4.1", "3.9.0"), "robosuite 1.4.1 .*signs of observations"),
        (("1.5.2", "3.10.0"), "mujoco 3.10.0 .*mujoco>=3.3,<3.10"),
        (("1.5.2", "3.2.7"), "mujoco 3.2.7"),
    ],
)
def test_untested_versions_warn(versions: tuple[str, str], reason: str) -> None:
    with pytest.warns(UserWarning, match=reason):
        warn_if_untested(*versions)


def test_tested_versions_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_untested("1.5.2", "3.9.0")
        warn_if_untested("1.5.10", "3.3.7")


def test_importing_is_lazy_and_playing_is_quiet() -> None:
    """A fresh interpreter: registration imports no simulator, and neither making nor playing prints anything."""
    program = (
        "import sys, gymnasium, sb3_q2rl.envs\n"
        "assert not {'mujoco', 'robosuite', 'numba'} & set(sys.modules)\n"
        "env = gymnasium.make('RobomimicLift-v0')\n"
        "env.reset(seed=0)\n"
        "env.step(env.action_space.sample())\n"
        "env.unwrapped.set_state(env.unwrapped.get_state(), env.unwrapped.model_xml + ' ')\n"
        "env.reset()\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
