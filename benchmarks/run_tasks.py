"""
QGatedSAC on our tasks over several seeds: ``make benchmark`` for door and pen.

Each run is a process of its own with one thread. Stopped runs go on from their last checkpoint, finished ones are not
repeated, and ``--report`` draws the plots and the table from the CSV files that are there.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

ENVS = ("AdroitHandDoorBinary-v0", "AdroitHandPenBinary-v0")
RESULTS = Path(__file__).parent / "results" / "tasks"
CHECKPOINTS = Path("logs/benchmark")


def name(env_id: str, recipe: str, seed: int) -> str:
    return f"{env_id}_{recipe}_seed{seed}"


def train(env_id: str, recipe: str, seed: int, steps: int) -> None:
    """
    One run. The paper's preset learns with the default's small networks, so that the recipes are what differs.

    :param recipe: a preset, and what to change in it: "default", "paper", "default,bc_temperature=5"
    """
    import torch as th
    from stable_baselines3.common.env_util import make_vec_env

    from sb3_q2rl import QGatedSAC
    from sb3_q2rl.common.checkpoint import CheckpointCallback, resume, save_checkpoint
    from sb3_q2rl.common.episode_log import EpisodeLogCallback
    from sb3_q2rl.common.eval_callback import GateEvalCallback
    from sb3_q2rl.zoo_configs import hyperparameters

    th.set_num_threads(1)
    preset, *changes = recipe.split(",")
    kwargs = hyperparameters("qgated_sac", env_id, None if preset == "default" else preset)
    kwargs["policy_kwargs"] = hyperparameters("qgated_sac", env_id)["policy_kwargs"]
    kwargs.update({key: ast.literal_eval(value) for key, value in (change.split("=") for change in changes)})
    run = name(env_id, recipe, seed)
    env = make_vec_env(env_id, seed=seed)
    if any((CHECKPOINTS / run).glob("step_*")):
        model = resume(QGatedSAC, CHECKPOINTS / run, env)
    else:
        model = QGatedSAC(env=env, seed=seed, verbose=1, **kwargs)
    callbacks = [
        EpisodeLogCallback(RESULTS / f"{run}_episodes.csv"),
        GateEvalCallback(
            make_vec_env(env_id, n_envs=10, seed=10_000),
            n_eval_episodes=50,
            eval_freq=10_000,
            csv_path=RESULTS / f"{run}_evaluations.csv",
            verbose=1,
        ),
        CheckpointCallback(CHECKPOINTS / run, save_freq=10_000),
    ]
    model.learn(steps - model.num_timesteps, callbacks, log_interval=None, reset_num_timesteps=False)
    callbacks[1].evaluate_now()  # type: ignore[attr-defined]
    save_checkpoint(model, CHECKPOINTS / run)  # to go on from, should more steps be asked for
    (CHECKPOINTS / run / "finished").write_text(f"{steps}\n")


def report() -> None:
    """Plots and tables of whatever is there."""
    from sb3_q2rl.benchmark.plots import Run, learning_curve

    lines = []
    files = sorted(RESULTS.glob("*_evaluations.csv"))
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.name.rsplit("_seed", 1)[0], []).append(file)
    for group, members in groups.items():
        runs = [Run.read(file, str(file).replace("_evaluations", "_episodes")) for file in members]
        env_id, recipe = group.split("_", 1)
        learning_curve(runs, RESULTS / f"{group}.png", f"{env_id}, {recipe} recipe, {len(runs)} seed(s)")
        last = pd.DataFrame([run.evaluations.iloc[-1] for run in runs])
        first = pd.DataFrame([run.evaluations.iloc[0] for run in runs])
        lines.append(
            {
                "env": env_id,
                "recipe": recipe,
                "seeds": len(runs),
                "steps": int(last.timesteps.min()),
                "episodes": int(last.episodes.sum()),
                "bc": round(float(last.bc.mean()), 3),
                "at_switch": round(float(first.model.mean()), 3),
                "final": round(float(last.model.mean()), 3),
                "final_95": _pooled_interval(last),
                "final_per_seed": " ".join(f"{value:.2f}" for value in last.model),
                "final_rl": round(float(last.rl.mean()), 3),
                "lowest_after_switch": round(float(np.min([run.evaluations.model.min() for run in runs])), 3),
            }
        )
    table = pd.DataFrame(lines)
    table.to_csv(RESULTS / "summary.csv", index=False)
    print(table.to_string(index=False))


def _pooled_interval(last: pd.DataFrame) -> str:
    """Of all episodes of all seeds together: it leaves out how much seeds differ, which final_per_seed shows."""
    from sb3_q2rl.bc.evaluate import wilson_interval

    low, high = wilson_interval(round(float((last.model * last.episodes).sum())), int(last.episodes.sum()))
    return f"{low:.2f}-{high:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=list(ENVS), help="ids; the configuration names their BC policies")
    parser.add_argument(
        "--recipes", nargs="+", default=["default"], help="default, paper, or with changes: default,bc_temperature=5"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps, estimation included")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--report", action="store_true", help="only draw what is there")
    parser.add_argument("--one", action="store_true", help="run the first of everything in this process")
    args = parser.parse_args()
    if args.one:
        return train(args.envs[0], args.recipes[0], args.seeds[0], args.steps)
    if not args.report:
        cells = [(env, recipe, seed) for seed in args.seeds for recipe in args.recipes for env in args.envs]
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda cell: _run_in_process(*cell, args.steps), cells))
    return report()


def _run_in_process(env_id: str, recipe: str, seed: int, steps: int) -> None:
    run = name(env_id, recipe, seed)
    finished = CHECKPOINTS / run / "finished"
    if finished.exists() and int(finished.read_text()) >= steps:
        print(f"{run}: finished before")
        return
    print(f"{run}: starts", flush=True)
    command = [sys.executable, __file__, "--one", "--envs", env_id, "--recipes", recipe, "--seeds", str(seed)]
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    with open(CHECKPOINTS / f"{run}.log", "a") as log:
        code = subprocess.run([*command, "--steps", str(steps)], stdout=log, stderr=log).returncode
    print(f"{run}: {'finished' if code == 0 else f'FAILED, see {CHECKPOINTS / run}.log'}", flush=True)


if __name__ == "__main__":
    main()
