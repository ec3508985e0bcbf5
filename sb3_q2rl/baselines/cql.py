"""CQL: Q-values of actions that the data does not hold are pushed down while learning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_q2rl.baselines.pretraining import PretrainedSAC
from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.returns import TruncationTail
from sb3_q2rl.data import Demonstrations


class CQL(PretrainedSAC):
    """
    Conservative Q-learning for offline reinforcement learning (https://arxiv.org/abs/2006.04779): CQL(H) of its
    equation 4, on SAC. ``pretrain`` learns from the demonstrations alone, ``learn`` goes on with batches mixed of both.

    The defaults are those of the code that was published with Cal-QL (https://github.com/nakamotoo/Cal-QL), where CQL
    is the rival: weight 5 (1 for Adroit), 10 actions of each kind, the best of 10 next actions in the TD target and no
    entropy there, two critics without layer normalisation, learning rates of 3e-4 and of 1e-4 for the actor and the
    entropy coefficient, 20,000 offline steps on 256 transitions and batches mixed half and half (both for Adroit). The
    Lagrange variant, with a threshold in the place of the weight, is not in here: Cal-QL's authors run Adroit with a
    fixed weight. One thing differs: critics and inputs start on the scale of the demonstrations' returns and
    observations, as Q2RL's do (:mod:`sb3_q2rl.common.scales`).

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a class. May be left out: the observation
        space decides, and the first argument is then the environment
    :param env: The environment, or its registered id
    :param demonstrations: The offline data: Demonstrations, a file of them, or the name of a shipped data set
    :param pretrain_steps: Gradient steps of the offline phase
    :param pretrain_batch_size: Transitions of each of them
    :param offline_ratio: Part of an online batch that is offline data, in [0, 1]
    :param cql_alpha: Weight of the conservative term
    :param n_action_samples: Uniform actions, actions of pi(s) and actions of pi(s') in the logsumexp: so many of each
    :param max_target_backup: Bootstrap on the best of ``n_action_samples`` next actions instead of on one
    :param learning_rate: Of the critics
    :param actor_learning_rate: Of the actor and the entropy coefficient; ``None``: the same
    :param buffer_size: Online transitions to keep; memory is taken as they come
    :param learning_starts: Environment steps before the first online update
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
    :raises ValueError: no action sample, or a negative weight
    """

    def __init__(
        self,
        policy: str | type[BasePolicy] | GymEnv | None = None,
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | str | Path | None = None,
        pretrain_steps: int = 20_000,
        pretrain_batch_size: int = 256,
        offline_ratio: float = 0.5,
        cql_alpha: float = 5.0,
        n_action_samples: int = 10,
        max_target_backup: bool = True,
        learning_rate: float | Schedule = 3e-4,
        actor_learning_rate: float | Schedule | None = 1e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        n_steps: int = 1,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        policy_delay: int = 1,
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
            offline_ratio=offline_ratio,
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
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs={"n_critics": 2, "layer_norm": False, **(policy_kwargs or {})},
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.cql_alpha = cql_alpha
        self.n_action_samples = n_action_samples
        self.max_target_backup = max_target_backup
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.n_action_samples < 1:
            raise ValueError(f"`n_action_samples` is {self.n_action_samples}; the logsumexp needs at least one action.")
        if not self.cql_alpha >= 0:
            raise ValueError(
                f"`cql_alpha` is {self.cql_alpha}; expected 0 or more: a negative weight would reward unseen actions."
            )
        super()._setup_model()

    def _critic_loss(self, batch: BCSamples) -> th.Tensor:
        """TD error + alpha E[log sum_a exp Q_i(s, a) - Q_i(s, a_data)], summed over the critics (equation 4)."""
        gap = self._conservative_gap(batch).mean(dim=1)
        self._log_mean("train/conservative_gap", gap.detach().mean())
        return super()._critic_loss(batch) + self.cql_alpha * gap.sum()

    def _conservative_gap(self, batch: BCSamples) -> th.Tensor:
        """
        log ∫ exp Q(s, a) da - Q(s, a_data). The integral is estimated from samples: the mean of exp(Q) / density over
        uniform actions and actions of pi(s) and pi(s') (the paper's appendix F).

        :return: (n_critics, batch)
        """
        with th.no_grad():
            actions, log_density = self._proposals(batch)
        with_data = th.cat([actions, batch.actions.unsqueeze(1)], dim=1)
        q_values, q_data = self._q_of_many(batch.observations, with_data).tensor_split([-1], dim=2)
        weighted = self._calibrated(q_values, batch) - log_density
        return th.logsumexp(weighted, dim=2) - math.log(actions.shape[1]) - q_data.squeeze(2)

    def _proposals(self, batch: BCSamples) -> tuple[th.Tensor, th.Tensor]:
        """
        :return: (batch, 3 n, action_dim) actions, n uniform, then n of pi(s), then n of pi(s'), and (batch, 3 n) the
            log of the density they were drawn with
        """
        batch_size, action_dim = batch.actions.shape
        uniform = th.empty(batch_size, self.n_action_samples, action_dim, device=self.device).uniform_(-1, 1)
        uniform_log_density = th.full(uniform.shape[:2], -action_dim * math.log(2), device=self.device)
        current, current_log_prob = self._policy_samples(batch.observations)
        following, following_log_prob = self._policy_samples(batch.next_observations)
        return (
            th.cat([uniform, current, following], dim=1),
            th.cat([uniform_log_density, current_log_prob, following_log_prob], dim=1),
        )

    def _policy_samples(self, obs: Any) -> tuple[th.Tensor, th.Tensor]:
        """
        :param obs: (batch, *obs_shape), or a dict of those
        :return: (batch, n, action_dim) actions of pi and (batch, n) log-probabilities
        """
        mean, log_std, _ = self.actor.get_action_dist_params(obs)
        n = self.n_action_samples
        actions, log_prob = self.actor.action_dist.log_prob_from_params(  # type: ignore[call-arg]  # no gSDE
            mean.repeat_interleave(n, dim=0), log_std.repeat_interleave(n, dim=0)
        )
        return actions.reshape(len(mean), n, -1), log_prob.reshape(len(mean), n)

    def _q_of_many(self, obs: Any, actions: th.Tensor, target: bool = False) -> th.Tensor:
        """
        :param obs: (batch, *obs_shape), or a dict of those; encoded once for all actions
        :param actions: (batch, k, action_dim)
        :param target: Ask the target critics
        :return: (n_critics, batch, k)
        """
        critic = self.critic_target if target else self.critic
        features = critic.extract_features(obs, critic.features_extractor)
        k = actions.shape[1]
        x = th.cat([features.repeat_interleave(k, dim=0), actions.flatten(0, 1)], dim=1)
        return critic.value_of(x).reshape(-1, len(actions), k)

    def _calibrated(self, q_values: th.Tensor, batch: BCSamples) -> th.Tensor:
        """
        What enters the logsumexp. Here: the Q-values as they are.

        :param q_values: (n_critics, batch, 3 n), of the actions of :meth:`_proposals`
        """
        return q_values

    def _next_actions(self, batch: BCSamples) -> tuple[th.Tensor, th.Tensor]:
        """a' ~ pi(s'), or the best of several. Of log-probability 0: the TD target holds no entropy."""
        if not self.max_target_backup:
            actions, log_prob = super()._next_actions(batch)
            return actions, th.zeros_like(log_prob)
        several, _ = self._policy_samples(batch.next_observations)
        best = self._q_of_many(batch.next_observations, several, target=True).amin(dim=0).argmax(dim=1)
        actions = several[th.arange(len(best), device=self.device), best]
        return actions, th.zeros_like(best, dtype=actions.dtype)
