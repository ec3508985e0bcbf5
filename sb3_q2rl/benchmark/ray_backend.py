"""The same cells as Ray tasks, on one machine or on a cluster. Needs the extra ``ray``."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from pathlib import Path

from sb3_q2rl.benchmark.board import Board
from sb3_q2rl.benchmark.measure import Progress
from sb3_q2rl.benchmark.results import Results
from sb3_q2rl.benchmark.suite import Cell
from sb3_q2rl.common.cluster import connect

# A machine that was lost costs one of these; the cell then goes on elsewhere if `logs` is on a shared disk
MAX_RETRIES = 3


def run_on_ray(cells: Sequence[Cell], logs: Path, results: Results, board: Board) -> list[Cell]:
    """
    Each cell is a task of one core. Ray places, retries and balances them: where ``RAY_ADDRESS`` says, else on the
    cluster that runs on this machine, else on this machine's cores.

    :param cells: to run
    :param logs: where checkpoints and logs go, a folder a cell; on each machine, unless the disk is shared
    :param results: where the CSV files go, here
    :param board: shows the progress
    :return: those that failed
    :raises ImportError: Ray is not installed
    """
    ray = connect("--backend ray")
    from ray.util.queue import Queue

    # By default it waits for a free core, which cells that wait for the queue may hold
    news = Queue(actor_options={"num_cpus": 0})
    by_key = {cell.key: cell for cell in cells}
    # A process of its own for each, with one thread, which is Ray's rule for a task of one core
    remote = ray.remote(num_cpus=1, max_calls=1, max_retries=MAX_RETRIES)(_run)
    tasks = {remote.remote(cell.as_dict(), str(logs / cell.key), os.getcwd(), news): cell for cell in cells}
    failed = []

    def look() -> None:
        for key, progress in news.get_nowait_batch(news.qsize()):
            results.publish(by_key[key], progress.rows)
            board.update(by_key[key], progress)

    while tasks:
        done, _ = ray.wait(list(tasks), timeout=0.5)
        look()
        for reference in done:
            cell = tasks.pop(reference)
            try:
                rows = ray.get(reference)
            except ray.exceptions.RayError as error:
                failed.append(cell)
                board.say(cell, f"FAILED: {str(error).strip().splitlines()[-1]}")
            else:
                results.publish(cell, rows)
                board.update(cell, Progress(cell.steps, "finished", rows))
    news.shutdown()
    return failed


def _run(content: dict, folder: str, directory: str, news) -> str:  # type: ignore[no-untyped-def]  # Ray's queue
    """In the worker: names of files are relative to where the referee was started, as ever."""
    from contextlib import redirect_stderr, redirect_stdout

    from sb3_q2rl.benchmark.cell import run_cell

    os.chdir(directory)
    cell = Cell.from_dict(content)
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder) / "log.txt", "a") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            return run_cell(cell, Path(folder), lambda progress: news.put((cell.key, progress)))
        except Exception:
            traceback.print_exc()
            raise
