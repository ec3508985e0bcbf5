"""Q2RL for Stable-Baselines3: a behaviour-cloned policy that keeps improving."""

import sb3_q2rl.envs  # noqa: F401  registers the environments' ids
from sb3_q2rl.baselines import CQL, IBRL, RLPD, WSRL, CalQL
from sb3_q2rl.bc.adapter import BCPolicyAdapter
from sb3_q2rl.bc.policy import BCPolicy, BCStep
from sb3_q2rl.bc.train import train_bc
from sb3_q2rl.data import Demonstrations
from sb3_q2rl.q2rl import QGatedResidualSAC, QGatedSAC, QGatedTQC

__version__ = "0.1.0"
__all__ = [
    "CQL",
    "IBRL",
    "RLPD",
    "WSRL",
    "BCPolicy",
    "BCPolicyAdapter",
    "BCStep",
    "CalQL",
    "Demonstrations",
    "QGatedResidualSAC",
    "QGatedSAC",
    "QGatedTQC",
    "train_bc",
]
