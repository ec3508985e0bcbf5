"""Recorded demonstrations: robomimic's own tools and our reader read them, and they play back."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest

import sb3_q2rl.envs  # noqa: F401

pytest.importorskip("robosuite", reason="needs the extra `robosuite`")

from sb3_q2rl.__main__ import main
from sb3_q2rl.bc.readers.robomimic_import import import_robomimic
from sb3_q2rl.data.demonstrations import Demonstrations
from sb3_q2rl.demos import EXPERTS, record, record_demonstrations
from sb3_q2rl.demos.expert import Actions, Expert, Operator
from sb3_q2rl.envs.robomimic import OBSERVATION_KEYS, RobomimicEnv

LIFT = "RobomimicLift-v0"
HUMAN_DEMONSTRATIONS = Path(__file__).parents[3] / "shared/data/lift_human/lift_robosuite3_mit_low_dim.hdf5"
N_DEMOS = 4


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demos") / "lift.hdf5"
    result = record_demonstrations(LIFT, path, N_DEMOS, noise=0.1, seed=3, progress_bar=False)
    assert (result.path, result.n_episodes) == (path, N_DEMOS)
    assert N_DEMOS <= result.n_successes <= result.n_played
    assert list(path.parent.iterdir()) == [path]
    return path


@pytest.fixture(scope="module")
def lift() -> Iterator[RobomimicEnv]:
    env = RobomimicEnv("Lift")
    env.reset(seed=0)
    yield env
    env.close()


@pytest.fixture
def robomimic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importable; and its environments too, which in robomimic 0.3 want mujoco_py for the name of an exception."""
    try:
        import_robomimic()
    except ImportError:
        pytest.skip("needs the extra `robomimic`")
    stub = types.ModuleType("mujoco_py")
    stub.builder = types.SimpleNamespace(MujocoException=RuntimeError)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mujoco_py", stub)


def idle(env: RobomimicEnv, operator: Operator) -> Actions:
    yield np.zeros(7)


def interrupted(env: RobomimicEnv, operator: Operator) -> Actions:
    yield np.zeros(7)
    raise KeyboardInterrupt


def test_layout(recorded: Path) -> None:
    with h5py.File(recorded) as file:
        data = file["data"]
        assert sorted(data) == [f"demo_{i}" for i in range(N_DEMOS)]
        assert data.attrs["total"] == sum(demo.attrs["num_samples"] for demo in data.values())
        assert json.loads(data.attrs["env_args"])["env_name"] == "Lift"
        for demo in data.values():
            n_steps = demo.attrs["num_samples"]
            for name in ("actions", "states", "rewards", "dones"):
                assert len(demo[name]) == n_steps
            for group in (demo["obs"], demo["next_obs"]):
                assert set(group) == set(OBSERVATION_KEYS)
                assert {len(values) for values in group.values()} == {n_steps}
            for key in OBSERVATION_KEYS:
                np.testing.assert_array_equal(demo["obs"][key][1:], demo["next_obs"][key][:-1])
            assert np.abs(demo["actions"][:]).max() <= 1.0
            expected = np.eye(n_steps)[-1]
            np.testing.assert_array_equal(demo["rewards"], expected)
            np.testing.assert_array_equal(demo["dones"], expected)
            assert demo.attrs["model_file"].startswith("<mujoco")
        masks = {name: [demo.decode() for demo in file["mask"][name]] for name in file["mask"]}
        assert masks == {"train": [f"demo_{i}" for i in range(N_DEMOS - 1)], "valid": [f"demo_{N_DEMOS - 1}"]}


def test_layout_is_that_of_robomimics_own_file(recorded: Path) -> None:
    if not HUMAN_DEMONSTRATIONS.exists():
        pytest.skip("the human Lift demonstrations are not beside the repository")
    with h5py.File(HUMAN_DEMONSTRATIONS) as theirs, h5py.File(recorded) as ours:
        assert set(theirs["data"].attrs) <= set(ours["data"].attrs)
        their_demo, our_demo = next(iter(theirs["data"].values())), ours["data/demo_0"]
        assert {"num_samples", "model_file"} <= set(our_demo.attrs)
        for name in ("actions", "states", "rewards", "dones", *(f"obs/{key}" for key in OBSERVATION_KEYS)):
            assert our_demo[name].shape[1:] == their_demo[name].shape[1:], name


