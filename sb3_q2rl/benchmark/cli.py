"""``python -m sb3_q2rl benchmark``: run a suite of comparisons, or make the report of what has been run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from rich.console import Console


def add_parser(subparsers: Any) -> None:
    """
    :param subparsers: of ``python -m sb3_q2rl``
    """
    parser = subparsers.add_parser("benchmark", help="compare algorithms on equal terms", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True)
    run = commands.add_parser(
        "run",
        help="run what is missing of a suite",
        description="Run what is missing of a suite. Killed and started again, it goes on from the last checkpoints.",
    )
    run.add_argument("suite", type=Path, help="YAML file, such as benchmarks/adroit.yml")
    run.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="KEY=VALUES",
        help="some cells: task=door algorithm=Q2RL,IBRL seed=0",
    )
    run.add_argument("--again", action="store_true", help="start these cells anew; what there was is kept beside")
    run.add_argument("--backend", choices=("processes", "ray"), default="processes", help="ray: several machines")
    run.add_argument("--jobs", type=int, default=_n_cores(), help="processes side by side (default: one a core)")
    run.add_argument(
        "--logs", type=Path, default=Path("logs/benchmark"), help="checkpoints and logs, kept for resuming"
    )
    where = "folder that gets a folder of CSV files for each suite (default: results beside the suite)"
    run.add_argument("--results", type=Path, help=where)
    run.set_defaults(run=run_suite)
    report = commands.add_parser("report", help="tables and pictures of what has been run, from its CSV files")
    report.add_argument("suites", type=Path, nargs="+", help="YAML files")
    report.add_argument("--results", type=Path, help="as in `run`")
    report.add_argument("--out", type=Path, help="folder of the page (default: where the first suite's results are)")
    report.set_defaults(run=make_report)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_suite(args: argparse.Namespace) -> None:
    """
    :param args: see :func:`add_parser`
    :raises SystemExit: a cell failed
    """
    from sb3_q2rl.benchmark.board import Board
    from sb3_q2rl.benchmark.cell import start_anew
    from sb3_q2rl.benchmark.processes import run_in_processes
    from sb3_q2rl.benchmark.results import Results
    from sb3_q2rl.benchmark.suite import load_suite

    if args.jobs < 1:
        raise ValueError(f"`--jobs` is {args.jobs}; at least one process is needed.")
    suite = load_suite(args.suite)
    cells = suite.cells(_parse_only(args.only))
    results = Results((args.results or args.suite.parent / "results") / suite.name)
    logs = (args.logs / suite.name).resolve()
    if args.again:
        for cell in cells:
            start_anew(logs / cell.key, results.path(cell))
    console = Console()
    missing = [cell for cell in cells if not results.is_finished(cell)]
    console.print(
        f"{suite.name}: {len(cells)} cells, {len(cells) - len(missing)} finished before. Results: {results.folder}"
    )
    for cell in cells:
        if names := results.changed(cell):
            told = (
                f"{cell.key} was run with another `{'`, `'.join(names)}` than the suite has now; --again runs it anew."
            )
            console.print(told, style="yellow", soft_wrap=True)
    with Board(missing, console) as board:
        if args.backend == "ray":
            from sb3_q2rl.benchmark.ray_backend import run_on_ray

            failed = run_on_ray(missing, logs, results, board)
        else:
            failed = run_in_processes(missing, logs, results, board, args.jobs)
    if failed:
        for cell in failed:
            console.print(f"FAILED: {cell.key}, see {logs / cell.key / 'log.txt'}", style="red", soft_wrap=True)
        raise SystemExit(1)


def _parse_only(filters: list[str]) -> dict[str, list[str]]:
    only = {}
    for text in filters:
        key, _, values = text.partition("=")
        if not values:
            raise ValueError(f"`--only` {text!r} is no filter; expected e.g. task=door or seed=0,1.")
        only[key] = values.split(",")
    return only


def make_report(args: argparse.Namespace) -> None:
    """
    :param args: see :func:`add_parser`
    """
    from sb3_q2rl.benchmark.report import write_report

    print(f"Report: {write_report(args.suites, args.results, args.out)}")
