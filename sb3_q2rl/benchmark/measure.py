"""What a run leaves behind: a row of a small CSV file at the start, at fixed steps and at the end."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_q2rl.benchmark.suite import Evaluation
from sb3_q2rl.common.acting import Who
from sb3_q2rl.common.evaluation import evaluate
from sb3_q2rl.common.files import write_whole
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

FIELDS = ("timesteps", "episodes", "model", "rl", "train_episodes", "train_success", "rl_action_fraction")
SECONDS_BETWEEN_REPORTS = 2.0
TOO_NEAR = 0.05  # of the steps between two evaluations


class Progress(NamedTuple):
    """
    How far a run is.

    :param step: environment steps made
    :param doing: what it does at the moment
    :param rows: its CSV file so far
    """

    step: int
    doing: str
    rows: str


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """
    :param rows: with the keys ``FIELDS``
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def from_csv(text: str) -> list[dict[str, Any]]:
    """
    :param text: of :func:`to_csv`; lines that begin with # are skipped
    """
    return list(csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#")))


class RefereeCallback(BaseCallback):
    """
    Evaluates when the algorithm starts (a gate opens, an offline phase is over), at every multiple of
    ``plan.every`` steps and, by :meth:`finish`, at the end, always from the same starts.

    :param eval_env: A vector of environments of its own
    :param plan: How often, and on what
    :param who: Modes to evaluate: the model as it acts, its actor alone
    :param csv_path: The rows; those of the time before a stop are kept
    :param episodes_path: What ``EpisodeLogCallback`` writes
    :param report: Told about the progress
    """

    def __init__(
        self,
        eval_env: VecEnv,
        plan: Evaluation,
        who: Sequence[Who],
        csv_path: Path,
        episodes_path: Path,
        report: Callable[[Progress], None],
    ) -> None:
        super().__init__()
        self.eval_env = eval_env
        self.plan = plan
        self.who = who
        self.csv_path = csv_path
        self.episodes_path = episodes_path
        self.report = report
        self.rows: list[dict[str, Any]] = []
        self._last_report = 0.0

    def go_on_from(self, step: int) -> None:
        """
        :param step: keep what was measured until then
        """
        if self.csv_path.exists():
            self.rows = [row for row in from_csv(self.csv_path.read_text()) if int(row["timesteps"]) <= step]

    def _on_rollout_start(self) -> None:
        assert isinstance(self.model, OfflineToOnlineSAC)
        if self.model.has_started and self.model.num_timesteps >= self._next_step():
            self.measure()

    def _on_step(self) -> bool:
        if time.monotonic() - self._last_report > SECONDS_BETWEEN_REPORTS:
            assert isinstance(self.model, OfflineToOnlineSAC)
            self.tell("learns" if self.model.has_started else "BC acts")
        return True

    def _next_step(self) -> int:
        """The next multiple, but for one that is hardly any steps on: the start may have been just before it."""
        if not self.rows:
            return 0
        return math.ceil(int(self.rows[-1]["timesteps"]) / self.plan.every + TOO_NEAR) * self.plan.every

    def tell(self, doing: str) -> None:
        """
        :param doing: what happens now
        """
        self._last_report = time.monotonic()
        self.report(Progress(self.model.num_timesteps, doing, to_csv(self.rows)))

    def finish(self) -> None:
        """Evaluate at the end, unless that has been done."""
        if not self.rows or int(self.rows[-1]["timesteps"]) < self.model.num_timesteps:
            self.measure()

    def measure(self) -> None:
        """Add a row."""
        self.tell("is evaluated")
        row: dict[str, Any] = dict.fromkeys(FIELDS, "")
        row |= {"timesteps": self.model.num_timesteps, "episodes": self.plan.episodes}
        row |= self._training_since(int(self.rows[-1]["timesteps"]) if self.rows else 0)
        assert isinstance(self.model, OfflineToOnlineSAC)
        for who in self.who:
            self.eval_env.seed(self.plan.seed)
            result = evaluate(self.model, self.eval_env, self.plan.episodes, who, self.plan.deterministic)
            row[who] = round(result.mean_share, 4)
        self.rows.append(row)
        write_whole(self.csv_path, to_csv(self.rows))
        self.tell("learns")

    def _training_since(self, step: int) -> dict[str, Any]:
        """Success of the training episodes since the last row, and how much of them RL did."""
        if not self.episodes_path.exists():
            return {}
        table = pd.read_csv(self.episodes_path)
        table = table[(table.timesteps > step) & (table.timesteps <= self.model.num_timesteps)]
        if len(table) == 0:
            return {"train_episodes": 0}
        return {
            "train_episodes": len(table),
            "train_success": round(float(table.share_done.mean()), 4),
            "rl_action_fraction": round(float(np.average(table.rl_action_fraction, weights=table.length)), 4),
        }