def test_our_reader(recorded: Path) -> None:
    demonstrations = Demonstrations.load(recorded)
    assert demonstrations.n_episodes == N_DEMOS
    assert demonstrations.source == "scripted"
    assert demonstrations.observations.shape[1:] == (19,)  # type: ignore[union-attr]
    np.testing.assert_array_equal(np.flatnonzero(demonstrations.terminated), demonstrations.episode_ends - 1)
    assert Demonstrations.load(recorded, mask="valid").n_episodes == 1


def test_robomimics_dataset_class(recorded: Path, robomimic: None) -> None:
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": list(OBSERVATION_KEYS), "rgb": []}})
    dataset = SequenceDataset(
        str(recorded),
        obs_keys=OBSERVATION_KEYS,
        dataset_keys=("actions", "rewards", "dones"),
        seq_length=5,
        hdf5_cache_mode="all",
        filter_by_attribute="train",
    )
    with h5py.File(recorded) as file:
        demo = file["data/demo_1"]
        start = int(file["data/demo_0"].attrs["num_samples"])
        item = dataset[start + 2]
        np.testing.assert_array_equal(item["actions"], demo["actions"][2:7])
        for key in OBSERVATION_KEYS:
            np.testing.assert_array_equal(item["obs"][key], demo["obs"][key][2:7])
            np.testing.assert_array_equal(item["next_obs"][key], demo["next_obs"][key][2:7])
        train = [file["data"][name.decode()].attrs["num_samples"] for name in file["mask/train"]]
        assert len(dataset) == sum(train)


def test_robomimics_playback(recorded: Path, robomimic: None) -> None:
    """Its own script's function, in the environment that it makes of `env_args`; once by states, then by actions."""
    from robomimic.scripts.playback_dataset import playback_trajectory_with_env
    from robomimic.utils import env_utils, file_utils, obs_utils

    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["robot0_eef_pos"], "rgb": []}})
    meta = file_utils.get_env_metadata_from_dataset(str(recorded))
    env = env_utils.create_env_from_metadata(meta, render=False, render_offscreen=False)
    successes = 0
    with h5py.File(recorded) as file:
        for demo in file["data"].values():
            states, actions = demo["states"][:], demo["actions"][:]
            start = {"states": states[0], "model": demo.attrs["model_file"]}
            playback_trajectory_with_env(env, start, states)
            np.testing.assert_allclose(env.get_state()["states"][1:], states[-1][1:], atol=1e-6)
            playback_trajectory_with_env(env, start, states, actions)
            successes += env.is_success()["task"]
    assert successes >= N_DEMOS - 1


def test_states_play_back(recorded: Path, lift: RobomimicEnv) -> None:
    """Each recorded state shows the recorded observation, and the last action succeeds from the last of them."""
    successes = 0
    with h5py.File(recorded) as file:
        for demo in file["data"].values():
            lift.set_state(demo["states"][0], demo.attrs["model_file"])
            for row in range(0, len(demo["states"]), 7):
                seen = lift.set_state(demo["states"][row])
                noted = np.concatenate([demo["obs"][key][row] for key in OBSERVATION_KEYS])
                # after a step, MuJoCo's positions of bodies are those of its last but one 2 ms
                np.testing.assert_allclose(seen, noted, atol=0.005)
            lift.set_state(demo["states"][-1])
            successes += lift.step(demo["actions"][-1])[2]
    assert successes >= N_DEMOS - 1


def test_actions_play_back(recorded: Path, lift: RobomimicEnv) -> None:
    successes = 0
    with h5py.File(recorded) as file:
        for demo in file["data"].values():
            lift.set_state(demo["states"][0], demo.attrs["model_file"])
            successes += any([lift.step(action)[2] for action in demo["actions"]])
    assert successes >= N_DEMOS - 1


