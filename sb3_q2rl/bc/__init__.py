"""Behaviour-cloned policies: the protocol, our own policy and its training, the door for checkpoints."""

from sb3_q2rl.bc.adapter import BCPolicyAdapter
from sb3_q2rl.bc.gaussian import GaussianBCPolicy
from sb3_q2rl.bc.policy import BCPolicy, BCStep
from sb3_q2rl.bc.train import train_bc

__all__ = ["BCPolicy", "BCPolicyAdapter", "BCStep", "GaussianBCPolicy", "train_bc"]
