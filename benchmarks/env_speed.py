"""
How fast are the environments beside robosuite's own? ``python benchmarks/env_speed.py``

Both sides of a pair live in one process on one core and take turns of some steps with the same actions, because speeds
on a shared machine change within seconds. Seconds are the process's own, those in which others had the core are not
counted. The plain side is `robosuite.make(...)` with its defaults, and with two 84x84 cameras for the image tasks.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

import sb3_q2rl.envs  # noqa: F401
from sb3_q2rl.envs.robomimic import RobomimicEnv
from sb3_q2rl.envs.robosuite_fast import import_robosuite, quiet_robosuite

RESULTS = Path(__file__).parent / "results" / "env_speed.csv"
CAMERAS = {
    "use_camera_obs": True,
    "has_offscreen_renderer": True,
    "camera_names": ["agentview", "robot0_eye_in_hand"],
    "camera_heights": 84,
    "camera_widths": 84,
}


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def compare(task: str, images: bool, n_rounds: int) -> dict[str, object]:
    """
    :param task: ``"Lift"``, ``"Can"`` or ``"Square"``
    :param images: from images or from the state
    :param n_rounds: a round is a reset and some steps of each side
    :return: medians over the rounds
    """
    env = gym.make(f"Robomimic{task}{'Image' if images else ''}-v0").unwrapped
    assert isinstance(env, RobomimicEnv)
    kwargs = env.env_args["env_kwargs"] | (CAMERAS if images else {})
    with quiet_robosuite():
        plain = import_robosuite().make(env.env_args["env_name"], **kwargs)
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(n_rounds + 1):
        actions = rng.uniform(-1, 1, (5 if images else 40, 7))
        row = {"reset_s": seconds(env.reset)}
        with quiet_robosuite():
            row["robosuite_reset_s"] = seconds(plain.reset)
        row["steps_per_s"] = len(actions) / sum(seconds(env.step, action) for action in actions)
        row["robosuite_steps_per_s"] = len(actions) / sum(seconds(plain.step, action) for action in actions)
        row["ratio"] = row["steps_per_s"] / row["robosuite_steps_per_s"]
        if seed > 0:  # the first round compiles and loads
            rows.append(row)
    env.close()
    plain.close()
    table = pd.DataFrame(rows)
    result = {"env": f"Robomimic{task}{'Image' if images else ''}-v0", **table.median()}
    return result | {"best_steps_per_s": table["steps_per_s"].max()}


def kitchen(n_rounds: int) -> dict[str, object]:
    """:return: the kitchen alone: nothing of its simulator was changed"""
    env = gym.make("FrankaKitchenComplete-v0").unwrapped
    resets = [seconds(env.reset) for _ in range(n_rounds)]
    speeds = []
    for _ in range(n_rounds):
        speeds.append(40 / sum(seconds(env.step, env.action_space.sample()) for _ in range(40)))
    env.close()
    speeds_and_resets = {"reset_s": np.median(resets), "steps_per_s": np.median(speeds)}
    return {"env": "FrankaKitchenComplete-v0", **speeds_and_resets, "best_steps_per_s": max(speeds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # software renderers use every core that they may
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = []
    for images in (False, True):
        for task in ("Lift", "Can", "Square"):
            rows.append(compare(task, images, args.rounds))
            print(rows[-1], flush=True)
    rows.append(kitchen(args.rounds))
    table = pd.DataFrame(rows).round({"reset_s": 4, "robosuite_reset_s": 3, "ratio": 2})
    table = table.round({name: 1 for name in table if "steps_per_s" in name})
    table.to_csv(RESULTS, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
