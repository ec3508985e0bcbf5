"""The demonstrations that `adroit-pen-dapg` was cloned from: ``python benchmarks/record_pen.py logs/demos/pen.npz``"""

from __future__ import annotations

import sys

import gymnasium as gym
from make_bc_policies import pen_demonstrations

from sb3_q2rl.data.npz import save_npz

if __name__ == "__main__":
    save_npz(pen_demonstrations(gym.make("AdroitHandPenBinary-v0"), n_episodes=50), sys.argv[1])
