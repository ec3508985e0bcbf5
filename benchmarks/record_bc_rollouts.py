"""
Offline data as the authors of Cal-QL and WSRL have it on Adroit: demonstrations, and beside them episodes of a BC
policy, successes and failures (benchmarks/offline_data.yml makes it so):

    python benchmarks/record_bc_rollouts.py --env AdroitHandDoorBinary-v0 --bc-policy adroit-door-human \\
        --demonstrations adroit-door-human --out logs/demos/door_with_rollouts.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from tqdm import tqdm

import sb3_q2rl.envs  # noqa: F401  registers the environments
from sb3_q2rl.bc.evaluate import play
from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.bc.record import open_bc_policy
from sb3_q2rl.data import Demonstrations
from sb3_q2rl.data.assemble import RecordedEpisode, assemble
from sb3_q2rl.data.npz import save_npz


def record(env: gym.Env, bc: BCPolicy, seed: int) -> tuple[RecordedEpisode, bool]:
    """One episode of the BC policy's mode, and whether it succeeded; flat observations only."""
    steps = list(play(bc, env, seed=seed))
    episode = RecordedEpisode(
        np.stack([*(step.observation for step in steps), steps[-1].next_observation]),
        np.stack([step.action for step in steps]),
        np.array([step.reward for step in steps]),
        steps[-1].terminated,
    )
    return episode, bool(steps[-1].info["is_success"])


def of_demonstrations(demonstrations: Demonstrations) -> list[RecordedEpisode]:
    """The same episodes, to be put together with others."""
    return [
        RecordedEpisode(
            each.observations, each.actions, each.rewards, bool(each.terminated[-1]), each.next_observations
        )
        for each in demonstrations.episodes()
    ]


def main() -> None:
    """Play, put together, save, and tell what is in the file."""
    parser = argparse.ArgumentParser(description="Record episodes of a BC policy beside demonstrations.")
    parser.add_argument("--env", required=True)
    parser.add_argument("--bc-policy", required=True, help="a checkpoint, or the name of a shipped policy")
    parser.add_argument("--demonstrations", required=True, help="a file, or the name of a shipped data set")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True, help="npz file to write")
    args = parser.parse_args()
    env, bc = gym.make(args.env), open_bc_policy(args.bc_policy, th.device("cpu"))
    rollouts = [record(env, bc, seed) for seed in tqdm(range(args.episodes), "episodes")]
    recorded = of_demonstrations(Demonstrations.load(args.demonstrations))
    episodes = [*recorded, *(episode for episode, _ in rollouts)]
    everything = assemble(episodes, origin="the BC policy's episodes", source="policy-generated", clip_actions=False)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_npz(everything, args.out)
    n_successes = sum(success for _, success in rollouts)
    print(f"{args.out}: {len(recorded)} demonstrations, {len(rollouts)} episodes of BC, {n_successes} with success")


if __name__ == "__main__":
    main()
