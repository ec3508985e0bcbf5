"""WSRL: after the offline phase its data is forgotten; a few thousand steps of the frozen policy take its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_q2rl.baselines.cal_ql import CalQL
from sb3_q2rl.baselines.mixed_batches import MixedBatchSAC
from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC
from sb3_q2rl.common.policies import MAX_ACTION
from sb3_q2rl.common.returns import TruncationTail
from sb3_q2rl.data import Demonstrations

OfflineLoss = Literal["cal_ql", "cql", "td", "bc"]


class WSRL(CalQL):
    """
    Warm-start reinforcement learning (https://arxiv.org/abs/2412.07762).

    1. ``pretrain``: Cal-QL, CQL, TD learning or behaviour cloning on the demonstrations, which are then forgotten.
    2. Warm-up: the pre-trained policy, frozen, acts for ``warmup_steps``; nothing is learnt.
    3. SAC on the online data alone, with an ensemble of critics and several updates an environment step.

    The defaults are those of the paper and its code (https://github.com/zhouzypaul/wsrl): 5,000 warm-up steps, 10
    critics with layer normalisation of which the target takes the minimum of two, four critic updates of 256
    transitions and one actor update of all 1,024 a step, 20,000 offline steps (Adroit). The rest is as in Cal-QL, and
    no entropy is in the TD target online either. Two things differ beside CQL's: their actor has layer normalisation,
    too; and offline they choose the best next action by the two critics that are drawn for the target, we by all.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a class. May be left out: the observation
        space decides, and the first argument is then the environment
    :param env: The environment, or its registered id
    :param demonstrations: The offline data: Demonstrations, a file of them, or the name of a shipped data set
    :param pretrain_steps: Gradient steps of the offline phase
    :param pretrain_batch_size: Transitions of each of them
    :param warmup_steps: Environment steps of the frozen policy, of all environments together
    :param offline_loss: How the offline phase learns: ``"cal_ql"``, ``"cql"``, ``"td"`` for neither term, ``"bc"``: the
        actor clones the demonstrations, and the critics learn what it is worth, without looking for better actions
    :param cql_alpha: See :class:`CQL`; offline only, as the next two
    :param n_action_samples: See :class:`CQL`
    :param max_target_backup: See :class:`CQL`
    :param learning_rate: Of the critics
    :param actor_learning_rate: Of the actor and the entropy coefficient; ``None``: the same
    :param buffer_size: Online transitions to keep; memory is taken as they come
    :param batch_size: Transitions of one update, cut in ``policy_delay`` minibatches
    :param tau: Target critics' update coefficient
    :param gamma: Discount factor
    :param n_steps: Rewards that a TD target sums before it bootstraps
    :param train_freq: Environment steps between updates, or a tuple such as ``(5, "step")``
    :param gradient_steps: Critic steps of one update; -1: as many as environment steps were made
    :param policy_delay: Critic steps for each actor step; the batch is split among them
    :param n_target_critics: The TD target takes the minimum over so many randomly drawn target critics
    :param truncation_tail: What a return assumes after a time limit: ``"repeat_last"`` reward for ever, or ``"zero"``
    :param image_shift: Shift images of a batch at random by up to so many pixels (DrQ); 0: leave them
    :param ent_coef: Entropy coefficient of the actor's loss; ``"auto"``: learnt
    :param target_entropy: See SAC
    :param action_noise: Added to the action while learning
    :param replay_buffer_class: A class derived from :class:`MixedReplayBuffer` or :class:`MixedDictReplayBuffer`
    :param replay_buffer_kwargs: Its arguments
    :param stats_window_size: Episodes that the logged means are taken over
    :param tensorboard_log: Where to log
    :param policy_kwargs: ``n_critics``, ``net_arch``, ``layer_norm``, ..., see :class:`EnsembleSACPolicy`
    :param verbose: 0 nothing, 1 info, 2 debug
    :param seed: Of all random generators
    :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``
    :param _init_setup_model: Build the networks at once
    :raises ValueError: an unknown loss, or a negative warm-up
    """

    def __init__(
        self,
        policy: str | type[BasePolicy] | GymEnv | None = None,
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | str | Path | None = None,
        pretrain_steps: int = 20_000,
        pretrain_batch_size: int = 256,
        warmup_steps: int = 5_000,
        offline_loss: OfflineLoss = "cal_ql",
        cql_alpha: float = 5.0,
        n_action_samples: int = 10,
        max_target_backup: bool = True,
        learning_rate: float | Schedule = 3e-4,
        actor_learning_rate: float | Schedule | None = 1e-4,
        buffer_size: int = 1_000_000,
        batch_size: int = 1_024,
        tau: float = 0.005,
        gamma: float = 0.99,
        n_steps: int = 1,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 4,
        policy_delay: int = 4,
        n_target_critics: int = 2,
        truncation_tail: TruncationTail = "repeat_last",
        image_shift: int = 4,
        ent_coef: str | float = "auto",
        target_entropy: str | float = "auto",
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            demonstrations=demonstrations,
            pretrain_steps=pretrain_steps,
            pretrain_batch_size=pretrain_batch_size,
            offline_ratio=0.0,
            cql_alpha=cql_alpha,
            n_action_samples=n_action_samples,
            max_target_backup=max_target_backup,
            learning_rate=learning_rate,
            actor_learning_rate=actor_learning_rate,
            buffer_size=buffer_size,
            learning_starts=0,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            n_steps=n_steps,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            policy_delay=policy_delay,
            n_target_critics=n_target_critics,
            truncation_tail=truncation_tail,
            image_shift=image_shift,
            ent_coef=ent_coef,
            target_entropy=target_entropy,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs={"n_critics": 10, "layer_norm": True, **(policy_kwargs or {})},
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.warmup_steps = warmup_steps
        self.offline_loss = offline_loss
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.offline_loss not in get_args(OfflineLoss):
            raise ValueError(f"`offline_loss` is {self.offline_loss!r}, expected one of {get_args(OfflineLoss)}.")
        if self.warmup_steps < 0:
            raise ValueError(f"`warmup_steps` is {self.warmup_steps}; use 0 for none, or a positive number.")
        if self.warmup_steps > self.buffer_size:
            raise ValueError(
                f"`warmup_steps`={self.warmup_steps} are more than `buffer_size`={self.buffer_size} can hold: they "
                "would never be over. Raise `buffer_size`."
            )
        super()._setup_model()

    def _pretrain(self, *args: Any) -> None:
        super()._pretrain(*args)
        self.replay_buffer.offline = None
        self.demonstrations = None

    # ------------------------------------------------------------------ warm-up

    @property
    def is_warming_up(self) -> bool:
        """Does the frozen policy still collect its steps? A model that was loaded without them collects them again."""
        return self.replay_buffer.size() * self.n_envs < self.warmup_steps

    def _waits_for(self) -> str | None:
        return f"the {self.warmup_steps:,} `warmup_steps` are not over." if self.is_warming_up else None

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        if self._is_pretraining or not self.is_warming_up:
            super().train(gradient_steps, batch_size)

    # ------------------------------------------------------------------ Cal-QL offline, SAC online

    def _critic_loss(self, batch: BCSamples) -> th.Tensor:
        if self._is_pretraining and self.offline_loss in ("cal_ql", "cql"):
            return super()._critic_loss(batch)
        return OfflineToOnlineSAC._critic_loss(self, batch)

    def _calibrated(self, q_values: th.Tensor, batch: BCSamples) -> th.Tensor:
        return super()._calibrated(q_values, batch) if self.offline_loss == "cal_ql" else q_values

    def _actor_loss(self, batch: BCSamples) -> th.Tensor:
        if not self._is_cloning:
            return super()._actor_loss(batch)
        _, log_prob = self.actor.action_log_prob(batch.observations)  # which leaves the distribution there
        if self.ent_coef_optimizer is not None:
            self._step_entropy_coef(log_prob)
        return -self.actor.action_dist.log_prob(batch.actions.clamp(-MAX_ACTION, MAX_ACTION)).mean()

    @property
    def _is_cloning(self) -> bool:
        return self._is_pretraining and self.offline_loss == "bc"

    def _next_actions(self, batch: BCSamples) -> tuple[th.Tensor, th.Tensor]:
        if self._is_pretraining and not self._is_cloning:
            return super()._next_actions(batch)
        actions, log_prob = MixedBatchSAC._next_actions(self, batch)
        return actions, th.zeros_like(log_prob)
