"""The rivals, each on the same networks, buffers and update loop as Q2RL."""

from sb3_q2rl.baselines.cal_ql import CalQL
from sb3_q2rl.baselines.cql import CQL
from sb3_q2rl.baselines.ibrl import IBRL
from sb3_q2rl.baselines.rlpd import RLPD
from sb3_q2rl.baselines.wsrl import WSRL

__all__ = ["CQL", "IBRL", "RLPD", "WSRL", "CalQL"]
