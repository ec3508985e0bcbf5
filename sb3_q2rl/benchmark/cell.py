"""
One cell, run to its end in a process of the referee's: ``python -m sb3_q2rl.benchmark.cell FOLDER REFEREE_PID``. The
folder holds ``wanted.json``, gets checkpoints and logs, and whoever starts the same cell there again goes on from the
last checkpoint.
"""

from __future__ import annotations

import faulthandler
import fcntl
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import HumanOutputFormat, KVWriter, Logger
from stable_baselines3.common.vec_env import VecEnv

import sb3_q2rl.envs  # noqa: F401  registers the environments
from sb3_q2rl.benchmark.algorithms import ALGORITHMS, BC, constructor_keywords, env_wrapper, starts_from_bc
from sb3_q2rl.benchmark.measure import FIELDS, Progress, RefereeCallback, to_csv
from sb3_q2rl.benchmark.suite import Cell
from sb3_q2rl.common.acting import Who
from sb3_q2rl.common.checkpoint import CheckpointCallback, resume, save_checkpoint
from sb3_q2rl.common.episode_log import EpisodeLogCallback
from sb3_q2rl.common.evaluation import evaluate
from sb3_q2rl.common.files import write_whole
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC
from sb3_q2rl.zoo_configs import hyperparameters

Report = Callable[[Progress], None]

# At most so many steps between two checkpoints are what a stop may cost: from images they take a core minutes
SAVE_FREQ = 2_500


