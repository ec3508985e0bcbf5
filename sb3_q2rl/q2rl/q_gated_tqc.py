"""QGatedTQC: Q2RL on critics that learn the distribution of the return and cut its optimistic end off."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch as th
import torch.nn.functional as F
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.critics import QuantileCritic
from sb3_q2rl.q2rl.policies import GatedTQCCnnPolicy, GatedTQCMultiInputPolicy, GatedTQCPolicy
from sb3_q2rl.q2rl.q_gated_sac import QGatedSAC


class QGatedTQC(QGatedSAC):
    """
    Q2RL with the critics of Truncated Quantile Critics (https://arxiv.org/abs/2005.04269). Q-estimation, the gate and
    the BC loss are those of :class:`QGatedSAC`. What differs:

    - a critic gives quantiles of the return; its value is their mean (``policy_kwargs``: ``n_quantiles``, 25);
    - the TD target pools the quantiles of the target critics and leaves the largest out, instead of taking the lowest
      critic;
    - the loss, Q-initialisation's too, is the quantile Huber loss;
    - the actor climbs the mean over all critics, as TQC's does: the truncation is in what they learn already.

    The gate asks the lowest critic, as Q2RL's does, and not the mean. Truncation answers to the bias of bootstrapping;
    the gate guards against actions that the critics have seen too little of, about which they disagree. The value of
    the BC action that it compares with holds no such error.

    The defaults are those of sb3-contrib's TQC: two critics of 25 quantiles, all of them in the target, two quantiles
    left out for each.

    :param policy: See :class:`QGatedSAC`
    :param env: See :class:`QGatedSAC`
    :param bc_policy: See :class:`QGatedSAC`
    :param top_quantiles_to_drop_per_net: Quantiles that the TD target leaves out, for each critic in it
    :param n_target_critics: The TD target pools the quantiles of so many randomly drawn target critics; ``None``: all
    :param kwargs: All else of :class:`QGatedSAC`
    :raises ValueError: no quantile would be left
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": GatedTQCPolicy,
        "CnnPolicy": GatedTQCCnnPolicy,
        "MultiInputPolicy": GatedTQCMultiInputPolicy,
    }
    policy: GatedTQCPolicy
    critic: QuantileCritic  # type: ignore[assignment]
    critic_target: QuantileCritic  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[GatedTQCPolicy] | GymEnv | None = None,
        env: GymEnv | str | None = None,
        bc_policy: BCPolicy | str | Path | None = None,
        *,
        top_quantiles_to_drop_per_net: int = 2,
        n_target_critics: int | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, bc_policy, n_target_critics=n_target_critics, _init_setup_model=False, **kwargs)
        self.top_quantiles_to_drop_per_net = top_quantiles_to_drop_per_net
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        if not 0 <= self.top_quantiles_to_drop_per_net < self.policy.n_quantiles:
            raise ValueError(
                f"`top_quantiles_to_drop_per_net` is {self.top_quantiles_to_drop_per_net}, but a critic has "
                f"`n_quantiles`={self.policy.n_quantiles}: use 0 for no truncation, or fewer than it has."
            )

    def _next_value(self, obs: Any, actions: th.Tensor, members: th.Tensor) -> th.Tensor:
        """
        TQC's truncated mixture: the quantiles of all these critics together, without the largest.

        :return: (n_kept, batch), in ascending order
        """
        pooled = self.critic_target.quantiles(obs, actions, members).transpose(0, 1).flatten(1)
        n_kept = pooled.shape[1] - self.top_quantiles_to_drop_per_net * len(members)
        return pooled.sort(dim=1).values[:, :n_kept].T

    def _value_loss(self, batch: BCSamples, targets: th.Tensor) -> th.Tensor:
        """
        TQC's: the mean over critics, their quantiles and the targets of the quantile Huber loss.

        :param batch: (batch, ...)
        :param targets: (n_targets, batch) samples of the return, or (batch,) one of each
        """
        quantiles = self.critic.quantiles(batch.observations, batch.actions)  # (n_critics, batch, n_quantiles)
        self._log_mean("train/q_mean", quantiles.detach().mean())
        return quantile_huber_loss(quantiles, th.atleast_2d(targets).T)

    def _policy_value(self, obs: Any, actions: th.Tensor) -> th.Tensor:
        return self.critic(obs, actions).mean(dim=0)


def quantile_huber_loss(quantiles: th.Tensor, targets: th.Tensor) -> th.Tensor:
    """
    mean of |tau_m - 1(y < q_m)| Huber(y - q_m), tau_m = (m + 1/2) / n_quantiles (https://arxiv.org/abs/1710.10044)

    :param quantiles: (n_critics, batch, n_quantiles)
    :param targets: (batch, n_targets), the same for all critics
    """
    n_quantiles = quantiles.shape[2]
    levels = (th.arange(n_quantiles, device=quantiles.device, dtype=quantiles.dtype) + 0.5) / n_quantiles
    predicted, wanted = th.broadcast_tensors(quantiles.unsqueeze(3), targets.unsqueeze(1))
    weight = (levels.unsqueeze(1) - (wanted < predicted).to(levels.dtype)).abs()
    return (weight * F.huber_loss(predicted, wanted, reduction="none")).mean()
