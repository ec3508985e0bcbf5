"""Recorded demonstrations of the kitchen: what the file says is what the environment does again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest

import sb3_q2rl.envs  # noqa: F401

pytest.importorskip("gymnasium_robotics", reason="needs the extra `d4rl`")

from sb3_q2rl.__main__ import main
from sb3_q2rl.bc.readers.robomimic_import import import_robomimic
from sb3_q2rl.data.demonstrations import Demonstrations
from sb3_q2rl.demos import EXPERTS, record_demonstrations
from sb3_q2rl.demos.expert import Actions, Expert, Operator
from sb3_q2rl.demos.kitchen import CLOSE, Hand, Things, open_microwave
from sb3_q2rl.demos.play import play
from sb3_q2rl.envs.d4rl import FrankaKitchenCompleteEnv

KITCHEN = "FrankaKitchenComplete-v0"
N_DEMOS = 2


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demos") / "kitchen.hdf5"
    record_demonstrations(KITCHEN, path, N_DEMOS, noise=0.1, seed=3, progress_bar=False)
    return path


@pytest.fixture(scope="module")
def env() -> Iterator[gym.Env]:
    env = gym.make(KITCHEN, max_episode_steps=1)
    yield env
    env.close()


def only_the_microwave(env: FrankaKitchenCompleteEnv, operator: Operator) -> Actions:
    hand = Hand(env, operator)
    yield from open_microwave(hand, Things(env), operator)
    while True:
        yield from hand.wait(hand.grip, CLOSE, n_steps=1)


def test_layout(recorded: Path) -> None:
    with h5py.File(recorded) as file:
        arguments = json.loads(file["data"].attrs["env_args"])
        assert (arguments["env_name"], arguments["type"]) == (KITCHEN, 2)
        for demo in file["data"].values():
            n_steps = demo.attrs["num_samples"]
            assert "model_file" not in demo.attrs
            assert demo["actions"].shape == (n_steps, 9)
            assert demo["states"].shape == (n_steps, 1 + 30 + 29)
            assert list(demo["obs"]) == list(demo["next_obs"]) == ["flat"]
            np.testing.assert_array_equal(demo["obs/flat"][1:], demo["next_obs/flat"][:-1])
            np.testing.assert_array_equal(demo["dones"], np.eye(n_steps)[-1])


def test_the_seed_and_the_actions_make_the_episode_again(recorded: Path) -> None:
    """States, observations with their noise, and rewards: the recorded ones are those before scale and bias."""
    with h5py.File(recorded) as file:
        arguments = json.loads(file["data"].attrs["env_args"])
        demo = file["data/demo_1"]
        env = gym.make(arguments["env_name"], **arguments["env_kwargs"])
        observation, _ = env.reset(seed=int(demo.attrs["seed"]))
        data = env.unwrapped.simulator.data  # type: ignore[attr-defined]
        finished = []
        for row, action in enumerate(demo["actions"][:]):
            np.testing.assert_array_equal(demo["obs/flat"][row], observation)
            np.testing.assert_array_equal(demo["states"][row], np.concatenate([[data.time], data.qpos, data.qvel]))
            observation, reward, terminated, _, info = env.step(action)
            finished.append(len(info["finished"]))
            assert reward == finished[-1] - 4
        assert terminated
        np.testing.assert_array_equal(demo["next_obs/flat"][-1], observation)
        np.testing.assert_array_equal(demo["rewards"], finished)
        assert set(finished) == {0, 1, 2, 3, 4}
        env.close()


def test_noise_moves_the_arm_and_leaves_the_fingers(env: gym.Env) -> None:
    calm, noisy = (play(env, EXPERTS[KITCHEN], 5, noise).actions[0] for noise in (0.0, 0.01))
    assert (calm[:7] != noisy[:7]).all()
    assert np.abs(calm[:7] - noisy[:7]).max() < 0.05
    np.testing.assert_array_equal(calm[7:], noisy[7:])


def test_our_reader(recorded: Path) -> None:
    demonstrations = Demonstrations.load(recorded)
    assert (demonstrations.n_episodes, demonstrations.source) == (N_DEMOS, "scripted")
    assert demonstrations.observations.shape[1:] == (59,)  # type: ignore[union-attr]
    np.testing.assert_array_equal(np.flatnonzero(demonstrations.terminated), demonstrations.episode_ends - 1)
    assert (demonstrations.rewards[demonstrations.terminated] == 4).all()


def test_robomimics_dataset_class(recorded: Path) -> None:
    try:
        import_robomimic()
    except ImportError:
        pytest.skip("needs the extra `robomimic`")
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["flat"], "rgb": []}})
    keys = ("actions", "rewards", "dones")
    dataset = SequenceDataset(str(recorded), obs_keys=("flat",), dataset_keys=keys, seq_length=3, hdf5_cache_mode="all")
    with h5py.File(recorded) as file:
        demo = file["data/demo_0"]
        assert len(dataset) == file["data"].attrs["total"]
        item = dataset[demo.attrs["num_samples"] - 3]
        for key in keys:
            np.testing.assert_array_equal(item[key], demo[key][-3:])
        np.testing.assert_array_equal(item["obs"]["flat"], demo["obs/flat"][-3:])


def test_a_failure_with_finished_subtasks_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERTS, KITCHEN, Expert(only_the_microwave, arm_dim=7))
    path = tmp_path / "kitchen.hdf5"
    result = record_demonstrations(KITCHEN, path, 1, noise=0.0, keep_failures=True, progress_bar=False)
    assert (result.n_successes, result.n_steps) == (0, 280)
    demonstrations = Demonstrations.load(path)
    assert demonstrations.rewards[-1] == 1
    assert demonstrations.truncated[-1]
    assert not demonstrations.terminated.any()


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demos", "--env", KITCHEN, "--episodes", "1", "--noise", "0", "--check"]) == 0
    assert "success 1.00 [0.21, 1.00] of 1 episodes (95 % interval), in " in capsys.readouterr().out
