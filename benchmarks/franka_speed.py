"""
How fast is the simulated Franka? ``python benchmarks/franka_speed.py``

Beside it, taking turns in one process on one core: robosuite's Lift with its own operational space controller, slowed
down to the same control period of 0.1 s, because speeds on a shared machine change within seconds. Seconds are the
process's own, those in which others had the core are not counted. Episodes of random actions, contacts included.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sb3_q2rl.envs.franka.franka_env import FrankaEnv
from sb3_q2rl.envs.franka.tasks import TASKS
from sb3_q2rl.envs.robosuite_fast import import_robosuite, quiet_robosuite

RESULTS = Path(__file__).parent / "results" / "franka_speed.csv"


def steps_per_s(step: Any, actions: np.ndarray) -> float:
    start = time.process_time()
    for action in actions:
        step(action)
    return len(actions) / (time.process_time() - start)


def compare(task: str, images: bool, n_rounds: int) -> dict[str, object]:
    """
    :param task: of the Franka
    :param images: two cameras of 84x84, or the state
    :param n_rounds: a round is a reset and some steps of each side
    :return: medians over the rounds, and the best of them
    """
    env = FrankaEnv(task, obs_mode="image" if images else "state")
    cameras = {"camera_names": ["agentview", "robot0_eye_in_hand"], "camera_heights": 84, "camera_widths": 84}
    with quiet_robosuite():
        plain = import_robosuite().make(
            "Lift",
            robots="Panda",
            control_freq=10,
            has_renderer=False,
            has_offscreen_renderer=images,
            use_camera_obs=images,
            ignore_done=True,
            **(cameras if images else {}),
        )
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(n_rounds + 1):
        actions = rng.uniform(-1, 1, (5 if images else 50, 7))
        start = time.process_time()
        env.reset(seed=seed)
        row = {"reset_s": time.process_time() - start}
        if seed == 0:
            with quiet_robosuite():
                plain.reset()
        row["steps_per_s"] = steps_per_s(env.step, actions)
        row["robosuite_steps_per_s"] = steps_per_s(plain.step, actions)
        row["ratio"] = row["steps_per_s"] / row["robosuite_steps_per_s"]
        if seed > 0:  # the first round loads
            rows.append(row)
    env.close()
    plain.close()
    table = pd.DataFrame(rows)
    result = {"task": task, "images": images, **table.median()}
    return result | {"best_steps_per_s": table["steps_per_s"].max()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # software renderers use every core that they may
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = [compare(task, images, args.rounds) for images in (False, True) for task in TASKS]
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS, index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


if __name__ == "__main__":
    main()
