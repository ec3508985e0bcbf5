"""
Updates a second against SB3's SAC with the same networks and as many critics: ``python benchmarks/update_speed.py``.

One process a measurement, one thread, the two sides in turn, the ratio from each pair. The world has the door's sizes
(39 observations, 28 actions) and no simulator.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / "results" / "update_speed.csv"
SETTINGS = (([256, 256], 10), ([512, 512, 512], 10), ([256, 256], 2), ([512, 512, 512], 2))
SIDES = ("SB3 SAC", "QGatedSAC")
OBS_DIM, ACTION_DIM, BATCH = 39, 28, 256


class Noise(gym.Env):
    """Random observations, ten steps an episode: nothing but the algorithm takes time."""

    observation_space = gym.spaces.Box(-1, 1, (OBS_DIM,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (ACTION_DIM,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.observation_space.sample(), -1.0, False, self.t >= 10, {}


def make(side: str, net_arch: list[int], n_critics: int) -> Any:
    from stable_baselines3 import SAC

    from sb3_q2rl import QGatedSAC
    from sb3_q2rl.bc import GaussianBCPolicy

    if side == SIDES[0]:
        kwargs = {"net_arch": net_arch, "n_critics": n_critics}
        return SAC("MlpPolicy", Noise(), policy_kwargs=kwargs, learning_starts=300)
    options = {"gradient_steps": 1, "policy_delay": 1, "n_bc_episodes": 30, "q_init_steps": 1}
    policy_kwargs = {"net_arch": net_arch, "n_critics": n_critics}
    return QGatedSAC(Noise(), bc_policy=GaussianBCPolicy(OBS_DIM, ACTION_DIM), policy_kwargs=policy_kwargs, **options)


def measure(side: str, net_arch: list[int], n_critics: int) -> dict[str, float]:
    """
    :return: updates a second, and milliseconds to choose an action
    """
    import torch as th

    th.set_num_threads(1)
    model = make(side, net_arch, n_critics)
    model.learn(310)
    n = 0
    start = time.perf_counter()
    while time.perf_counter() - start < 3 or n < 5:
        model.train(gradient_steps=1, batch_size=BATCH)
        n += 1
    updates = n / (time.perf_counter() - start)
    start = time.perf_counter()
    for _ in range(300):
        model._sample_action(0, None, 1)
    return {"updates_per_s": updates, "act_ms": (time.perf_counter() - start) / 300 * 1000}


def run(side: str, net_arch: list[int], n_critics: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", side, json.dumps(net_arch), str(n_critics)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="pairs of measurements; the table has the medians")
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "NET_ARCH", "N_CRITICS"), help="one measurement, as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], json.loads(args.one[1]), int(args.one[2]))))
        return
    rows = []
    for net_arch, n_critics in SETTINGS:
        pairs = [tuple(run(side, net_arch, n_critics) for side in SIDES) for _ in range(args.repeats)]
        sb3, ours = (pd.DataFrame(side).median() for side in zip(*pairs, strict=True))
        ratios = [ours_["updates_per_s"] / sb3_["updates_per_s"] for sb3_, ours_ in pairs]
        rows.append(
            {
                "nets": "x".join(map(str, net_arch)),
                "n_critics": n_critics,
                "sb3_updates_per_s": round(float(sb3.updates_per_s), 1),
                "ours_updates_per_s": round(float(ours.updates_per_s), 1),
                "ratio": round(float(np.median(ratios)), 2),
                "ratio_min": round(min(ratios), 2),
                "ratio_max": round(max(ratios), 2),
                "sb3_act_ms": round(float(sb3.act_ms), 2),
                "gate_act_ms": round(float(ours.act_ms), 2),
            }
        )
        print(rows[-1], flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
