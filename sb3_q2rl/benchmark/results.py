"""The committed results: one small CSV file a cell, ``TASK/LABEL_seedN.csv``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sb3_q2rl.benchmark.measure import from_csv
from sb3_q2rl.benchmark.suite import Cell
from sb3_q2rl.common.files import write_whole


class Results:
    """
    :param folder: of one suite
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, cell: Cell) -> Path:
        """
        :param cell: whose file
        """
        return self.folder / f"{cell.key}.csv"

    def publish(self, cell: Cell, rows: str) -> None:
        """
        Its settings stand above the rows. A run that starts anew, because its checkpoint is not on this machine, does
        not replace the file before it has come as far.

        :param cell: whose
        :param rows: its CSV file so far; one without a row is not written
        """
        path = self.path(cell)
        text = f"# {json.dumps(cell.settings)}\n{rows}"
        before = path.read_text() if path.exists() else ""
        if text != before and _last_step(rows) >= max(0, _last_step(before)):
            write_whole(path, text)

    def last_step(self, cell: Cell) -> int:
        """
        :param cell: how far has it come?
        :return: -1 without a result
        """
        path = self.path(cell)
        return _last_step(path.read_text()) if path.exists() else -1

    def is_finished(self, cell: Cell) -> bool:
        """
        :param cell: has it reached its last step?
        """
        return self.last_step(cell) >= cell.steps

    def changed(self, cell: Cell) -> list[str]:
        """
        :param cell: that may have a result
        :return: which of its settings are others than those that it was run with
        """
        path = self.path(cell)
        return changed_settings(cell, path.read_text()) if path.exists() else []

    def curves(self, cells: Sequence[Cell]) -> list[Curve]:
        """
        :param cells: of which those are read that have come further than to their first evaluation
        """
        begun = [cell for cell in cells if self.last_step(cell) >= min(cell.steps, 1)]
        return [Curve.read(cell, self.path(cell)) for cell in begun]


def _last_step(rows: str) -> int:
    table = from_csv(rows)
    return int(table[-1]["timesteps"]) if table else -1


def changed_settings(cell: Cell, text: str) -> list[str]:
    """
    :param cell: as the suite has it
    :param text: of its CSV file; the oldest do not tell their settings
    :return: which settings are others
    """
    first, now = text.partition("\n")[0], cell.settings
    if not first.startswith("#"):
        return []
    before = json.loads(first.removeprefix("#"))
    return [name for name in now if before.get(name) != now[name]]


class Curve(NamedTuple):
    """
    What one cell left behind, up to the suite's last step.

    :param cell: which
    :param steps: (n,) environment steps of the evaluations; the first is where RL starts
    :param episodes: of each evaluation
    :param model: (n,) success of the model as it acts; of a task of parts, as the kitchen, the share of them
    :param rl: (n,) success of its actor alone; NaN where that is the same thing
    :param before: success of the training episodes before RL started: the BC policy's. NaN without any
    :param changed: settings that were others when it was run
    """

    cell: Cell
    steps: np.ndarray
    episodes: int
    model: np.ndarray
    rl: np.ndarray
    before: float
    changed: Sequence[str] = ()

    @classmethod
    def read(cls, cell: Cell, path: Path) -> Curve:
        """
        :param cell: which
        :param path: its CSV file; where that goes on for longer, the success at the last step is interpolated
        """
        table = pd.read_csv(path, comment="#")
        steps = table.timesteps.to_numpy(dtype=int)
        whole = cls(
            cell,
            steps,
            int(table.episodes.iloc[-1]),
            table.model.to_numpy(dtype=float),
            table.rl.to_numpy(dtype=float),
            float(table.train_success.iloc[0]) if steps[0] > 0 else np.nan,
            changed_settings(cell, path.read_text()),
        )
        return whole.until(cell.steps) if steps[-1] > cell.steps else whole

    def until(self, step: int) -> Curve:
        """
        :param step: between the first and the last; between two evaluations the success there is interpolated
        """
        steps = np.append(self.steps[self.steps < step], step)
        model, rl = (np.interp(steps, self.steps, values) for values in (self.model, self.rl))
        return self._replace(steps=steps, model=model, rl=rl)

    @property
    def is_finished(self) -> bool:
        return bool(self.steps[-1] >= self.cell.steps)

    @property
    def at_first(self) -> float:
        """Success before RL starts: the BC policy's, or what an offline phase or nothing has made."""
        return float(self.model[0]) if np.isnan(self.before) else self.before


def comparable(curves: Sequence[Curve]) -> list[Curve]:
    """
    Seeds that end at the same step, or a mean would compare different amounts of learning.

    :param curves: seeds of one algorithm on one task
    :return: those that are finished; where none is all of them, up to the end of the shortest
    """
    finished = [curve for curve in curves if curve.is_finished]
    shortest = min(int(curve.steps[-1]) for curve in curves)
    return finished or [curve.until(max(shortest, int(curve.steps[0]))) for curve in curves]


class SeedsTogether(NamedTuple):
    """
    The curves of several seeds, side by side.

    :param steps: (n,): 0, where RL starts (if later: twice, before and after it), all evaluations until the end of the
        shortest
    :param success: (n_seeds, n)
    :param start: index of the first point after RL has started
    """

    steps: np.ndarray
    success: np.ndarray
    start: int


def together(curves: Sequence[Curve]) -> SeedsTogether:
    """
    RL starts at another step in each seed: here in all at the mean of those, so that what the start does is not
    smeared.

    :param curves: seeds of one algorithm on one task
    """
    start, end = np.mean([curve.steps[0] for curve in curves]), min(curve.steps[-1] for curve in curves)
    later = np.unique(np.concatenate([curve.steps for curve in curves]))
    later = later[(later > start) & (later <= end)]
    rows = []
    for curve in curves:
        success = [curve.model[0], *np.interp(later, curve.steps, curve.model)]
        rows.append([curve.at_first, curve.at_first, *success] if start > 0 else success)
    if start > 0:
        return SeedsTogether(np.array([0.0, start, start, *later]), np.array(rows), 2)
    return SeedsTogether(np.array([0.0, *later]), np.array(rows), 0)
