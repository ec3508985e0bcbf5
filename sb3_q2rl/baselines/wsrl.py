"""WSRL: after the offline phase its data is forgotten; a few thousand steps of the frozen policy take its place."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch as th

from sb3_q2rl.baselines.cal_ql import CalQL
from sb3_q2rl.baselines.mixed_batches import MixedBatchSAC
from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

OfflineLoss = Literal["cal_ql", "cql", "td"]


class WSRL(CalQL):
    """
    Warm-start reinforcement learning (https://arxiv.org/abs/2412.07762).

    1. ``pretrain``: Cal-QL, CQL or plain TD learning on the demonstrations, which are then forgotten.
    2. Warm-up: the pre-trained policy, frozen, acts for ``warmup_steps``; nothing is learnt.
    3. SAC on the online data alone, with an ensemble of critics and several updates an environment step.

    The defaults are those of the paper and its code (https://github.com/zhouzypaul/wsrl): 5,000 warm-up steps, 10
    critics with layer normalisation of which the target takes the minimum of two, four critic updates of 256
    transitions and one actor update of all 1,024 a step, 20,000 offline steps (Adroit). The rest is as in Cal-QL, and
    no entropy is in the TD target online either. Their actor has layer normalisation, too; ours has not.

    :param args: See :class:`CalQL`
    :param warmup_steps: Environment steps of the frozen policy, of all environments together
    :param offline_loss: The critics' in the offline phase: ``"cal_ql"``, ``"cql"``, or ``"td"`` for neither term
    :param batch_size: Transitions of one update, cut in ``policy_delay`` minibatches
    :param gradient_steps: Critic steps of one update
    :param policy_delay: Critic steps for each actor step
    :param policy_kwargs: See :class:`EnsembleSACPolicy`
    :param kwargs: See :class:`CalQL`
    :raises ValueError: an unknown loss, a negative warm-up, or a part of offline data in the online batches
    """

    def __init__(
        self,
        *args: Any,
        warmup_steps: int = 5_000,
        offline_loss: OfflineLoss = "cal_ql",
        batch_size: int = 1_024,
        gradient_steps: int = 4,
        policy_delay: int = 4,
        policy_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            batch_size=batch_size,
            gradient_steps=gradient_steps,
            policy_delay=policy_delay,
            policy_kwargs={"n_critics": 10, "layer_norm": True, **(policy_kwargs or {})},
            _init_setup_model=False,
            **{"offline_ratio": 0.0, "learning_starts": 0, **kwargs},  # the warm-up takes the place of the latter
        )
        self.warmup_steps = warmup_steps
        self.offline_loss = offline_loss
        self._warmed_up_steps = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.offline_loss not in get_args(OfflineLoss):
            raise ValueError(f"`offline_loss` is {self.offline_loss!r}, expected one of {get_args(OfflineLoss)}.")
        if self.warmup_steps < 0:
            raise ValueError(f"`warmup_steps` is {self.warmup_steps}; use 0 for none, or a positive number.")
        if self.offline_ratio != 0:
            raise ValueError(
                f"`offline_ratio` is {self.offline_ratio}, but WSRL learns online without offline data. Leave it out, "
                "or use CalQL."
            )
        super()._setup_model()

    def _pretrain(self, *args: Any) -> None:
        super()._pretrain(*args)
        self.replay_buffer.offline = None
        self.demonstrations = None

    # ------------------------------------------------------------------ warm-up

    @property
    def is_warming_up(self) -> bool:
        """Does the frozen policy still collect its steps?"""
        # Counted here and not in `num_timesteps`, which starts anew with every learn()
        return self._warmed_up_steps < self.warmup_steps

    def _on_step(self) -> None:
        super()._on_step()
        self._warmed_up_steps += self.n_envs

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        if self._is_pretraining or not self.is_warming_up:
            super().train(gradient_steps, batch_size)

    # ------------------------------------------------------------------ Cal-QL offline, SAC online

    def _critic_loss(self, batch: BCSamples) -> th.Tensor:
        if self._is_pretraining and self.offline_loss != "td":
            return super()._critic_loss(batch)
        return OfflineToOnlineSAC._critic_loss(self, batch)

    def _calibrated(self, q_values: th.Tensor, batch: BCSamples) -> th.Tensor:
        return super()._calibrated(q_values, batch) if self.offline_loss == "cal_ql" else q_values

    def _next_actions(self, batch: BCSamples) -> tuple[th.Tensor, th.Tensor]:
        if self._is_pretraining:
            return super()._next_actions(batch)
        actions, log_prob = MixedBatchSAC._next_actions(self, batch)
        return actions, th.zeros_like(log_prob)
