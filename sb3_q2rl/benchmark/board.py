"""What the cells of a suite are doing: a line each, in a table that stays in place, or one after the other in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sb3_q2rl.benchmark.measure import Progress, from_csv
from sb3_q2rl.benchmark.suite import Cell

# Of a cell's steps, until their rate says anything: an estimation between two of them takes minutes
ENOUGH = 0.02


class Line:
    """
    One cell's.

    :param cell: which
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.state = "waits"
        self.step = 0
        self.success = ""
        self._began: tuple[float, int] | None = None

    def update(self, progress: Progress) -> None:
        """
        :param progress: what it told
        """
        rows = from_csv(progress.rows)
        self.state, self.step = progress.doing, progress.step
        self.success = f"{float(rows[-1]['model']):.2f}" if rows else ""
        if self._began is None:
            self._began = time.monotonic(), progress.step

    @property
    def remaining(self) -> str:
        """How long it will take, at the rate since this process began to watch."""
        if self._began is None or self.state == "finished":
            return ""
        n_made = self.step - self._began[1]
        if n_made <= ENOUGH * self.cell.steps:
            return ""
        rate = n_made / (time.monotonic() - self._began[0])
        minutes = round((self.cell.steps - self.step) / rate / 60)
        return f"{minutes // 60} h {minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"


class Board:
    """
    A context: on a terminal the table is redrawn in place, elsewhere news are printed line by line.

    :param cells: all that are shown
    :param console: where
    """

    def __init__(self, cells: Iterable[Cell], console: Console | None = None) -> None:
        self.lines = {cell.key: Line(cell) for cell in cells}
        self.console = console or Console()
        self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=1)
        self._told: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def update(self, cell: Cell, progress: Progress) -> None:
        """
        :param cell: whose
        :param progress: what it told
        """
        self.lines[cell.key].update(progress)
        self._tell(self.lines[cell.key])

    def say(self, cell: Cell, state: str) -> None:
        """
        :param cell: whose
        :param state: what the referee knows of it
        """
        self.lines[cell.key].state = state
        self._tell(self.lines[cell.key])

    def _tell(self, line: Line) -> None:
        # An evaluation is news, and so is a start or an end; a step is not
        passing = line.state.startswith(("learns", "BC acts", "is evaluated"))
        news = ("learns" if passing else line.state, line.success)
        if self.console.is_terminal or self._told.get(line.cell.key) == news:
            return
        self._told[line.cell.key] = news
        parts = [f"{line.cell.key}: {line.state}"]
        if line.step:
            parts.append(f"step {line.step:,} of {line.cell.steps:,}")
        if line.success:
            parts.append(f"success {line.success}")
        if line.remaining:
            parts.append(f"{line.remaining} to go")
        self.console.print(time.strftime("%H:%M"), ", ".join(parts), soft_wrap=True, highlight=False)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("task", "algorithm", "seed", "step", "success", "to go", "state"):
            table.add_column(heading, justify="right" if heading in ("step", "success", "to go") else "left")
        # A terminal may be too short for all: those that run come first
        for line in sorted(self.lines.values(), key=lambda line: {"waits": 1, "finished": 2}.get(line.state, 0)):
            cell = line.cell
            step = f"{line.step:,} / {cell.steps:,}"
            style = "red" if "FAILED" in line.state else "dim" if line.state in ("waits", "finished") else ""
            table.add_row(
                cell.task, cell.label, str(cell.seed), step, line.success, line.remaining, line.state, style=style
            )
        return table