def test_the_seed_makes_the_file(recorded: Path, tmp_path: Path) -> None:
    record_demonstrations(LIFT, tmp_path / "again.hdf5", 1, noise=0.1, seed=3, progress_bar=False)
    record_demonstrations(LIFT, tmp_path / "other.hdf5", 1, noise=0.1, seed=4, progress_bar=False)
    files = [h5py.File(path) for path in (recorded, tmp_path / "again.hdf5", tmp_path / "other.hdf5")]
    first, again, other = (file["data/demo_0/actions"][:] for file in files)
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.allclose(first, other)
    assert list(files[1]["mask/train"]) == [b"demo_0"]
    assert list(files[1]["mask/valid"]) == []


def test_images_are_recorded_with_the_state(tmp_path: Path) -> None:
    try:
        env = gym.make("RobomimicLiftImage-v0")
    except RuntimeError as error:
        pytest.skip(f"no OpenGL here: {error}")
    path = tmp_path / "image.hdf5"
    record_demonstrations("RobomimicLiftImage-v0", path, 1, noise=0.0, seed=0, progress_bar=False)
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        cameras = json.loads(file["data"].attrs["env_args"])["env_kwargs"]["camera_names"]
        assert set(demo["obs"]) == {*OBSERVATION_KEYS, *(f"{camera}_image" for camera in cameras)}
        images = demo["obs/agentview_image"]
        assert (images.shape[1:], images.dtype) == ((84, 84, 3), np.uint8)
        first, _ = env.reset(seed=int(demo.attrs["seed"]))
        np.testing.assert_allclose(images[0].astype(int), first["agentview_image"].astype(int), atol=2)
    env.close()


def test_failures_are_kept_only_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERTS, LIFT, Expert(idle, arm_dim=6))
    monkeypatch.setattr(record, "GIVE_UP_AFTER", 1)
    path = tmp_path / "none.hdf5"
    with pytest.raises(ValueError, match="only 0 of 1 episodes with `noise` 0.3.*Use less noise.*--keep-failures"):
        record_demonstrations(LIFT, path, 1, noise=0.3, progress_bar=False)
    assert list(tmp_path.iterdir()) == []
    record_demonstrations(LIFT, path, 1, noise=0.0, keep_failures=True, progress_bar=False)
    demonstrations = Demonstrations.load(path)
    assert len(demonstrations) == 300
    assert demonstrations.truncated[-1]
    assert not demonstrations.terminated.any()


def test_an_interrupted_recording_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERTS, LIFT, Expert(interrupted, arm_dim=6))
    path = tmp_path / "lift.hdf5"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        record_demonstrations(LIFT, path, 1, progress_bar=False)
    assert [file.name for file in tmp_path.iterdir()] == ["lift.hdf5"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"env_id": "CartPole-v1"}, "`env` 'CartPole-v1' has no scripted expert"),
        ({"n_episodes": 0}, "`n_episodes` is 0: at least one"),
        ({"noise": -0.1}, "`noise` is -0.1: it must be a standard deviation"),
        ({"path": "missing/lift.hdf5"}, r"`path` .*missing/lift.hdf5 cannot be written: No such file or directory"),
        ({"path": "."}, r"`path` .* is a folder. Name a file in it"),
    ],
)
def test_wrong_arguments(tmp_path: Path, changed: dict, message: str) -> None:
    arguments = {"env_id": LIFT, "n_episodes": 1, "path": "lift.hdf5", **changed}
    arguments["path"] = tmp_path / arguments["path"]
    with pytest.raises(ValueError, match=message):
        record_demonstrations(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lift.hdf5"
    assert main(["demos", "--env", LIFT, "--episodes", "1", "--seed", "5", "--output", str(path)]) == 0
    assert f"{path}: 1 demonstrations" in capsys.readouterr().out
    assert path.exists()
    assert main(["demos", "--env", LIFT, "--episodes", "2", "--noise", "0", "--check"]) == 0
    assert "success 1.00 [0.34, 1.00] of 2 episodes (95 % interval), in " in capsys.readouterr().out
    assert main(["demos", "--env", "CartPole-v1", "--check"]) == 1
    assert "error: `env` 'CartPole-v1' has no scripted expert" in capsys.readouterr().err
