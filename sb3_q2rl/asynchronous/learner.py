"""The learner's process: follows the transitions, trains as it is ordered, and publishes weights."""

from __future__ import annotations

import argparse
import fcntl
import importlib
import json
import os
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any

from stable_baselines3.common.logger import Logger

from sb3_q2rl.asynchronous.rows import add_record
from sb3_q2rl.asynchronous.run_files import RunFiles, load_whole
from sb3_q2rl.asynchronous.weights import weights_to_act
from sb3_q2rl.bc.checkpoint import write_checkpoint
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC
from sb3_q2rl.envs.records import Record, RecordReader

IDLE_S, LOOK_EVERY_S = 0.01, 1.0
PUBLISH_EVERY_S, SAVE_EVERY_S = 1.0, 60.0


class Learner:
    """
    Does what ``model.train`` of the actor's process would have done, in the same order, as soon as it can. Orders to
    train that came while it was busy wait; transitions are taken in before each of them.

    :param files: of the run
    :param device: where to learn; None: where the actor acts
    """

    def __init__(self, files: RunFiles, device: str | None = None) -> None:
        self.files = files
        # A run that had ended before may be about to go on: its last word then was not for us
        self._n_bytes_before = files.transitions.stat().st_size if files.transitions.exists() else 0
        about = json.loads(files.about.read_text())
        algorithm = getattr(importlib.import_module(about["module"]), about["class"])
        self.model: OfflineToOnlineSAC = algorithm.load(files.start, device=device or about["device"])
        self.model.set_logger(Logger(None, []))
        self.reader = RecordReader(files.transitions)
        self.n_records = 0
        # The record at which the model had started, the orders that came after it, and how many were carried out
        self.started_at: int | None = None
        self.orders: deque[dict[str, Any]] = deque()
        self.n_done = self._n_skipped = 0
        self.is_told_to_stop = self._is_leaving = False
        self._published = -1
        if files.learner.exists():
            self._restore(load_whole(files.learner, self.model.device))

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.set_parameters(state["parameters"])
        for name, value in state["variables"].items():
            getattr(self.model, name).data.copy_(value)
        self.model._n_updates = state["n_updates"]
        self.started_at, self.n_done = state["started_at"], state["n_done"]

    def take_in(self) -> None:
        """All that has come since the last time."""
        for record in self.reader.new():
            self._take(record)

    def _take(self, record: Record) -> None:
        self.n_records += 1
        kind = record.head["kind"]
        self.is_told_to_stop = kind == "stop"  # the last record counts: the run may have gone on after an earlier one
        if kind == "row":
            add_record(self.model.replay_buffer, record)
        elif kind in ("cut", "stop"):
            self.model.replay_buffer.forget_open_episodes()
        elif self.started_at is None:
            # Any order may be the one that starts the model, so none may wait
            self._train(record.head)
            if self.model.has_started:
                self.started_at = self.n_records
        elif self.n_records > self.started_at:
            self.orders.append(record.head)
            if self._n_skipped < self.n_done:  # an earlier learner carried it out
                self.orders.pop()
                self._n_skipped += 1
        elif self.n_records == self.started_at:
            self.model.begin_online_buffer()  # as the estimation did when it was made

    def _train(self, order: dict[str, Any]) -> None:
        self.model._current_progress_remaining = order["progress"]
        self.model.train(gradient_steps=order["gradient_steps"], batch_size=order["batch_size"])

    def learn(self) -> bool:
        """
        Carry out one order.

        :return: there was one
        """
        if not self.orders:
            return False
        self._train(self.orders.popleft())
        self.n_done += 1
        self._n_skipped += 1
        return True

    def publish(self) -> None:
        """Let the actor have the newest weights, and what is worth logging."""
        if self._published == self.model._n_updates or not self.model.has_started:
            return
        self.model._record_means()
        metrics = {name: float(value) for name, value in self.model.logger.name_to_value.items()}
        self.model.logger.name_to_value.clear()
        content = {"policy": weights_to_act(self.model.policy), "n_updates": self.model._n_updates, "metrics": metrics}
        write_checkpoint(content, self.files.weights, flush=False)
        self._published = self.model._n_updates

    def save(self) -> None:
        """The whole state."""
        _, variables = self.model._get_torch_save_params()
        content = {
            "parameters": self.model.get_parameters(),
            "variables": {name: getattr(self.model, name).detach() for name in variables},
            "n_updates": self.model._n_updates,
            "started_at": self.started_at,
            "n_done": self.n_done,
            "n_records": self.n_records,
        }
        write_checkpoint(content, self.files.learner)

    def run(self, actor_pid: int | None) -> None:
        """
        Until the actor says so, or has gone: what it ordered is on disk, and the next learner carries it out.

        :param actor_pid: the parent process; None: the actor is elsewhere
        """
        if actor_pid is None:
            signal.signal(signal.SIGINT, self._leave_soon)
            print(f"Follows the run in {self.files.directory} until it ends, or Ctrl-C.", flush=True)
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the actor, which tells us
            threading.Thread(target=self._leave_unstarted, args=(actor_pid,), daemon=True).start()
        published_s = saved_s = time.monotonic()
        while True:
            self.take_in()
            is_over = self.is_told_to_stop and self._concerns_us(actor_pid)
            if is_over or self._is_leaving or actor_pid not in (None, os.getppid()):
                break
            was_busy = self.learn()
            now_s = time.monotonic()
            if now_s - published_s > PUBLISH_EVERY_S:
                self.publish()
                published_s = now_s
            has_just_started = self.started_at is not None and not self.files.learner.exists()
            if has_just_started or now_s - saved_s > SAVE_EVERY_S:  # an estimation is not made twice
                self.save()
                saved_s = now_s
            if not was_busy:
                time.sleep(IDLE_S)
        self.publish()
        self.save()

    def _concerns_us(self, actor_pid: int | None) -> bool:
        """Whoever starts a learner by hand may do so before the actor goes on with a run that had ended."""
        return actor_pid is not None or self.reader.position > self._n_bytes_before

    def _leave_soon(self, *_: Any) -> None:
        """Ctrl-C: after this order, with all that was learnt. Again: at once."""
        self._is_leaving = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _leave_unstarted(self, actor_pid: int) -> None:
        """An estimation takes minutes and hears nothing. Without an actor it is only in the way of the next learner."""
        while not self.model.has_started:
            if os.getppid() != actor_pid:
                print("The actor has gone before anything was learnt.", flush=True)
                os._exit(0)
            time.sleep(LOOK_EVERY_S)


def _hold(lock: IO[str], actor_pid: int | None) -> None:
    """Wait for a learner of an actor that was killed: it may still be finishing."""
    has_said = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if actor_pid not in (None, os.getppid()):
                raise SystemExit("The actor has gone.") from None
            if not has_said:
                print("Waits for another learner of this run to end.", flush=True)
                has_said = True
            time.sleep(LOOK_EVERY_S)


def _step_back() -> None:
    """Where actor and learner share a core the actor goes first, also one that was started with real-time priority."""
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if hasattr(os, "nice"):
        os.nice(5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The learner of AsyncLearning(directory, learner='elsewhere'). It waits for its actor to begin."
    )
    parser.add_argument("directory", type=Path, help="the run's, shared with the actor")
    parser.add_argument("--device", help="e.g. cuda; by default the actor's")
    parser.add_argument("--actor-pid", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    _step_back()
    files = RunFiles(arguments.directory)
    while not files.start.exists():
        time.sleep(0.1)
    with open(files.lock, "w") as lock:
        _hold(lock, arguments.actor_pid)
        Learner(files, arguments.device).run(arguments.actor_pid)


if __name__ == "__main__":
    main()
