"""Q-gating: who acts at this step?"""

from __future__ import annotations

import torch as th


def max_gate(q_rl: th.Tensor, q_bc: th.Tensor) -> th.Tensor:
    """
    Q2RL, eq. Q-gating: the RL action is executed where Q_RL(s, a_RL) > Q̂_BC(s, a_BC); a tie goes to the BC policy.

    :param q_rl: (n,) the critics' value of the RL action
    :param q_bc: (n,) the frozen estimate of the BC action's value
    :return: (n,) bool, True: execute the RL action
    """
    return q_rl > q_bc