class OfflineProgress(KVWriter):
    """
    Tells of an offline phase, which makes no environment step.

    :param tell: what happens now
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        if "pretrain/steps" in key_values:
            self.tell(f"learns offline, step {key_values['pretrain/steps']:,}")

    def close(self) -> None:
        pass


def run_cell(cell: Cell, folder: Path, report: Report) -> str:
    """
    :param cell: what to run
    :param folder: its own, on a disk that outlives a restart
    :param report: told about the progress
    :return: the CSV file
    :raises ValueError: the folder holds a run with other settings
    """
    th.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "lock", lambda: report(Progress(0, "waits for an earlier process to end", ""))):
        _remember(cell, folder / "cell.json")
        _make_files(cell)
        eval_env = make_env(cell, n_envs=cell.evaluation.n_envs, seed=cell.evaluation.seed)
        text = _play_bc(cell, eval_env) if cell.by.algorithm == BC else _learn(cell, folder, eval_env, report)
        eval_env.close()
    write_whole(folder / "evaluations.csv", text)
    report(Progress(cell.steps, "finished", text))
    return text


def start_anew(folder: Path, result: Path) -> None:
    """
    :param folder: of a cell that is to start anew. What it holds is moved to ``NAME.before`` beside it (the
        next time ``NAME.before2``), with the result, unless nothing has been measured yet
    :param result: the cell's published CSV file
    """
    if result.exists():
        names = (folder.with_name(f"{folder.name}.before{i if i > 1 else ''}") for i in itertools.count(1))
        before = next(name for name in names if not name.exists())
        folder.mkdir(parents=True, exist_ok=True)
        folder.rename(before)
        shutil.move(result, before)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def make_env(cell: Cell, n_envs: int, seed: int) -> VecEnv:
    """
    :param cell: whose task, and the wrapper of its configuration
    :param n_envs: environments side by side
    :param seed: of the first
    """
    wrapper: Any = env_wrapper(cell)
    return make_vec_env(cell.to.env, n_envs, seed, wrapper_class=wrapper, env_kwargs=cell.to.env_kwargs)


def _learn(cell: Cell, folder: Path, eval_env: VecEnv, report: Report) -> str:
    row = ALGORITHMS[cell.by.algorithm]
    env = make_env(cell, n_envs=1, seed=cell.seed)
    checkpoints, kwargs = folder / "checkpoints", constructor_keywords(cell)
    if any(checkpoints.glob("step_*")):
        model = resume(row.algorithm, checkpoints, env, device=kwargs["device"])
        print(f"Goes on from step {model.num_timesteps}")
    else:
        model = row.algorithm(env=env, **kwargs)
    who: tuple[Who, ...] = ("model", "rl") if starts_from_bc(cell.by.algorithm) else ("model",)
    episodes = folder / "episodes.csv"
    referee = RefereeCallback(eval_env, cell.evaluation, who, folder / "evaluations.csv", episodes, report)
    referee.init_callback(model)
    referee.go_on_from(model.num_timesteps)
    if getattr(model, "is_pretrained", True):
        referee.tell("starts")
    else:
        model.set_logger(Logger(None, [HumanOutputFormat(sys.stdout), OfflineProgress(referee.tell)]))
    if model.num_timesteps < cell.steps:
        callbacks = [
            EpisodeLogCallback(episodes),
            referee,
            CheckpointCallback(checkpoints, save_freq=min(SAVE_FREQ, cell.evaluation.every)),
        ]
        model.learn(cell.steps - model.num_timesteps, callbacks, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
    referee.finish()
    save_checkpoint(model, checkpoints, keep=1)  # to go on from, should more steps be asked for
    env.close()
    return to_csv(referee.rows)


def _play_bc(cell: Cell, eval_env: VecEnv) -> str:
    """The BC policy alone, acting as it does under the gate. It does not learn, so one row is all."""
    how = hyperparameters("qgated_sac", cell.to.env) | cell.by.hyperparameters
    player: OfflineToOnlineSAC = ALGORITHMS["qgated_sac"].algorithm(
        env=eval_env,
        bc_policy=cell.bc_policy,
        bc_deterministic=how.get("bc_deterministic", True),
        buffer_size=eval_env.num_envs,  # stays empty
        policy_kwargs=cell.networks,
        seed=cell.seed,
        device="cpu",
    )
    eval_env.seed(cell.evaluation.seed)
    result = evaluate(player, eval_env, cell.evaluation.episodes, "bc")
    row: dict[str, Any] = dict.fromkeys(FIELDS, "")
    return to_csv([row | {"timesteps": 0, "episodes": result.n_episodes, "model": round(result.mean_share, 4)}])


def _remember(cell: Cell, path: Path) -> None:
    """What the folder belongs to. The number of steps may change: a longer run goes on."""
    if path.exists():
        before, now = Cell.from_dict(json.loads(path.read_text())).settings, cell.settings
        changed = [name for name in now if now[name] != before[name]]
        if changed:
            raise ValueError(
                f"{path.parent} holds a run of {cell.key} with another `{'`, `'.join(changed)}`: "
                f"{'; '.join(f'{before[name]} then, {now[name]} now' for name in changed)}. "
                "--again starts it anew with the new settings."
            )
    write_whole(path, json.dumps(cell.as_dict(), indent=2))


def _make_files(cell: Cell) -> None:
    """What the run starts from, where the suite says how to make it and nobody has yet."""
    for name in cell.files:  # in the suite's order: a policy may be made from demonstrations that are made first
        if name not in (cell.bc_policy, cell.demonstrations):
            continue
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                subprocess.run([sys.executable, *shlex.split(cell.files[name])], check=True)
            if not path.exists():
                raise ValueError(
                    f"`files` of the suite: python {cell.files[name]} ended well, but did not write {name}."
                )


@contextmanager
def _alone(path: Path, say: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait until no other process is in here: one that a killed referee left behind needs a moment to notice."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(folder: Path, referee_pid: int) -> None:
    """
    :param folder: with ``wanted.json``
    :param referee_pid: of the process that started this one; the run ends when it has gone
    """

    faulthandler.register(signal.SIGTERM, chain=True)  # the log then tells where it was

    def report(progress: Progress) -> None:
        if os.getppid() != referee_pid:
            raise SystemExit("The referee is gone, and this run with it. The next one goes on from the checkpoint.")
        write_whole(folder / "progress.json", json.dumps(progress._asdict()))

    run_cell(Cell.from_dict(json.loads((folder / "wanted.json").read_text())), folder, report)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
