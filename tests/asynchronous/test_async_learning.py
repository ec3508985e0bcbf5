"""Learning in two processes: the same result as in one, whoever is killed in between."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize
from worlds import HORIZON, ReachEnv, WalkHome, gaussian, one_demonstration, reach, small_model

from sb3_q2rl import QGatedSAC
from sb3_q2rl.asynchronous import AsyncLearning
from sb3_q2rl.asynchronous.learner import Learner
from sb3_q2rl.asynchronous.rows import NewRows
from sb3_q2rl.asynchronous.run_files import RunFiles, load_whole
from sb3_q2rl.baselines import IBRL, WSRL
from sb3_q2rl.envs.records import read_records


class SlowReach(ReachEnv):
    """As a robot: each step takes its time."""

    def __init__(self, kind: str = "flat", step_s: float = 0.02) -> None:
        super().__init__(kind, radius=0.0)
        self.step_s = step_s

    def step(self, action):
        time.sleep(self.step_s)
        return super().step(action)


def model_of(env, **kwargs) -> QGatedSAC:
    return small_model(env, gaussian(), **{"q_init_steps": 2, **kwargs})


def same_state(one, other) -> None:
    for name, value in one.state_dict().items():
        if isinstance(value, th.Tensor):
            th.testing.assert_close(value, other.state_dict()[name], rtol=0, atol=0)
        else:
            assert value == other.state_dict()[name]


BUFFER = ("actions", "rewards", "dones", "timeouts", "bc_actions", "bc_acted", "mc_returns")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("flat", {}),
        ("dict", {}),
        ("image", {}),
        ("flat", {"demonstrations": one_demonstration()}),
        ("flat", {"demonstrations": one_demonstration(), "keep_bc_episodes": False}),
    ],
    ids=["flat", "dict", "image", "with_data", "with_data_only"],
)
def test_a_learner_that_follows_does_what_one_process_would(kind, options, tmp_path, quick_fit):
    """Record by record, with the same random numbers: bit by bit the same weights, and the same buffer."""
    kwargs = {"policy_kwargs": {"n_critics": 2}} if kind != "image" else {"image_shift": 2}
    kwargs |= options
    bc = {"flat": gaussian(), "dict": gaussian("dict"), "image": WalkHome()}[kind]
    alone = small_model(reach(kind, n_envs=2), bc, q_init_steps=3, **kwargs)
    files = RunFiles(tmp_path)
    alone.save(files.start)
    about = {"module": "worlds_learner", "class": "Loads", "device": "cpu"}
    files.about.write_text(json.dumps(about))

    class Loads:
        @staticmethod
        def load(path, device):
            return QGatedSAC.load(path, device=device, bc_policy=bc)

    sys.modules["worlds_learner"] = type(sys)("worlds_learner")
    sys.modules["worlds_learner"].Loads = Loads
    learner = Learner(files)
    callback = AsyncLearning(tmp_path)
    train, states = alone.train, {"alone": th.get_rng_state(), "learner": th.get_rng_state()}
    numpy_states = {"alone": np.random.get_state(), "learner": np.random.get_state()}

    def use(who):
        th.set_rng_state(states[who])
        np.random.set_state(numpy_states[who])

    def keep(who):
        states[who], numpy_states[who] = th.get_rng_state(), np.random.get_state()

    rows = NewRows(alone.replay_buffer)

    def both(gradient_steps, batch_size):
        acting = th.get_rng_state(), np.random.get_state()
        for record in rows.take():
            callback._records.append(*record)
        head = {"kind": "train", "gradient_steps": gradient_steps, "batch_size": batch_size}
        callback._records.append({**head, "progress": alone._current_progress_remaining}, {})
        use("alone")
        train(gradient_steps, batch_size)
        rows._next = alone.replay_buffer.pos  # an actor does not put its demonstrations in itself
        keep("alone")
        use("learner")
        learner.take_in()
        while learner.learn():
            pass
        keep("learner")
        th.set_rng_state(acting[0])
        np.random.set_state(acting[1])

    alone.train = both
    alone.learn(2 * 5 * HORIZON)
    assert alone.has_started
    assert learner.model._n_updates == alone._n_updates > 10
    same_state(learner.model.policy, alone.policy)
    ours, theirs = alone.replay_buffer, learner.model.replay_buffer
    has_them = bool(np.isclose(theirs.actions[: theirs.size()], 0.123).all(axis=2).any())
    assert has_them == ("demonstrations" in options)
    for name in BUFFER:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    # One that takes its place finds the same again
    learner.save()
    again = Learner(files)
    again.take_in()
    same_state(again.model.policy, learner.model.policy)
    for name in BUFFER:
        np.testing.assert_array_equal(getattr(again.model.replay_buffer, name), getattr(theirs, name))


class Tell(BaseCallback):
    """
    Notes the number of steps, whether the gate is open, and the learner's updates.

    :param until: asked after each of these lines: the training may end
    :param when: what else to do after a step
    """

    def __init__(self, until: Callable[[list], bool], when: Callable[[Tell], None] = lambda tell: None) -> None:
        super().__init__()
        self.lines: list[tuple[int, bool, int]] = []
        self.until, self.when = until, when

    def _on_step(self) -> bool:
        self.lines.append((self.num_timesteps, self.model.has_started, self.model._n_updates))
        self.when(self)
        return not self.until(self.lines)


def test_demonstrations_reach_the_learner_and_stay_with_the_model(tmp_path):
    model = model_of(SlowReach(), demonstrations=one_demonstration())
    tell = Tell(lambda lines: lines[-1][2] > 0)
    model.learn(20_000, callback=[AsyncLearning(tmp_path), tell])
    buffer = model.replay_buffer
    shown = np.isclose(buffer.actions[: buffer.size()], 0.123).all(axis=2)
    assert shown.sum() == 9
    assert buffer.size() == 9 + len(tell.lines) - 1
    with pytest.raises(ValueError, match="has its `demonstrations` in a replay buffer that the learner does not see"):
        model.learn(10, callback=AsyncLearning(tmp_path / "another"))


def ibrl() -> IBRL:
    return IBRL(SlowReach(), bc_policy=gaussian(), n_bc_episodes=2, **SMALL)


def wsrl() -> WSRL:
    return WSRL(SlowReach(), demonstrations=one_demonstration(), pretrain_steps=2, warmup_steps=20, **SMALL)


SMALL = {"batch_size": 16, "gradient_steps": 1, "policy_delay": 1, "buffer_size": 3000, "device": "cpu"}


@pytest.mark.parametrize("make", [ibrl, wsrl])
def test_rivals_learn_beside_their_actor(tmp_path, make):
    """What ends their warm-up happens in the learner, or in both."""
    model = make()
    tell = Tell(lambda lines: lines[-1][2] > 4)
    model.learn(20_000, callback=[AsyncLearning(tmp_path), tell])
    assert model.has_started
    assert tell.lines[-1][1]


@pytest.fixture
def cluster():
    """Two local workers."""
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("learner", ["here", "ray"])
def test_a_run_in_which_the_learner_is_killed(learner, tmp_path, request):
    """Another learner takes its place; the model ends with all that the learner had, and is an ordinary one again."""
    if learner == "ray":
        request.getfixturevalue("cluster")
    model, callback = model_of(SlowReach()), AsyncLearning(tmp_path / "run", learner)
    killed = []

    def kill_and_save(tell: Tell) -> None:
        if tell.lines[-1][1] and not killed:
            killed.append(tell.lines[-1][2])
            callback._process.kill()
            model.save(tmp_path / "middle")

    tell = Tell(lambda lines: bool(killed) and lines[-1][2] not in (killed[0], 0), kill_and_save)
    model.learn(20_000, callback=[callback, tell])
    assert tell.lines[0][1:] == (False, 0)
    # the step after which the training was ended is not stored, as in SB3
    kinds = [record.head["kind"] for record in read_records(callback.files.transitions)]
    assert kinds.count("row") == kinds.count("train") == len(tell.lines) - 1
    assert kinds[-1] == "stop"
    assert model._n_updates >= tell.lines[-1][2] > 0
    state = load_whole(callback.files.learner, "cpu")["parameters"]
    for name, value in state["policy"].items():
        if isinstance(value, th.Tensor):
            th.testing.assert_close(value, model.policy.state_dict()[name], rtol=0, atol=0)
    assert model.critic.optimizer.state_dict()["state"][0]["step"] == model._n_updates + 2  # with the initialisation's
    for saved in ("middle", "end"):
        model.save(tmp_path / "end")
        again = QGatedSAC.load(tmp_path / saved, env=reach())
        updates = again._n_updates
        again.learn(20, reset_num_timesteps=False)
        assert again._n_updates == updates + 20


ACTOR = """
import sys
sys.path[:0] = sys.argv[2:]
from test_async_learning import AsyncLearning, SlowReach, Tell, model_of
tell = Tell(lambda lines: False, lambda tell: print(*tell.lines[-1], flush=True))
model_of(SlowReach()).learn(20_000, callback=[AsyncLearning(sys.argv[1]), tell])
"""


def test_an_actor_that_is_killed_goes_on_when_it_is_started_again(tmp_path):
    tests = Path(__file__).parent
    command = [sys.executable, "-c", ACTOR, tmp_path / "run", tests, tests.parent]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line.split()[2]) > 0:
                break
        process.kill()
        told = int((process.stdout.read().splitlines() or [line])[-1].split()[0])
    callback = AsyncLearning(tmp_path / "run")
    n_rows = sum(record.head["kind"] == "row" for record in read_records(callback.files.transitions))
    assert n_rows >= told - 1
    # the learner of the dead actor saves, and makes room for ours
    model, tell = model_of(SlowReach()), Tell(lambda lines: lines[-1][2] > lines[0][2])
    model.learn(20_000, callback=[callback, tell])
    timesteps, has_started, n_updates = tell.lines[0]
    assert timesteps == n_rows + 1
    assert has_started  # it acts with what was learnt
    assert n_updates > 0
    assert model._n_updates > n_updates
    assert model.replay_buffer.size() == n_rows + len(tell.lines) - 1
    assert model.replay_buffer.cuts[n_rows - 1].all()
    kinds = [record.head["kind"] for record in read_records(callback.files.transitions)]
    assert kinds.count("cut") == 2


def test_a_learner_that_somebody_else_started(tmp_path):
    command = [sys.executable, "-m", "sb3_q2rl.asynchronous.learner", tmp_path, "--device", "cpu"]
    with subprocess.Popen(command) as process:  # it waits for the actor
        model, tell = model_of(SlowReach()), Tell(lambda lines: lines[-1][2] > 0)
        model.learn(20_000, callback=[AsyncLearning(tmp_path, learner="elsewhere"), tell])
        assert process.wait(30) == 0
    assert model._n_updates >= tell.lines[-1][2]
    assert model.critic.optimizer.state_dict()["state"][0]["step"] == model._n_updates + 2
    alone = AsyncLearning(tmp_path, learner="elsewhere", stop_timeout_s=0.1)
    with pytest.raises(RuntimeError, match="No learner finished within `stop_timeout_s`=0.1"):
        model.learn(model.num_timesteps + HORIZON, callback=alone)


def test_a_learner_that_is_started_before_its_run_goes_on(tmp_path):
    """The run had ended, and says so in its last record."""
    model, files = model_of(SlowReach()), RunFiles(tmp_path)
    model.learn(20_000, callback=[AsyncLearning(tmp_path), Tell(lambda lines: lines[-1][2] > 0)])
    n_updates = model._n_updates
    command = [sys.executable, "-m", "sb3_q2rl.asynchronous.learner", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert "Follows the run" in process.stdout.readline()
        tell = Tell(lambda lines: lines[-1][2] > n_updates)
        model.learn(20_000, callback=[AsyncLearning(tmp_path, learner="elsewhere"), tell])
        assert process.wait(30) == 0
    saved = files.learner.stat().st_mtime_ns
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert "Ctrl-C" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert files.learner.stat().st_mtime_ns > saved


BUSY = """
import os, sys, time
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from sb3_q2rl.asynchronous.learner import Learner
from sb3_q2rl.asynchronous.run_files import RunFiles
learner = Learner(RunFiles(Path(sys.argv[1])))
learner.take_in = lambda: time.sleep(1_000)  # as an estimation, which takes minutes
learner.run(actor_pid=os.getppid() + 1)
"""


def test_a_learner_without_an_actor_is_in_nobodys_way(tmp_path):
    model, callback = model_of(reach()), AsyncLearning(tmp_path)
    callback._check_or_write_about(model)
    model.save(callback.files.start)
    assert subprocess.run([sys.executable, "-c", BUSY, tmp_path], timeout=60).returncode == 0
    with open(callback.files.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another learner is at work
        command = [sys.executable, "-m", "sb3_q2rl.asynchronous.learner", tmp_path, "--actor-pid", "1"]
        result = subprocess.run(command, timeout=60, capture_output=True, text=True)
        assert "The actor has gone" in result.stderr


class Interrupt(BaseCallback):
    """As Ctrl-C, or a person who stops, during a step."""

    def __init__(self, at: int, raises: bool) -> None:
        super().__init__()
        self.at, self.raises = at, raises

    def _on_step(self) -> bool:
        if self.num_timesteps == self.at and self.raises:
            raise KeyboardInterrupt
        return self.num_timesteps < self.at


@pytest.mark.parametrize(("train_freq", "raises"), [(100, True), ((1, "episode"), False)])
def test_every_transition_is_on_disk_before_anything_is_trained(tmp_path, train_freq, raises):
    model, callback = model_of(reach(), train_freq=train_freq), AsyncLearning(tmp_path)
    with contextlib.suppress(KeyboardInterrupt):
        model.learn(200, callback=[callback, Interrupt(at=29, raises=raises)])
    kinds = [record.head["kind"] for record in read_records(callback.files.transitions)]
    assert kinds.count("row") == model.replay_buffer.pos == 28
    if raises:
        callback._process.kill()
        callback._process.wait()


def test_weights_that_cannot_be_read_are_awaited_again(tmp_path, monkeypatch):
    fails = []

    def sometimes(path, device):
        if path.name == "weights.pt" and not fails:
            fails.append(path)
            raise OSError(116, "Stale file handle")
        return load_whole(path, device)

    monkeypatch.setattr("sb3_q2rl.asynchronous.callback.load_whole", sometimes)
    model = model_of(SlowReach())
    with pytest.warns(UserWarning, match="Stale file handle.*the next one is awaited"):
        model.learn(20_000, callback=[AsyncLearning(tmp_path), Tell(lambda lines: lines[-1][2] > 0)])
    RunFiles(tmp_path).weights.write_bytes(b"")  # a power cut
    tell = Tell(lambda lines: lines[-1][2] > 0)
    with pytest.warns(UserWarning, match="cannot be read now"):
        model_of(SlowReach()).learn(20_000, callback=[AsyncLearning(tmp_path), tell])


def test_a_learner_that_always_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="The learner failed 3 times"):
        model_of(SlowReach()).learn(500, callback=AsyncLearning(tmp_path))


def test_what_it_refuses(tmp_path):
    with pytest.raises(ValueError, match="cannot follow the moving statistics of VecNormalize"):
        model_of(VecNormalize(reach(), norm_reward=False)).learn(10, callback=AsyncLearning(tmp_path))
    with pytest.raises(ValueError, match="WalkHome that lives in this process alone"):
        small_model(reach()).learn(10, callback=AsyncLearning(tmp_path))
    with pytest.raises(ValueError, match="`learner` must be 'here', 'ray' or 'elsewhere', got 'there'"):
        AsyncLearning(tmp_path, learner="there")
    with pytest.raises(ValueError, match="`ray_options` are for learner='ray'"):
        AsyncLearning(tmp_path, ray_options={"num_gpus": 1})
    assert not list(tmp_path.iterdir())
    callback = AsyncLearning(tmp_path)
    callback._check_or_write_about(model_of(reach()))
    with pytest.raises(ValueError, match="holds another run: its n_envs is 1, this model's is 2"):
        model_of(reach(n_envs=2)).learn(10, callback=AsyncLearning(tmp_path))
