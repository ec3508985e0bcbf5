"""The committed results: one small CSV file a cell, ``TASK/LABEL_seedN.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sb3_q2rl.benchmark.measure import from_csv, write_whole
from sb3_q2rl.benchmark.suite import Cell


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
        :param cell: whose
        :param rows: its CSV file so far; one without a row is not written
        """
        path = self.path(cell)
        if from_csv(rows) and (not path.exists() or path.read_text() != rows):
            write_whole(path, rows)

    def is_finished(self, cell: Cell) -> bool:
        """
        :param cell: has it reached its last step?
        """
        path = self.path(cell)
        rows = from_csv(path.read_text()) if path.exists() else []
        return bool(rows) and int(rows[-1]["timesteps"]) >= cell.steps

    def curves(self, cells: Sequence[Cell]) -> list[Curve]:
        """
        :param cells: of which those that have results are read
        """
        return [Curve.read(cell, self.path(cell)) for cell in cells if self.path(cell).exists()]


class Curve(NamedTuple):
    """
    What one cell left behind, up to the suite's last step.

    :param cell: which
    :param steps: (n,) environment steps of the evaluations; the first is where RL starts
    :param episodes: of each evaluation
    :param model: (n,) success of the model as it acts; of a task of parts, as the kitchen, the share of them
    :param rl: (n,) success of its actor alone; NaN where that is the same thing
    :param before: success of the training episodes before RL started: the BC policy's. NaN without any
    """

    cell: Cell
    steps: np.ndarray
    episodes: int
    model: np.ndarray
    rl: np.ndarray
    before: float

    @classmethod
    def read(cls, cell: Cell, path: Path) -> Curve:
        """
        :param cell: which
        :param path: its CSV file; where that goes on for longer, the success at the last step is interpolated
        """
        table = pd.read_csv(path)
        steps = table.timesteps.to_numpy(dtype=int)
        kept = steps[steps < cell.steps]
        end = np.append(kept, cell.steps) if steps[-1] >= cell.steps else kept
        return cls(
            cell,
            end,
            int(table.episodes.iloc[-1]),
            np.interp(end, steps, table.model.to_numpy(dtype=float)),
            np.interp(end, steps, table.rl.to_numpy(dtype=float)),
            float(table.train_success.iloc[0]) if steps[0] > 0 else np.nan,
        )

    @property
    def is_finished(self) -> bool:
        return bool(self.steps[-1] >= self.cell.steps)

    def at(self, steps: np.ndarray) -> np.ndarray:
        """
        :param steps: (m,) environment steps, not beyond the last
        :return: (m,) success in between; before RL starts the BC policy's
        """
        before = self.model[0] if np.isnan(self.before) else self.before
        return np.where(steps < self.steps[0], before, np.interp(steps, self.steps, self.model))


def mean_curve(curves: Sequence[Curve], n_points: int = 201) -> tuple[np.ndarray, np.ndarray]:
    """
    :param curves: of several seeds
    :param n_points: of the grid from step 0 to the end of the shortest
    :return: (n_points,) steps, and (n_seeds, n_points) success
    """
    grid = np.linspace(0, min(curve.steps[-1] for curve in curves), n_points)
    return grid, np.stack([curve.at(grid) for curve in curves])
