"""Checkpoints: whole or not there, whenever the process is killed; a resumed run is the same run."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import VecNormalize
from worlds import HORIZON, WalkHome, gaussian, reach, small_model

from sb3_q2rl import QGatedSAC
from sb3_q2rl.common import checkpoint
from sb3_q2rl.common.checkpoint import CheckpointCallback, latest_checkpoint, resume, save_checkpoint

TOTAL = 700
PHASES = ["collecting", "estimating", "online", "saving"]


def names(directory):
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))


def killable_run(directory, phase, total=TOTAL):
    """One life of a run: from the newest checkpoint, or from the start. Tells through `phase` what it is doing."""
    env = reach(n_envs=2)
    try:
        model = resume(QGatedSAC, directory, env, device="cpu")
    except FileNotFoundError:
        model = small_model(env, gaussian(), n_bc_episodes=16)
    estimate, flush = QGatedSAC._estimate, checkpoint._flush

    def told_estimate(*args):
        phase.value = PHASES.index("estimating")
        estimate(*args)
        phase.value = PHASES.index("online")

    def slow_flush(path):
        before, phase.value = phase.value, PHASES.index("saving")
        time.sleep(0.01)  # a wider door for the kill
        flush(path)
        phase.value = before

    # On the class: what hangs on the model would be saved with it
    QGatedSAC._estimate = told_estimate  # type: ignore[method-assign]
    checkpoint._flush = slow_flush
    phase.value = PHASES.index("online" if model.has_started else "collecting")
    model.learn(total - model.num_timesteps, CheckpointCallback(directory, save_freq=30), reset_num_timesteps=False)
    model.save(directory / "final")


@pytest.fixture(scope="module")
def server():
    """Processes that start in no time: the server has imported everything, also what torch's optimizers import late."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sb3_q2rl", "torch._dynamo"])
    return context


