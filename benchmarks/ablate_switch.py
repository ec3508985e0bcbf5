"""
What is the gate worth at the moment it opens? ``python benchmarks/ablate_switch.py``

Q-initialisation fits the critics either to Q̂_BC (ours) or to the raw Monte-Carlo returns (the reference). For each
seed the BC episodes are played, the networks are fitted to them, and gate, RL alone and BC alone are evaluated at once,
before any online learning.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_q2rl import QGatedSAC
from sb3_q2rl.common.evaluation import evaluate
from sb3_q2rl.zoo_configs import hyperparameters

RESULTS = Path(__file__).parent / "results"


class FittedToReturns(QGatedSAC):
    """The reference's Q-initialisation: G + alpha (log pi + H) instead of Q̂_BC."""

    def _bc_values(self, rows: np.ndarray, columns: np.ndarray, chunk: int = 4096) -> th.Tensor:
        returns = self.replay_buffer.gather(rows, columns).mc_returns
        assert returns is not None
        return returns


class UntilTheSwitch(BaseCallback):
    """Stop as soon as the gate has opened."""

    def _on_step(self) -> bool:
        return not self.model.has_started  # type: ignore[attr-defined]


VARIANTS = {"Q̂_BC (ours)": QGatedSAC, "raw returns (reference)": FittedToReturns}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="AdroitHandDoorBinary-v0")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation")
    args = parser.parse_args()
    th.set_num_threads(1)
    kwargs = hyperparameters("qgated_sac", args.env)
    eval_env = make_vec_env(args.env, n_envs=10, seed=20_000)
    rows = []
    for seed in args.seeds:
        for variant, algorithm in VARIANTS.items():
            model = algorithm(env=make_vec_env(args.env, seed=seed), seed=seed, **kwargs)
            model.learn(1_000_000, callback=UntilTheSwitch(), log_interval=None)
            row: dict[str, object] = {"env": args.env, "critics_start_at": variant, "seed": seed}
            for who in ("model", "rl", "bc"):
                eval_env.seed(20_000)
                row[who] = evaluate(model, eval_env, args.episodes, who).success_rate  # type: ignore[arg-type]
            rows.append(row)
            print(row, flush=True)
            pd.DataFrame(rows).to_csv(RESULTS / f"switch_{args.env}.csv", index=False)
    print(pd.DataFrame(rows).groupby("critics_start_at")[["model", "rl", "bc"]].agg(["mean", "min", "max"]).round(2))


if __name__ == "__main__":
    main()
