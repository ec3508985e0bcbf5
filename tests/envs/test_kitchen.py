"""FrankaKitchenComplete: flat observation, rewards of finished sub-tasks, ends of episodes, seeds."""

import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gym_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import SubprocVecEnv

import sb3_q2rl.envs  # noqa: F401

pytest.importorskip("gymnasium_robotics", reason="needs the extra `d4rl`")

from sb3_q2rl.envs.d4rl import FrankaKitchenCompleteEnv

KITCHEN = "FrankaKitchenComplete-v0"
NO_ACTION = np.zeros(9, np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[FrankaKitchenCompleteEnv]:
    env = gym.make(KITCHEN).unwrapped
    assert isinstance(env, FrankaKitchenCompleteEnv)
    yield env
    env.close()


def make_kitchen() -> gym.Env:
    return gym.make(KITCHEN)


def finish(env: FrankaKitchenCompleteEnv, subtask: str) -> None:
    """Put the object where the simulator's own table of goals wants it."""
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES

    simulator = env.simulator
    qpos = simulator.data.qpos.copy()
    qpos[OBS_ELEMENT_INDICES[subtask]] = OBS_ELEMENT_GOALS[subtask]
    simulator.robot_env.set_state(qpos, np.zeros_like(simulator.data.qvel))


def test_checkers_are_silent(env: FrankaKitchenCompleteEnv) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(env)
        gym_check_env(env, skip_render_check=True)
    assert env.observation_space.shape == (59,)
    assert env.observation_space.dtype == np.float32
    assert env.action_space.shape == (9,)
    assert env.action_space.dtype == np.float32


def test_observation_is_arm_then_objects() -> None:
    env = FrankaKitchenCompleteEnv(object_noise_ratio=0.0, robot_noise_ratio=0.0)
    observation, _ = env.reset(seed=0)
    data = env.simulator.data
    expected = np.concatenate([data.qpos[:9], data.qvel[:9], data.qpos[9:], data.qvel[9:]])
    np.testing.assert_allclose(observation, expected, atol=1e-6)
    env.close()


def test_each_finished_subtask_adds_one_and_the_fourth_ends(env: FrankaKitchenCompleteEnv) -> None:
    _, info = env.reset(seed=0)
    assert info == {"is_success": False, "success": 0.0, "finished": []}
    assert env.step(NO_ACTION)[1] == -4.0
    order = ["kettle", "microwave", "slide cabinet", "light switch"]
    for count, subtask in enumerate(order, start=1):
        finish(env, subtask)
        _, reward, terminated, truncated, info = env.step(NO_ACTION)
        assert (reward, terminated, truncated) == (count - 4.0, count == 4, False)
        assert info == {"is_success": count == 4, "success": count / 4, "finished": order[:count]}
        assert isinstance(reward, float)
    _, info = env.reset(seed=0)
    assert info["finished"] == []
    assert env.step(NO_ACTION)[1] == -4.0


def test_a_subtask_that_is_undone_stays_finished(env: FrankaKitchenCompleteEnv) -> None:
    env.reset(seed=0)
    closed = env.simulator.data.qpos.copy()
    finish(env, "microwave")
    assert env.step(NO_ACTION)[1] == -3.0
    env.simulator.robot_env.set_state(closed, np.zeros_like(env.simulator.data.qvel))
    assert env.step(NO_ACTION)[1] == -3.0
    finish(env, "microwave")
    assert env.step(NO_ACTION)[1] == -3.0, "and counts once"


def test_named_observation_is_the_one_that_was_returned(env: FrankaKitchenCompleteEnv) -> None:
    """Not a second look, whose noise would be another, and would shift that of the steps to come."""
    first, _ = env.reset(seed=0)
    np.testing.assert_array_equal(env.named_observation()["flat"], first)
    env.named_observation()["flat"][:] = 0.0
    first[:] = 0.0
    assert env.named_observation()["flat"].any()
    second = env.step(NO_ACTION)[0]
    np.testing.assert_array_equal(env.named_observation()["flat"], second)


def test_state_is_time_positions_velocities(env: FrankaKitchenCompleteEnv) -> None:
    env.reset(seed=0)
    data = env.simulator.data
    before = env.get_state()
    assert before[0] == 0.0
    env.step(np.full(9, 0.5, np.float32))
    after = env.get_state()
    assert after[0] == pytest.approx(env.simulator.robot_env.dt)
    np.testing.assert_array_equal(after[1:], np.concatenate([data.qpos, data.qvel]))
    assert not np.array_equal(before[1:], after[1:])
    n_positions = len(data.qpos)
    env.simulator.robot_env.set_state(before[1 : 1 + n_positions], before[1 + n_positions :])
    np.testing.assert_array_equal(env.get_state()[1:], before[1:])


def test_env_args_make_the_same_environment() -> None:
    env = FrankaKitchenCompleteEnv(reward_scale=2.0, object_noise_ratio=0.0)
    arguments = json.loads(json.dumps(env.env_args))
    assert arguments["type"] == 2
    again = gym.make(arguments["env_name"], **arguments["env_kwargs"])
    np.testing.assert_array_equal(again.reset(seed=0)[0], env.reset(seed=0)[0])
    assert again.step(NO_ACTION)[1] == env.step(NO_ACTION)[1]
    assert again.unwrapped.env_args == env.env_args  # type: ignore[attr-defined]
    env.close()
    again.close()


def test_time_limit_is_a_truncation() -> None:
    spec = gym.spec(KITCHEN)
    assert spec.max_episode_steps == 280
    env = gym.make(KITCHEN, max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(NO_ACTION)[2:4] == (False, False)
    assert env.step(NO_ACTION)[2:4] == (False, True)
    env.close()


def test_reward_scale_and_bias_are_kwargs() -> None:
    env = FrankaKitchenCompleteEnv(reward_scale=2.0, reward_bias=1.0)
    copy = pickle.loads(pickle.dumps(env))
    copy.reset(seed=0)
    finish(copy, "kettle")
    assert copy.step(NO_ACTION)[1] == 3.0
    env.close()
    copy.close()


def test_seeded_episodes_reproduce_and_differ_between_seeds(env: FrankaKitchenCompleteEnv) -> None:
    def rollout(seed: int) -> np.ndarray:
        first, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        steps = [env.step(env.action_space.sample())[0] for _ in range(3)]
        return np.stack([first, *steps, env.reset()[0]])

    assert np.array_equal(rollout(3), rollout(3))
    assert not np.array_equal(rollout(3)[0], rollout(4)[0])
    assert not np.array_equal(rollout(3)[0], rollout(3)[-1]), "a reset without a seed must go on, not start again"


def test_runs_in_subprocesses() -> None:
    envs = SubprocVecEnv([make_kitchen])
    envs.seed(0)
    assert envs.reset().shape == (1, 59)  # type: ignore[union-attr]
    assert envs.step(np.zeros((1, 9), np.float32))[1].tolist() == [-4.0]
    envs.close()


def test_renders_the_scene() -> None:
    try:
        env = FrankaKitchenCompleteEnv(render_mode="rgb_array", width=160, height=120)
        env.reset(seed=0)
        image = env.render()
    except Exception as error:
        pytest.skip(f"no OpenGL on this machine: {error}")
    assert image is not None
    assert image.shape == (120, 160, 3)
    assert image.std() > 5, "the picture is blank"
    env.close()


def test_missing_simulator_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(ImportError, match=r"sb3_q2rl\[d4rl\]"):
        gym.make(KITCHEN)


def test_making_and_playing_is_quiet() -> None:
    program = (
        "import gymnasium, sb3_q2rl.envs\n"
        f"env = gymnasium.make({KITCHEN!r})\n"
        "env.reset(seed=0)\n"
        "env.step(env.action_space.sample())\n"
        "env.close()\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
