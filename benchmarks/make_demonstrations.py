"""
How the shipped demonstrations were made: those that the shipped BC policies of the same tasks were cloned from, with
the rewards of the environments to learn in. Each takes a minute or two:

    python benchmarks/make_demonstrations.py pen --out sb3_q2rl/assets/adroit_pen_dapg.npz
    python benchmarks/make_demonstrations.py lift --out sb3_q2rl/assets/robomimic_lift_scripted.npz
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
from make_bc_policies import pen_demonstrations

from sb3_q2rl.data import Demonstrations
from sb3_q2rl.data.npz import save_npz
from sb3_q2rl.demos.record import record_demonstrations


def make_pen() -> Demonstrations:
    """50 episodes in which the DAPG expert succeeded."""
    return pen_demonstrations(gym.make("AdroitHandPenBinary-v0"), n_episodes=50)


def make_lift() -> Demonstrations:
    """16 episodes of our scripted expert with action noise 0.1."""
    env = gym.make("RobomimicLift-v0")
    rewards = {name: env.get_wrapper_attr(name) for name in ("reward_scale", "reward_bias")}
    with tempfile.TemporaryDirectory() as folder:
        recorded = record_demonstrations("RobomimicLift-v0", Path(folder) / "demos.hdf5", 16, noise=0.1, seed=0)
        return Demonstrations.load(recorded.path, **rewards)


MAKERS: dict[str, Callable[[], Demonstrations]] = {"pen": make_pen, "lift": make_lift}


def main() -> None:
    """Record, save, and tell what is in the file."""
    parser = argparse.ArgumentParser(description="Make one of the data sets that are shipped with sb3_q2rl.")
    parser.add_argument("task", choices=list(MAKERS))
    parser.add_argument("--out", type=Path, required=True, help="npz file to write")
    args = parser.parse_args()
    demonstrations = MAKERS[args.task]()
    save_npz(demonstrations, args.out)
    print(
        f"{args.out}: {len(demonstrations.episode_ends)} {demonstrations.source} episodes, "
        f"{len(demonstrations)} steps, {demonstrations.terminated.sum()} successes, "
        f"rewards {sorted(set(demonstrations.rewards.tolist()))}, {args.out.stat().st_size / 1e3:.0f} kB"
    )


if __name__ == "__main__":
    main()
