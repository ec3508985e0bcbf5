"""``robot record``: demonstrations, by a person's hand or by a script, as a file that ``bc`` learns from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sb3_q2rl.demos.from_log import log_to_demonstrations
from sb3_q2rl.demos.record import record_demonstrations
from sb3_q2rl.envs.franka.franka_actions import ACTION_DIM
from sb3_q2rl.robot.goal import GoalEnv, scripted_actions
from sb3_q2rl.robot.make import add_env_options, make_env, simulated_id

# More failures than this for each demonstration: something is wrong
MAX_ATTEMPTS = 5


def add_parser(subparsers: Any) -> None:
    """
    :param subparsers: of ``robot``
    """
    parser = subparsers.add_parser("record", help="record demonstrations", description=__doc__)
    add_env_options(parser)
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file in robomimic's layout")
    parser.add_argument("--episodes", type=int, default=50, help="successful ones to record")
    parser.add_argument(
        "--by", choices=("hand", "script"), default="hand", help="script: simulation, or a lab's `goal`"
    )
    parser.add_argument("--noise", type=float, default=0.1, help="of the script, on actions in [-1, 1]")
    parser.set_defaults(run_robot=run)


def run(args: argparse.Namespace) -> int:
    """
    :param args: see :func:`add_parser`
    :return: exit status
    """
    if args.episodes < 1:
        raise ValueError(f"`episodes` is {args.episodes}: at least one must be recorded.")
    if args.robot == "sim":
        if args.by == "hand":
            raise ValueError("`--robot sim` is faster than a hand; use `--by script`, or a real robot")
        for option in ("lab", "dry_run", "max_episode_steps", "operator"):
            if (value := getattr(args, option)) not in (None, False, "none"):
                raise ValueError(
                    f"`--robot sim` records in the task's own environment, which knows nothing of "
                    f"`--{option.replace('_', '-')}` {value}. Leave it out, or record on a robot: `--robot fci`"
                )
        env_id = simulated_id(args.task, args.obs_mode)
        recorded = record_demonstrations(env_id, args.output, args.episodes, args.noise, args.seed)
    else:
        log = args.output.with_suffix(".transitions")
        _play(args, log)
        recorded = log_to_demonstrations(log, args.output, source="human" if args.by == "hand" else "scripted")
    print(
        f"{recorded.path}: {recorded.n_episodes} demonstrations, {recorded.n_steps} steps. "
        f"{recorded.n_successes} of {recorded.n_played} episodes succeeded."
    )
    return 0


def _play(args: argparse.Namespace, log: Path) -> None:
    env = make_env(args, record_to=log)
    franka = env.unwrapped
    if args.by == "hand" and franka.operator is None:  # type: ignore[attr-defined]
        raise ValueError("`--by hand` needs somebody at `--operator` keyboard, gamepad or spacemouse")
    if args.by == "script" and not isinstance(franka, GoalEnv):
        raise ValueError("`--by script` on a real robot needs to know where to go: `goal` in the lab file")
    rng = np.random.default_rng(args.seed)
    n_successes = n_played = 0
    try:
        while n_successes < args.episodes:
            if n_played >= MAX_ATTEMPTS * args.episodes:
                raise ValueError(
                    f"{n_successes} of {n_played} episodes succeeded: too few. Look at the goal and limits"
                )
            env.reset(seed=args.seed if n_played == 0 else None)
            actions = scripted_actions(franka, rng, args.noise) if isinstance(franka, GoalEnv) else _idle()
            if args.by == "hand":
                actions = _idle()
            over = False
            while not over:
                _, _, terminated, truncated, info = env.step(next(actions))
                over = terminated or truncated
            n_played += 1
            n_successes += info["is_success"]
    finally:
        env.close()


def _idle() -> Iterator[np.ndarray]:
    """What is done while the person does nothing."""
    while True:
        yield np.zeros(ACTION_DIM)
