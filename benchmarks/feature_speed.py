"""
What learning costs from a state, from the BC policy's features of two cameras, and from the cameras' pixels:
``python benchmarks/feature_speed.py``. Lift, the settings of ``lift.yml`` and ``images.yml``.

One process, one thread, the three in turn. An update is one of the actor and all of the critics' that go with it; a
step is everything: simulator, cameras, BC policy, gate and the updates that its schedule asks for.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch as th

from sb3_q2rl.benchmark.algorithms import ALGORITHMS, constructor_keywords
from sb3_q2rl.benchmark.cell import make_env
from sb3_q2rl.benchmark.suite import load_suite

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "feature_speed.csv"
KINDS = {
    "state": ("lift.yml", "lift", "Q2RL"),
    "BC features of two cameras": ("images.yml", "lift-image", "Q2RL"),
    "pixels of two cameras": ("images.yml", "lift-image", "Q2RL-from-pixels"),
}


def start(suite: str, task: str, label: str) -> Any:
    """A model that has begun to act by its gate, prepared too little to be any good."""
    (cell,) = load_suite(HERE / suite).cells({"task": [task], "algorithm": [label], "seed": ["0"]})
    kwargs = constructor_keywords(cell) | {"n_bc_episodes": 1, "q_init_steps": 10, "verbose": 0}
    model = ALGORITHMS[cell.by.algorithm].algorithm(env=make_env(cell, n_envs=1, seed=0), **kwargs)
    estimate = model.policy.q_estimate
    estimate.fit = partial(estimate.fit, max_steps=25)
    model.learn(320)  # an episode takes 300 at most
    return model


def measure(model: Any, n_updates: int, n_steps: int) -> tuple[float, float]:
    """:return: seconds an update, seconds a step"""
    started = time.perf_counter()
    for _ in range(n_updates):
        model.train(model.policy_delay, model.batch_size)
    updated = time.perf_counter()
    model.learn(n_steps, reset_num_timesteps=False)
    return (updated - started) / n_updates, (time.perf_counter() - updated) / n_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the median counts")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    th.set_num_threads(1)
    models = {kind: start(*where) for kind, where in KINDS.items()}
    measured = [
        (kind, *measure(model, args.updates, args.steps)) for _ in range(args.rounds) for kind, model in models.items()
    ]
    seconds = pd.DataFrame(measured, columns=["kind", "update_s", "step_s"]).groupby("kind").median()
    table = pd.DataFrame(
        {
            "update_ms": 1000 * seconds.update_s,
            "step_ms": 1000 * seconds.step_s,
            "update_to_pixels": seconds.update_s / seconds.update_s["pixels of two cameras"],
            "step_to_pixels": seconds.step_s / seconds.step_s["pixels of two cameras"],
            "buffer_gb_100k": {
                kind: 1e5 * model.replay_buffer.bytes_when_full() / model.buffer_size / 1e9
                for kind, model in models.items()
            },
        }
    ).loc[list(KINDS)]
    table.round(3).to_csv(RESULTS)
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
