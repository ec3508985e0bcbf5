"""Cal-QL: CQL whose Q-values are not pushed below the returns of the data."""

from __future__ import annotations

import torch as th

from sb3_q2rl.baselines.cql import CQL
from sb3_q2rl.common.buffers import BCSamples


class CalQL(CQL):
    """
    Calibrated Q-learning (https://arxiv.org/abs/2303.05479): CQL pushes values far below those of any real policy, and
    online learning starts with unlearning that. Here the policy's actions are not pushed below the Monte-Carlo return
    from the same state, the value of the policy that recorded the data (equation 5.1).

    The arguments and defaults are CQL's, which are those of the authors' code (https://github.com/nakamotoo/Cal-QL).
    """

    def _calibrated(self, q_values: th.Tensor, batch: BCSamples) -> th.Tensor:
        """max(Q(s, a), G(s)) for the actions of the policy; those of the uniform distribution stay as they are."""
        assert batch.mc_returns is not None
        # An episode that has not ended has no return yet, hence no floor
        floor = batch.mc_returns.nan_to_num(nan=-th.inf, posinf=th.inf, neginf=-th.inf).unsqueeze(1)
        uniform, policys = q_values.tensor_split([self.n_action_samples], dim=2)
        self._log_mean("train/calibrated_fraction", (policys.detach() < floor).float().mean())
        return th.cat([uniform, policys.maximum(floor)], dim=2)
