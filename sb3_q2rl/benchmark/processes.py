"""Cells on this machine: each a process with one thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from sb3_q2rl.benchmark.board import Board
from sb3_q2rl.benchmark.measure import Progress
from sb3_q2rl.benchmark.results import Results
from sb3_q2rl.benchmark.suite import Cell
from sb3_q2rl.common.files import write_whole

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Running(NamedTuple):
    """
    :param cell: which
    :param process: its process
    :param folder: its files
    :param log: open for what it prints
    """

    cell: Cell
    process: subprocess.Popen[bytes]
    folder: Path
    log: TextIO


def run_in_processes(cells: Sequence[Cell], logs: Path, results: Results, board: Board, jobs: int) -> list[Cell]:
    """
    :param cells: to run, in this order
    :param logs: where checkpoints and logs go, a folder a cell
    :param results: where the CSV files go
    :param board: shows the progress
    :param jobs: processes side by side
    :return: those that failed
    """
    waiting, running, failed = list(cells), list[Running](), list[Cell]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(waiting.pop(0), logs))
                board.say(running[-1].cell, "starts")
            for job in list(running):
                ended = job.process.poll() is not None
                _look_at(job, results, board)
                if ended:
                    running.remove(job)
                    job.log.close()
                    if job.process.returncode != 0:
                        failed.append(job.cell)
                        board.say(job.cell, f"FAILED, see {job.log.name}")
            time.sleep(0.5)
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.wait()
    return failed


def _start(cell: Cell, logs: Path) -> Running:
    folder = logs / cell.key
    write_whole(folder / "wanted.json", json.dumps(cell.as_dict()))
    (folder / "progress.json").unlink(missing_ok=True)
    log = open(folder / "log.txt", "a")  # noqa: SIM115  closed when the process has ended
    command = [sys.executable, "-u", "-m", "sb3_q2rl.benchmark.cell", str(folder), str(os.getpid())]
    process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | ONE_THREAD)
    return Running(cell, process, folder, log)


def _look_at(job: Running, results: Results, board: Board) -> None:
    path = job.folder / "progress.json"
    if path.exists():
        progress = Progress(**json.loads(path.read_text()))
        results.publish(job.cell, progress.rows)
        board.update(job.cell, progress)
