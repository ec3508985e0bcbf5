"""RLPD: SAC with a large regularised ensemble, fed from demonstrations and its own experience in equal parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_q2rl.baselines.mixed_batches import MixedBatchSAC
from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.returns import TruncationTail
from sb3_q2rl.data import Demonstrations


class RLPD(MixedBatchSAC):
    """
    Efficient Online Reinforcement Learning with Offline Data (ICML 2023, https://arxiv.org/abs/2302.02948).

    What it adds to SAC: half of every batch are demonstrations (section 4.1, symmetric sampling), the critics are an
    ensemble with layer normalisation, the TD target takes the minimum over two of them, the actor climbs their mean,
    and many critic steps follow each environment step.

    The defaults are those of the authors' release (https://github.com/ikostrikov/rlpd, ``rlpd_config`` and the commands
    in its README): 20 critic steps on 256 transitions each and one actor step for every environment step, learning
    rates of 3e-4, 10 critics, an initial temperature of 1, a target entropy of -dim(A) / 2, updates from step 5,000
    on. Three things differ. Critics and inputs start on the scale of the demonstrations' returns and observations, as
    Q2RL's do (:mod:`sb3_q2rl.common.scales`). The actor's step sees all minibatches of an update, theirs only the last.
    While nothing is learnt the untrained actor acts, whose samples are nearly uniform, theirs exactly.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a class. May be left out: the observation
        space decides, and the first argument is then the environment
    :param env: The environment, or its registered id
    :param demonstrations: Demonstrations, a file of them, or the name of a shipped data set. Saved with the model
    :param entropy_backup: The TD target holds SAC's entropy term. The paper has it in locomotion only, not in its
        sparse tasks (Adroit, AntMaze)
    :param learning_rate: Of the critics and the entropy coefficient
    :param actor_learning_rate: Of the actor; ``None``: the same
    :param buffer_size: Transitions to keep; memory is taken as they come
    :param learning_starts: Steps before the first update
    :param batch_size: Transitions of one update, half of them demonstrations; cut in ``policy_delay`` minibatches
    :param tau: Target critics' update coefficient
    :param gamma: Discount factor
    :param n_steps: Rewards that a TD target sums before it bootstraps
    :param train_freq: Environment steps between updates, or a tuple such as ``(5, "step")``
    :param gradient_steps: Critic steps of one update: the update-to-data ratio
    :param policy_delay: Critic steps for each actor step; the batch is split among them
    :param n_target_critics: The TD target takes the minimum over so many randomly drawn target critics
    :param truncation_tail: What a return assumes after a time limit: ``"repeat_last"`` reward for ever, or ``"zero"``
    :param image_shift: Shift images of a batch at random by up to so many pixels (DrQ); 0: leave them
    :param ent_coef: Entropy coefficient; ``"auto"``: learnt
    :param target_entropy: Of the learnt coefficient; ``"auto"``: -dim(A) / 2
    :param action_noise: Added to the action while learning
    :param replay_buffer_class: A class derived from :class:`MixedReplayBuffer` or :class:`MixedDictReplayBuffer`
    :param replay_buffer_kwargs: Its arguments
    :param use_sde: See SAC
    :param sde_sample_freq: See SAC
    :param stats_window_size: Episodes that the logged means are taken over
    :param tensorboard_log: Where to log
    :param policy_kwargs: ``n_critics``, ``net_arch``, ``layer_norm``, ..., see :class:`EnsembleSACPolicy`
    :param verbose: 0 nothing, 1 info, 2 debug
    :param seed: Of all random generators
    :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``
    :param _init_setup_model: Build the networks at once
    :raises ValueError: there are no demonstrations, or minibatches cannot be halved
    """

    def __init__(
        self,
        policy: str | type[BasePolicy] | GymEnv | None = None,
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | str | Path | None = None,
        entropy_backup: bool = True,
        learning_rate: float | Schedule = 3e-4,
        actor_learning_rate: float | Schedule | None = None,
        buffer_size: int = 1_000_000,
        learning_starts: int = 5_000,
        batch_size: int = 20 * 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        n_steps: int = 1,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 20,
        policy_delay: int = 20,
        n_target_critics: int = 2,
        truncation_tail: TruncationTail = "repeat_last",
        image_shift: int = 4,
        ent_coef: str | float = "auto",
        target_entropy: str | float = "auto",
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
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
            offline_ratio=0.5,
            actor_learning_rate=actor_learning_rate,
            policy_delay=policy_delay,
            n_target_critics=n_target_critics,
            truncation_tail=truncation_tail,
            image_shift=image_shift,
            learning_rate=learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            n_steps=n_steps,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            ent_coef=ent_coef,
            target_entropy=target_entropy,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.entropy_backup = entropy_backup
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.target_entropy == "auto":
            self.target_entropy = -float(np.prod(self.action_space.shape)) / 2  # type: ignore[arg-type]
        super()._setup_model()
        if not isinstance(self.demonstrations, Demonstrations):
            raise ValueError(
                "`demonstrations` is missing: half of every batch of RLPD are demonstrations. Pass Demonstrations, "
                "a file of them, or the name of a shipped data set."
            )
        if self.batch_size % (2 * self.policy_delay) != 0:
            raise ValueError(
                f"`batch_size`={self.batch_size} cut in `policy_delay`={self.policy_delay} minibatches gives parts "
                "that cannot be half demonstrations, half own experience. "
                f"Use a multiple of {2 * self.policy_delay}."
            )

    def _next_actions(self, batch: BCSamples) -> tuple[th.Tensor, th.Tensor]:
        actions, log_prob = super()._next_actions(batch)
        return actions, log_prob if self.entropy_backup else th.zeros_like(log_prob)

    def _policy_value(self, obs: Any, actions: th.Tensor) -> th.Tensor:
        """1/N sum_i Q_i(s, a): the actor climbs the mean of the ensemble, not its minimum."""
        return self.critic(obs, actions).mean(dim=0)

    def _excluded_save_params(self) -> list[str]:
        # They travel with the model: without them it could not go on learning
        return [name for name in super()._excluded_save_params() if name != "demonstrations"]
