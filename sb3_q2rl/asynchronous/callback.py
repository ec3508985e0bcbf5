"""The actor's side: ``model.learn(..., callback=AsyncLearning(directory))`` leaves all training to another process."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Literal

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_q2rl.asynchronous.on_ray import RayLearner
from sb3_q2rl.asynchronous.process import start_learner
from sb3_q2rl.asynchronous.rows import NewRows, add_record
from sb3_q2rl.asynchronous.run_files import RunFiles, load_whole
from sb3_q2rl.asynchronous.weights import adopt
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC
from sb3_q2rl.envs.records import Record, RecordFile, read_records

LOOK_EVERY_S = 1.0
# So long after a step the actor has decided on the next one, and waits for its robot
AFTER_STEP_S = 0.02
# A learner that dies so often without having learnt anything new would die again
MAX_RESTARTS = 3


class AsyncLearning(BaseCallback):
    """
    Collect in this process, and learn in another. ``learn()`` keeps its meaning (callbacks, logger, saving); only
    ``train()`` does something else: it hands the new transitions and the order to train over, and adopts weights that
    have come. It never waits.

    All goes through files in one folder, so either process may be killed and started again. Start the same script
    again after an interruption: ``learn(total)`` goes on where the transitions end, up to ``total`` in all. The learner
    goes on from its last state, at most a minute old, and carries out what it was ordered since.

    As many gradient steps are made for each transition as without this callback, later where the learner is slower;
    what is not done when the training ends is left undone. Then the model has all that the learner has, optimisers
    included, and may be saved or trained further in either way. What other callbacks save in mid-training has the
    weights of the moment, but optimisers as they were at the start.

    :param directory: of the run; shared by nothing else
    :param learner: ``"here"``: started by this callback, on this machine; ``"ray"``: on a machine of a Ray cluster
        (extra ``ray``), which need not share a disk; ``"elsewhere"``: by a person, on a machine that shares the
        folder, with ``python -m sb3_q2rl.asynchronous.learner DIRECTORY --device cuda``
    :param ray_options: of the Ray actor that hosts the learner, such as ``{"num_gpus": 1}``
    :param stop_timeout_s: how long the end of training may wait for the learner's last gradient step
    :param verbose: 1: tell when the learner starts and stops
    :raises ValueError: a model that the learner could not rebuild, or a folder of another run
    :raises RuntimeError: the learner keeps failing
    """

    def __init__(
        self,
        directory: str | Path,
        learner: Literal["here", "ray", "elsewhere"] = "here",
        ray_options: dict[str, Any] | None = None,
        stop_timeout_s: float = 300.0,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if learner not in ("here", "ray", "elsewhere"):
            raise ValueError(f"`learner` must be 'here', 'ray' or 'elsewhere', got {learner!r}")
        if ray_options and learner != "ray":
            raise ValueError(f"`ray_options` are for learner='ray', not for {learner!r}")
        self.learner = learner
        self.ray_options = ray_options or {}
        self.files = RunFiles(Path(directory))
        self.stop_timeout_s = stop_timeout_s
        self.n_updates = 0
        self._records, self._n_records = RecordFile(self.files.transitions), 0
        self._process: subprocess.Popen[bytes] | RayLearner | None = None
        self._n_restarts, self._updates_at_restart = 0, 0
        self._arrived: dict[str, Any] | None = None
        self._had_started = False
        self._ended, self._stepped = threading.Event(), threading.Event()

    # ------------------------------------------------------------------ SB3's hooks

    def _on_training_start(self) -> None:
        model = self.model
        assert isinstance(model, OfflineToOnlineSAC)
        _refuse_what_cannot_be_rebuilt(model)
        self.files.directory.mkdir(parents=True, exist_ok=True)
        self._check_or_write_about(model)
        if not self.files.start.exists():
            unfinished = self.files.start.with_name(".start.zip")
            model.save(unfinished)
            os.replace(unfinished, self.files.start)
        self._had_started = model.has_started
        self._take_up(model)
        self._append(Record({"kind": "cut"}, {}))
        self._rows = NewRows(model.replay_buffer)
        if self.learner != "elsewhere" and self._process is None:
            self._start_learner()
        self._ended.clear()
        threading.Thread(target=self._look_for_weights, args=(model.device,), name="weights", daemon=True).start()
        model.train = self._hand_over  # type: ignore[method-assign]
        # Looking through all that was imported takes the garbage collector 0.1 s and more: let it look at what is new
        gc.collect()
        gc.freeze()

    def _on_step(self) -> bool:
        self._write_rows()  # up to the last step: this one is not stored yet
        return True

    def _on_rollout_end(self) -> None:
        self._write_rows()

    def _on_training_end(self) -> None:
        model = self.model
        assert isinstance(model, OfflineToOnlineSAC)
        self._ended.set()
        gc.unfreeze()
        del model.train
        self._write_rows()
        state = self._stop_learner()
        self._records.close()
        model.set_parameters(state["parameters"])
        for name, value in state["variables"].items():
            getattr(model, name).data.copy_(value)
        model._n_updates = self.n_updates = state["n_updates"]
        if model.has_started and not self._had_started:  # so far only the learner has them
            model.add_waiting_demonstrations()

    # ------------------------------------------------------------------ instead of training

    def _hand_over(self, gradient_steps: int, batch_size: int = 64) -> None:
        """What ``model.train`` does meanwhile."""
        model = self.model
        assert isinstance(model, OfflineToOnlineSAC)
        self._write_rows()
        progress = model._current_progress_remaining
        order = {"gradient_steps": gradient_steps, "batch_size": batch_size, "progress": progress}
        self._append(Record({"kind": "train", **order}, {}))
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            adopt(model.policy, arrived["policy"])
            model._n_updates = self.n_updates = arrived["n_updates"]
            for name, value in arrived["metrics"].items():
                self.logger.record(name, value)
        if self._process is not None and self._process.poll() is not None:
            self._restart_learner()
        self._stepped.set()

    def _write_rows(self) -> None:
        for record in self._rows.take():
            self._append(record)

    def _append(self, record: Record) -> None:
        self._records.append(*record)
        self._n_records += 1

    def _look_for_weights(self, device: Any) -> None:
        """
        In a thread of its own, for reading a file takes longer than an actor may be late; and while the actor waits for
        its robot, for the two threads share one interpreter.
        """
        seen = None
        while not self._ended.is_set():
            self._stepped.wait(LOOK_EVERY_S)
            self._stepped.clear()
            time.sleep(AFTER_STEP_S)
            try:
                found = self.files.weights.stat()
            except OSError:  # none yet, or a shared disk's bad moment
                continue
            if (found.st_ino, found.st_mtime_ns) != seen:
                arrived = _readable(self.files.weights, device)
                if arrived is not None:
                    self._arrived, seen = arrived, (found.st_ino, found.st_mtime_ns)

    # ------------------------------------------------------------------ beginning, and beginning again

    def _check_or_write_about(self, model: OfflineToOnlineSAC) -> None:
        kind = type(model)
        about = {
            "module": kind.__module__,
            "class": kind.__qualname__,
            "observation_space": str(model.observation_space),
            "action_space": str(model.action_space),
            "n_envs": model.n_envs,
            "device": str(model.device),
        }
        if self.files.about.exists():
            known = json.loads(self.files.about.read_text())
            differ = [key for key in about if key != "device" and known.get(key) != about[key]]
            if differ:
                raise ValueError(
                    f"`directory` {self.files.directory} holds another run: its {differ[0]} is {known[differ[0]]}, "
                    f"this model's is {about[differ[0]]}. Name an empty folder, or start that run's script."
                )
        self.files.about.write_text(json.dumps(about, indent=2))

    def _take_up(self, model: OfflineToOnlineSAC) -> None:
        """After an interruption: what an earlier process of this run had collected and learnt."""
        if self._n_records > 0 or not self.files.transitions.exists():
            return
        n_rows = 0
        model.replay_buffer.reset()
        for record in read_records(self.files.transitions):
            self._n_records += 1
            if record.head["kind"] == "row":
                add_record(model.replay_buffer, record)
                n_rows += 1
            elif record.head["kind"] == "cut":
                model.replay_buffer.forget_open_episodes()
        model.replay_buffer.forget_open_episodes()
        model.num_timesteps = max(model.num_timesteps, n_rows * model.n_envs)
        self.num_timesteps = model.num_timesteps
        state = _readable(self.files.weights, model.device)
        if state is not None:
            adopt(model.policy, state["policy"])
            model._n_updates = self.n_updates = state["n_updates"]

    def _start_learner(self) -> None:
        self._process = RayLearner(self.files, self.ray_options) if self.learner == "ray" else start_learner(self.files)
        if self.verbose > 0:
            print(f"Learner: process {self._process.pid}, it tells about itself in {self.files.output}")

    def _restart_learner(self) -> None:
        if self.n_updates > self._updates_at_restart:
            self._n_restarts = 0
        self._n_restarts, self._updates_at_restart = self._n_restarts + 1, self.n_updates
        if self._n_restarts > MAX_RESTARTS:
            raise RuntimeError(
                f"The learner failed {MAX_RESTARTS} times without learning anything. {self._last_words()}"
            )
        self._start_learner()

    def _stop_learner(self) -> dict[str, Any]:
        """:return: all that it has learnt"""
        self._append(Record({"kind": "stop"}, {}))
        device, end_s = self.model.device, time.monotonic() + self.stop_timeout_s
        if self._process is not None:
            self._wait_for_process()
            return load_whole(self.files.learner, device)
        while time.monotonic() < end_s:
            if self.files.learner.exists():
                state = load_whole(self.files.learner, device)
                if state["n_records"] >= self._n_records:
                    return state
            time.sleep(0.5)
        raise RuntimeError(
            f"No learner finished within `stop_timeout_s`={self.stop_timeout_s}. Does `python -m "
            f"sb3_q2rl.asynchronous.learner` run on this folder, {self.files.directory}, as the other machine sees it? "
            "Start it, then this script again."
        )

    def _wait_for_process(self) -> None:
        assert self._process is not None
        try:
            code = self._process.wait(self.stop_timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._process = None
            raise RuntimeError(
                f"The learner was still busy {self.stop_timeout_s:.0f} s after the end, and was ended: an estimation "
                "takes minutes. All transitions are kept: start the same script again with more steps, or with more "
                "`stop_timeout_s`."
            ) from None
        self._process = None
        if code != 0:
            raise RuntimeError(f"The learner did not end as it should (code {code}). {self._last_words()}")

    def _last_words(self) -> str:
        tail = self.files.output.read_text(errors="replace")[-2000:]
        return f"What it said last in {self.files.output}:\n{tail}"


def _readable(path: Path, device: Any) -> dict[str, Any] | None:
    """Weights are written often, so not flushed, and shared disks have bad moments: others come in a second."""
    try:
        return load_whole(path, device)
    except FileNotFoundError:
        return None
    except Exception as error:
        warnings.warn(f"{path} cannot be read now ({error!r:.200}); the next one is awaited.", stacklevel=2)
        return None


def _refuse_what_cannot_be_rebuilt(model: OfflineToOnlineSAC) -> None:
    if model.get_vec_normalize_env() is not None:
        raise ValueError(
            "AsyncLearning cannot follow the moving statistics of VecNormalize. Leave it out: Q2RL standardises "
            "observations itself, by the BC episodes."
        )
    if isinstance(model.replay_buffer, HerReplayBuffer):
        raise ValueError("AsyncLearning has no environment in the learner, which hindsight (HER) asks for rewards.")
    if model.demonstrations is not None and "demonstrations" in model._excluded_save_params():
        raise ValueError(
            f"This {type(model).__name__} has its `demonstrations` in a replay buffer that the learner does not see. "
            "Begin anew (QGatedSAC, IBRL and RLPD hand them over then), or learn in one process."
        )
    if model._bc_record is not None and model._bc_record["checkpoint"] is None:
        source = model._bc_record["source"]
        if not Path(source).exists():
            raise ValueError(
                f"`bc_policy` is a {source} that lives in this process alone; the learner could not rebuild it. Pass "
                "the path of a checkpoint, a shipped policy, or a GaussianBCPolicy."
            )
    if type(model).__module__ == "__main__" or "." in type(model).__qualname__:
        raise ValueError(
            f"{type(model).__qualname__} of {type(model).__module__} cannot be imported by the learner. Put the "
            "class at the top level of a module of its own."
        )
