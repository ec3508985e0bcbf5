"""The Adroit tasks: rewards, ends of episodes, seeds, pickling, and the door demonstrations replayed."""

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

pytest.importorskip("gymnasium_robotics", reason="needs the extra `d4rl`")

DOOR, PEN = "AdroitHandDoorBinary-v0", "AdroitHandPenBinary-v0"
HUMAN_DEMONSTRATIONS = Path(__file__).parents[3] / "shared/data/adroit_door_human/door_human_25.npz"


@pytest.fixture(params=[DOOR, PEN])
def env(request: pytest.FixtureRequest) -> Iterator[gym.Env]:
    env = gym.make(request.param)
    yield env
    env.close()


def make_door() -> gym.Env:
    return gym.make(DOOR)


def solved_state(env: gym.Env) -> dict[str, np.ndarray]:
    """A door that stands open (hinge at 1.5 rad), or a goal with the pen's own orientation: the next step succeeds."""
    env.reset(seed=0)
    state = env.unwrapped.get_env_state()  # type: ignore[attr-defined]
    if "door_body_pos" in state:
        state["qpos"][28] = 1.5
    else:
        state["desired_orien"] = np.array([1.0, 0.0, 1.0, 0.0]) / np.sqrt(2)  # z axis to x, where the pen lies
    return state


@pytest.mark.parametrize(("env_id", "shapes"), [(DOOR, (39, 28)), (PEN, (45, 24))])
def test_checkers_are_silent(env_id: str, shapes: tuple[int, int]) -> None:
    env = gym.make(env_id).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(env)
        gym_check_env(env, skip_render_check=True)
    assert env.observation_space.shape == (shapes[0],)
    assert env.observation_space.dtype == np.float32
    assert env.action_space.shape == (shapes[1],)
    env.close()


def test_failure_is_a_truncation_at_the_published_horizon(env: gym.Env) -> None:
    env.reset(seed=0)
    env.action_space.seed(0)
    assert env.spec is not None
    horizon = {DOOR: 200, PEN: 100}[env.spec.id]
    for step in range(1, horizon + 1):
        # A clenched fist neither opens the door nor turns the pen by accident
        observation, reward, terminated, truncated, info = env.step(np.ones(env.action_space.shape, np.float32))
        assert (reward, terminated, truncated) == (-5.0, False, step == horizon)
        assert info["is_success"] is False
        assert env.observation_space.contains(observation)


def test_success_terminates_with_the_positive_reward(env: gym.Env) -> None:
    env.reset(options={"initial_state_dict": solved_state(env)})
    _, reward, terminated, truncated, info = env.step(np.zeros(env.action_space.shape, np.float32))
    assert (reward, terminated, truncated, info["is_success"]) == (5.0, True, False, True)
    assert isinstance(reward, float)
    assert isinstance(info["is_success"], bool)


def test_reward_scale_and_bias_are_kwargs() -> None:
    env = gym.make(DOOR, reward_scale=1.0, reward_bias=0.0)
    state = solved_state(env)
    assert env.step(np.zeros(28, np.float32))[1] == -1.0
    env.reset(options={"initial_state_dict": state})
    assert env.step(np.zeros(28, np.float32))[1] == 0.0
    env.close()


def test_seeded_episodes_reproduce_and_differ_between_seeds(env: gym.Env) -> None:
    def rollout(seed: int) -> np.ndarray:
        first, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        steps = [env.step(env.action_space.sample())[0] for _ in range(5)]
        second, _ = env.reset()
        return np.stack([first, *steps, second])

    assert np.array_equal(rollout(3), rollout(3))
    assert not np.allclose(rollout(3)[0], rollout(4)[0])
    assert not np.allclose(rollout(3)[0], rollout(3)[-1]), "a reset without a seed must go on, not start again"


def test_initial_state_is_restored(env: gym.Env) -> None:
    simulator: Any = env.unwrapped
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(10):
        env.step(env.action_space.sample())
    state = simulator.get_env_state()
    futures = []
    for seed in (2, 3):
        env.reset(seed=seed)
        env.reset(options={"initial_state_dict": state})
        restored = simulator.get_env_state()
        assert all(np.array_equal(restored[name], state[name]) for name in state)
        futures.append(env.step(np.zeros(env.action_space.shape, np.float32))[0])
    np.testing.assert_allclose(futures[0], futures[1], atol=1e-5)


def test_pickle_keeps_the_arguments_and_the_sparse_reward() -> None:
    env = gym.make(DOOR, reward_scale=2.0, reward_bias=1.0).unwrapped
    copy = pickle.loads(pickle.dumps(env))
    copy.reset(seed=0)
    assert copy.step(np.zeros(28, np.float32))[1] == -1.0
    env.close()
    copy.close()


def test_runs_in_subprocesses() -> None:
    envs = SubprocVecEnv([make_door, make_door])
    envs.seed(5)
    observations = envs.reset()
    assert isinstance(observations, np.ndarray)
    assert observations.shape == (2, 39)
    _, rewards, _, infos = envs.step(np.zeros((2, 28), np.float32))
    assert rewards.tolist() == [-5.0, -5.0]
    assert [info["is_success"] for info in infos] == [False, False]
    envs.close()


def test_renders_the_scene(env: gym.Env) -> None:
    assert env.spec is not None
    try:
        rendering: Any = gym.make(env.spec.id, render_mode="rgb_array", width=160, height=120)
        rendering.reset(seed=0)
        image = rendering.render()
    except Exception as error:
        pytest.skip(f"no OpenGL on this machine: {error}")
    assert image.shape == (120, 160, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5, "the picture is blank"
    rendering.close()


def test_human_demonstrations_replay() -> None:
    """8 of the 25 recorded openings pass the success threshold when their actions are played back open loop."""
    if not HUMAN_DEMONSTRATIONS.exists():
        pytest.skip("the human door demonstrations are not beside the repository")
    env = gym.make(DOOR, max_episode_steps=400)
    with np.load(HUMAN_DEMONSTRATIONS, allow_pickle=False) as data:
        arrays = dict(data)
    keys = {"qpos": "init_qpos", "qvel": "init_qvel", "door_body_pos": "init_door_body_pos"}
    starts = np.concatenate([[0], arrays["episode_ends"][:-1]])
    successes = 0
    for episode, (start, end) in enumerate(zip(starts, arrays["episode_ends"], strict=True)):
        state = {name: arrays[key][episode].astype(np.float64) for name, key in keys.items()}
        env.reset(options={"initial_state_dict": state})
        for action in arrays["actions"][start:end].clip(-1, 1):
            _, _, terminated, _, info = env.step(action)
            if terminated:
                break
        successes += info["is_success"]
    env.close()
    assert successes == 8


def test_missing_simulator_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(ImportError, match=r"sb3_q2rl\[d4rl\]"):
        gym.make(DOOR)


def test_importing_is_lazy_and_making_is_quiet() -> None:
    """A fresh interpreter: registration imports no simulator, and making prints no notice."""
    program = (
        "import sys, gymnasium, sb3_q2rl.envs\n"
        "assert 'mujoco' not in sys.modules and 'gymnasium_robotics' not in sys.modules\n"
        f"gymnasium.make({DOOR!r}).close()\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
