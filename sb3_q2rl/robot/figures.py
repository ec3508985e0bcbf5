"""What an episode on a robot was like: peak force, jerk, faults and interventions."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_q2rl.robot.goal import tool_position

FIELDS = ("episode", "steps", "success", "peak_force_n", "rms_jerk_m_s3", "interventions", "fault")


def rms_jerk(positions_m: np.ndarray, period_s: float) -> float:
    """
    :param positions_m: (steps, 3) of the tool, one each control period
    :param period_s: the control period
    :return: root mean square of the third difference, m/s^3; 0 for less than four positions
    """
    if len(positions_m) < 4:
        return 0.0
    jerk = np.diff(positions_m, n=3, axis=0) / period_s**3
    return float(np.sqrt((jerk**2).sum(axis=1).mean()))


class EpisodeFigures(gym.Wrapper):
    """
    At an episode's end ``info["figures"]`` has its :data:`FIELDS`, and so has a row of the file.

    :param env: a FrankaEnv, its time limit within
    :param csv_path: rows are appended to it; None: no file
    :param say: print a line for each episode
    """

    def __init__(self, env: gym.Env, csv_path: Path | None = None, say: bool = True) -> None:
        super().__init__(env)
        self._csv_path = csv_path
        self._say = say
        self._episode = 0
        if csv_path is not None and csv_path.exists():  # a run that goes on
            with open(csv_path, newline="") as file:
                self._episode = max(0, sum(1 for _ in csv.reader(file)) - 1)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        self._positions = [tool_position(self.unwrapped, observation)]
        self._peak_force_n, self._n_interventions = info["force_n"], 0
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._positions.append(tool_position(self.unwrapped, observation))
        self._peak_force_n = max(self._peak_force_n, info["force_n"])
        self._n_interventions += "intervene_action" in info
        if terminated or truncated:
            info["figures"] = self._finish(info)
        return observation, reward, terminated, truncated, info

    def _finish(self, info: dict[str, Any]) -> dict[str, Any]:
        self._episode += 1
        period_s = 1 / self.unwrapped.config.control_hz  # type: ignore[attr-defined]
        fault = info.get("robot_error", "")
        values = (
            self._episode,
            len(self._positions) - 1,
            int(info["is_success"]),
            round(self._peak_force_n, 2),
            round(rms_jerk(np.array(self._positions), period_s), 3),
            self._n_interventions,
            fault,
        )
        if self._csv_path is not None:
            self._csv_path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not self._csv_path.exists()
            with open(self._csv_path, "a", newline="") as file:
                csv.writer(file).writerows([FIELDS, values] if is_new else [values])
        if self._say:
            outcome = "success" if info["is_success"] else f"FAULT: {fault}" if fault else "no success"
            print(
                f"Episode {values[0]}: {outcome}, {values[1]} steps, peak force {values[3]} N, "
                f"jerk {values[4]} m/s^3, {values[5]} steps by a person",
                flush=True,
            )
        return dict(zip(FIELDS, values, strict=True))


class FiguresCallback(BaseCallback):
    """The figures as means in SB3's logger: ``robot/peak_force_n``, ``robot/rms_jerk_m_s3``, ``robot/fault``, ..."""

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if (figures := info.get("figures")) is None:
                continue
            for name in ("peak_force_n", "rms_jerk_m_s3", "interventions"):
                self.logger.record_mean(f"robot/{name}", figures[name])
            self.logger.record_mean("robot/fault", float(bool(figures["fault"])))
        return True
