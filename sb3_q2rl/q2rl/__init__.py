"""Q2RL: Q-estimation and Q-gating."""

from sb3_q2rl.q2rl.loading import load_model
from sb3_q2rl.q2rl.q_gated_residual import QGatedResidualSAC
from sb3_q2rl.q2rl.q_gated_sac import QGatedSAC
from sb3_q2rl.q2rl.q_gated_tqc import QGatedTQC

__all__ = ["QGatedResidualSAC", "QGatedSAC", "QGatedTQC", "load_model"]
