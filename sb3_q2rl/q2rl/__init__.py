"""Q2RL: Q-estimation and Q-gating."""

from sb3_q2rl.q2rl.q_gated_sac import QGatedSAC

__all__ = ["QGatedSAC"]
