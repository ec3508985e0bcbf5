"""Scripted experts, and demonstrations recorded from them."""

from sb3_q2rl.demos.experts import EXPERTS, find_expert
from sb3_q2rl.demos.record import record_demonstrations

__all__ = ["EXPERTS", "find_expert", "record_demonstrations"]