@pytest.mark.parametrize("phase_name", PHASES)
def test_killed_at_random_moments_and_resumed(tmp_path, server, phase_name):
    rng = np.random.default_rng(PHASES.index(phase_name))
    phase = server.Value("i", -1)
    steps_before = 0
    kills = 0
    for _ in range(4):
        phase.value = -1
        process = server.Process(target=killable_run, args=(tmp_path, phase), daemon=True)
        process.start()
        deadline = time.monotonic() + 60
        while phase.value != PHASES.index(phase_name) and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02 if phase_name == "saving" else 0.3))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        # Whatever is there under a checkpoint's name is whole, and progress is never lost
        for path in tmp_path.glob("step_*"):
            checkpoint._verify(path)
        if names(tmp_path):
            step = int(latest_checkpoint(tmp_path).name.removeprefix("step_"))
            assert step >= steps_before
            steps_before = step
        if (tmp_path / "final.zip").exists():
            break
    assert kills >= 1
    process = server.Process(target=killable_run, args=(tmp_path, phase), daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode == 0
    final = QGatedSAC.load(tmp_path / "final", device="cpu")
    assert final.has_started
    assert final.num_timesteps == TOTAL
    assert not list(tmp_path.glob(".partial_*")), "leftovers of the killed ones are swept up"
    assert len(list(tmp_path.glob("step_*"))) == 2


def started(env, **kwargs):
    model = small_model(env, gaussian(), **kwargs)
    model.learn(120)
    return model


@pytest.mark.usefixtures("quick_fit")
@pytest.mark.parametrize("normalize", [False, True])
def test_resumed_equals_uninterrupted(tmp_path, normalize):
    def world():
        env = reach(n_envs=2)
        return VecNormalize(env, norm_reward=False) if normalize else env

    model = started(world(), ent_coef="auto")
    path = save_checkpoint(model, tmp_path)
    assert path.name == "step_000000120"
    resumed: Any = resume(QGatedSAC, tmp_path, world(), device="cpu")
    assert resumed.num_timesteps == 120
    drawn = []
    for each in (resumed, model):
        # The generators go on where they stood when the checkpoint was written, the environments' too
        checkpoint._set_generator_states(th.load(path / "generators.pt", weights_only=True), each.get_env())
        drawn.append((random.random(), np.random.rand(), th.rand(3).tolist()))
        each._last_obs = None  # environments start new episodes
        each.learn(80, reset_num_timesteps=False)
    assert drawn[0] == drawn[1]
    for (name, a), b in zip(model.policy.state_dict().items(), resumed.policy.state_dict().values(), strict=True):
        assert a == b if isinstance(a, dict) else th.equal(a, b), name
    n = model.replay_buffer.size()
    np.testing.assert_array_equal(resumed.replay_buffer.observations[:n], model.replay_buffer.observations[:n])
    np.testing.assert_array_equal(resumed.replay_buffer.mc_returns[:n], model.replay_buffer.mc_returns[:n])


@pytest.mark.usefixtures("quick_fit")
def test_random_generators_are_restored_by_resume(tmp_path):
    model = started(reach(n_envs=2))
    save_checkpoint(model, tmp_path)

    def draw(env):
        return (
            random.random(), np.random.rand(), th.rand(1).item(), *(rng.random() for rng in env.get_attr("np_random"))
        )  # fmt: skip

    expected = draw(model.get_env())
    for _ in range(2):
        resumed = resume(QGatedSAC, tmp_path, reach(n_envs=2, seed=77), device="cpu", seed=5)
        assert draw(resumed.get_env()) == expected


@pytest.mark.usefixtures("quick_fit")
def test_written_at_an_episodes_end_and_old_ones_pruned(tmp_path):
    model = small_model(reach(n_envs=2), gaussian())
    model.learn(300, CheckpointCallback(tmp_path, save_freq=50, keep=3))
    steps = [int(name.removeprefix("step_")) for name in names(tmp_path)]
    assert len(steps) == 3
    assert (np.diff(steps)[:-1] >= 50).all()
    assert steps[-1] == 300, "and when learn() ends"
    for path in sorted(tmp_path.iterdir())[:-1]:
        resumed = QGatedSAC.load(path / "model", env=reach(n_envs=2), device="cpu")
        resumed.load_replay_buffer(path / "replay_buffer.pkl")
        row = resumed.replay_buffer.pos - 1
        assert resumed.replay_buffer.dones[row].any()


@pytest.mark.usefixtures("quick_fit")
def test_a_checkpoint_of_the_estimation_phase_goes_on_estimating(tmp_path):
    model = small_model(reach(n_envs=2), gaussian(), n_bc_episodes=8)
    with pytest.warns(UserWarning, match="before anything was learnt"):
        model.learn(4 * HORIZON, CheckpointCallback(tmp_path, save_freq=1))
    resumed = resume(QGatedSAC, tmp_path, reach(n_envs=2), device="cpu")
    assert not resumed.has_started
    recorded = resumed.replay_buffer.n_bc_episodes
    assert 0 < recorded < 8
    resumed.learn(6 * HORIZON, reset_num_timesteps=False)
    assert resumed.has_started


@pytest.mark.usefixtures("quick_fit")
@pytest.mark.parametrize("file", ["model.zip", "replay_buffer.pkl", "generators.pt", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "remove", "alter"])
def test_damage_is_noticed_before_anything_is_read(tmp_path, file, harm, two_checkpoints):
    shutil.copytree(two_checkpoints, tmp_path, dirs_exist_ok=True)
    older, newest = (tmp_path / name for name in names(tmp_path))
    victim = newest / file
    content = victim.read_bytes()
    if harm == "remove":
        victim.unlink()
    elif harm == "cut":
        victim.write_bytes(content[: len(content) // 2])
    elif file == "manifest.json":
        victim.write_text(json.dumps(dict.fromkeys(json.loads(content), "0")))
    else:
        victim.write_bytes(content[:-7] + b"x" + content[-6:])
    with pytest.raises(ValueError, match=rf"{newest.name} is damaged.*Remove it to go on from {older.name}"):
        resume(QGatedSAC, tmp_path, reach(), device="cpu")
    shutil.rmtree(newest)
    assert resume(QGatedSAC, tmp_path, reach(), device="cpu").num_timesteps == 40


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two")
    model = small_model(reach(), gaussian(), n_bc_episodes=20)
    for _ in range(2):
        with pytest.warns(UserWarning, match="before anything was learnt"):
            model.learn(40, reset_num_timesteps=False)
        save_checkpoint(model, directory)
    return directory


def test_missing(tmp_path):
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="no checkpoint in .* expected a directory step_"):
            resume(QGatedSAC, directory, reach())
    (tmp_path / ".partial_step_000000050").mkdir()  # somebody was killed while saving the first
    with pytest.raises(FileNotFoundError):
        latest_checkpoint(tmp_path)


def test_another_environment_than_before(two_checkpoints):
    with pytest.raises(ValueError, match="`env` has 3 environments, but the replay buffer was filled by 1"):
        resume(QGatedSAC, two_checkpoints, reach(n_envs=3), device="cpu")
    with pytest.raises(ValueError, match="made without VecNormalize, but `env` is wrapped in it"):
        resume(QGatedSAC, two_checkpoints, VecNormalize(reach(), norm_reward=False), device="cpu")


def test_a_bc_policy_that_is_not_in_the_file_is_not_called_damage(tmp_path):
    save_checkpoint(small_model(), tmp_path)
    with pytest.raises(FileNotFoundError, match="Pass it again"):
        resume(QGatedSAC, tmp_path, reach(), device="cpu")
    assert resume(QGatedSAC, tmp_path, reach(), bc_policy=WalkHome(), device="cpu").num_timesteps == 0


def test_a_new_run_does_not_mix_with_an_old_ones_checkpoints(two_checkpoints):
    with pytest.raises(ValueError, match=r"`directory` .* holds step_000000080 of another run.*resume\(\)"):
        small_model().learn(20, CheckpointCallback(two_checkpoints, save_freq=10))


@pytest.mark.parametrize("options", [{"save_freq": 0}, {"keep": 0}])
def test_options(tmp_path, options):
    with pytest.raises(ValueError, match="at least 1"):
        CheckpointCallback(tmp_path, **options)
