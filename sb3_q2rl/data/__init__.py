"""Demonstrations and the files they come from."""

from sb3_q2rl.data.demonstrations import Demonstrations
from sb3_q2rl.data.npz import save_npz

__all__ = ["Demonstrations", "save_npz"]
