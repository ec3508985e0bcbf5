"""One line for every training episode: how it ended, and who acted."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_q2rl.common.evaluation import share_done
from sb3_q2rl.common.files import read_table, write_table
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

FIELDS = ("timesteps", "phase", "length", "reward", "is_success", "rl_action_fraction", "share_done")


class EpisodeLogCallback(BaseCallback):
    """
    Append a row to a CSV file whenever a training episode ends; nothing is lost if the run is killed.

    ``phase`` is "bc" while the BC policy is being estimated, "online" afterwards.

    :param csv_path: The file; a new run starts a new one
    :param verbose: Verbosity
    """

    def __init__(self, csv_path: str | Path, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.csv_path = Path(csv_path)

    def _on_training_start(self) -> None:
        n = self.training_env.num_envs
        self._length, self._reward, self._rl_steps = np.zeros(n, int), np.zeros(n), np.zeros(n)
        rows = read_table(self.csv_path) if self.csv_path.exists() else []
        # A run that goes on after a stop keeps what lies before it
        kept = [list(row.values()) for row in rows if int(row["timesteps"]) <= self.model.num_timesteps]
        write_table(self.csv_path, FIELDS, kept)

    def _on_step(self) -> bool:
        model = self.model
        assert isinstance(model, OfflineToOnlineSAC)
        assert model.decision is not None
        rl_acts = model.decision.rl_acts
        self._length += 1
        self._reward += self.locals["rewards"]
        self._rl_steps += np.ones(len(self._length)) if rl_acts is None else rl_acts.cpu().numpy()
        for i in np.flatnonzero(self.locals["dones"]):
            row = (
                model.num_timesteps,
                "online" if model.has_started else "bc",
                self._length[i],
                round(float(self._reward[i]), 3),
                int(bool(self.locals["infos"][i].get("is_success", False))),
                round(self._rl_steps[i] / self._length[i], 4),
                round(share_done(self.locals["infos"][i]), 4),
            )
            self._append(row)
            self._length[i] = self._reward[i] = self._rl_steps[i] = 0
        return True

    def _append(self, row: tuple[Any, ...]) -> None:
        with open(self.csv_path, "a", newline="") as file:
            csv.writer(file).writerow(row)
