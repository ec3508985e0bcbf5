"""QGatedResidualSAC: Q2RL whose actor corrects the BC policy's proposal instead of being cloned from it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch.distributions import Distribution

from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.proposals import ProposalSAC
from sb3_q2rl.q2rl.q_gated_sac import QGatedSAC
from sb3_q2rl.q2rl.residual_policies import (
    GatedResidualCnnPolicy,
    GatedResidualMultiInputPolicy,
    GatedResidualPolicy,
)


class QGatedResidualSAC(QGatedSAC, ProposalSAC):
    """
    Q2RL clones its actor from the BC policy's actions, and SAC's actor is one Gaussian. Where the BC policy is more
    than that (a mixture, a recurrent network), the clone fails, and the gate, whose critics have not learnt so yet,
    lets it through. Here the RL action is the proposed action and a correction, which starts at 0 (residual
    reinforcement learning, https://arxiv.org/abs/1812.03201; with off-policy learning from a BC policy:
    https://arxiv.org/abs/2509.19301): when the gate opens, the actor is as good as the BC policy, its noise aside.

    Everything else is :class:`QGatedSAC`: Q-estimation, the gate, the auxiliary loss, which here keeps corrections
    small. It is not part of the paper.

    :param args: See :class:`QGatedSAC`
    :param policy_kwargs: ``residual_std``: exploration around the corrected action, and those of :class:`QGatedSAC`
    :param kwargs: See :class:`QGatedSAC`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": GatedResidualPolicy,
        "CnnPolicy": GatedResidualCnnPolicy,
        "MultiInputPolicy": GatedResidualMultiInputPolicy,
    }

    def _actor_input(self, obs: Any, bc_actions: th.Tensor | None) -> Any:
        return obs, bc_actions

    def _to_clone(self, distribution: Distribution) -> th.Tensor:
        """Whatever the BC policy may propose: it is what the actor is given."""
        return distribution.sample()

    def _next_actions(self, batch: BCSamples) -> tuple[th.Tensor, th.Tensor]:
        """a' corrects what the BC policy proposes at s'; where that is unknown, what it proposed last."""
        assert batch.bc_actions is not None
        proposals = self._next_bc_actions(batch)
        proposals = th.where(proposals.isnan(), batch.bc_actions, proposals)
        return self.actor.action_log_prob(self._actor_input(batch.next_observations, proposals))
