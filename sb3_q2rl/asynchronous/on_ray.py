"""
The learner on another machine of a Ray cluster, without a disk that both share: the files of the run are sent to and
fro. For the callback it is a process like the one that it starts here.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from sb3_q2rl.asynchronous.process import start_learner
from sb3_q2rl.asynchronous.run_files import RunFiles
from sb3_q2rl.common.cluster import connect

SYNC_EVERY_S = 0.2
# Sent at once, at most
CHUNK_BYTES = 2**26


class LearnerHost:
    """A Ray actor: a folder like the one of the robot's machine, and the learner's process that works in it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sb3_q2rl_learner_")
        self.files = RunFiles(Path(self._folder.name))
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: dict[str, tuple[int, int, int]] = {}

    def put(self, name: str, content: bytes) -> None:
        """
        :param name: of a file of the run
        :param content: all of it
        """
        (self.files.directory / name).write_bytes(content)

    def append(self, content: bytes) -> None:
        """
        :param content: what follows in the transitions
        """
        with open(self.files.transitions, "ab") as file:
            file.write(content)

    def start(self) -> None:
        """The learner: once there is what it starts from."""
        self._process = start_learner(self.files)

    def news(self) -> tuple[int | None, dict[str, bytes]]:
        """
        :return: the learner's exit code, once it has ended; name -> content of the files that changed
        """
        assert self._process is not None
        code = self._process.poll()  # before looking: what it wrote last must not be missed
        changed = {}
        for path in (self.files.weights, self.files.learner, self.files.output):
            if not path.exists():
                continue
            found = path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._seen.get(path.name) != stamp:
                self._seen[path.name] = stamp
                changed[path.name] = path.read_bytes()
        return code, changed


class RayLearner:
    """
    Looks like a ``subprocess.Popen`` of the learner. A thread sends what is new, several times a second.

    :param files: of the run, here
    :param options: of the Ray actor that hosts the learner, such as ``{"num_gpus": 1}``; one core by default
    :raises ImportError: Ray is not installed
    """

    pid = "on Ray"

    def __init__(self, files: RunFiles, options: dict[str, Any]) -> None:
        self._ray = connect("AsyncLearning(learner='ray')")
        self._files = files
        self._sent = 0
        self._code: int | None = None
        self._host = self._ray.remote(LearnerHost).options(**{"num_cpus": 1, **options}).remote()
        self._thread = threading.Thread(target=self._run, name="learner on Ray", daemon=True)
        self._thread.start()

    def poll(self) -> int | None:
        """:return: the learner's exit code, -1 if its machine was lost; None while it works"""
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """
        :param timeout: s
        :return: the exit code
        :raises subprocess.TimeoutExpired: it still works
        """
        self._thread.join(timeout)
        if self._code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("the learner on Ray", timeout)
        return self._code

    def kill(self) -> None:
        """End it at once."""
        self._ray.kill(self._host)
        self._thread.join()

    def _run(self) -> None:
        try:
            for path in (self._files.about, self._files.start, self._files.learner):
                if path.exists():
                    self._call(self._host.put, path.name, path.read_bytes())
            self._send_transitions()
            self._call(self._host.start)
            code = None
            while code is None:
                self._send_transitions()
                code, changed = self._call(self._host.news)
                for name, content in changed.items():
                    _write_whole(self._files.directory / name, content)
                if code is None:
                    time.sleep(SYNC_EVERY_S)
            self._ray.kill(self._host)  # its cores and its folder are free again
            self._code = code
        except (self._ray.exceptions.RayError, OSError) as error:
            self._code = -1
            with contextlib.suppress(OSError), open(self._files.output, "a") as output:
                output.write(f"The learner's machine was lost, or the disk is full: {error}\n")

    def _call(self, method: Any, *arguments: Any) -> Any:
        return self._ray.get(method.remote(*arguments))

    def _send_transitions(self) -> None:
        with open(self._files.transitions, "rb") as file:
            file.seek(self._sent)
            while content := file.read(CHUNK_BYTES):
                self._call(self._host.append, content)
                self._sent += len(content)


def _write_whole(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
