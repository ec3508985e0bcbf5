"""CQL: Q-values of actions that the data does not hold are pushed down while learning."""

from __future__ import annotations

import math
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import Schedule

from sb3_q2rl.baselines.pretraining import PretrainedSAC
from sb3_q2rl.common.buffers import BCSamples


class CQL(PretrainedSAC):
    """
    Conservative Q-learning for offline reinforcement learning (https://arxiv.org/abs/2006.04779): CQL(H) of its
    equation 4, on SAC. ``pretrain`` learns from the demonstrations alone, ``learn`` goes on with batches mixed of both.

    The defaults: ``cql_alpha`` 5, 10 actions of each kind, two critics without layer normalisation, no entropy in the
    TD target and learning rates of 3e-4 (critics) and 1e-4 (actor) are those of the code that was published with Cal-QL
    (https://github.com/nakamotoo/Cal-QL), which has the weight at 1 for Adroit, and 20,000 offline steps and batches
    mixed half and half there. The Lagrange variant, with a threshold in the place of ``cql_alpha``, is not in here:
    Cal-QL's and WSRL's authors compare with a fixed weight.

    :param args: See :class:`PretrainedSAC`
    :param cql_alpha: Weight of the conservative term
    :param n_action_samples: Uniform actions, actions of pi(s) and actions of pi(s') in the logsumexp: so many of each
    :param max_target_backup: Bootstrap on the best of ``n_action_samples`` next actions instead of on one
    :param actor_learning_rate: The actor's
    :param policy_kwargs: See :class:`EnsembleSACPolicy`
    :param kwargs: See :class:`PretrainedSAC`
    :raises ValueError: no action sample, a negative weight, or gSDE, whose actions are not independent samples
    """

    def __init__(
        self,
        *args: Any,
        cql_alpha: float = 5.0,
        n_action_samples: int = 10,
        max_target_backup: bool = False,
        actor_learning_rate: float | Schedule | None = 1e-4,
        policy_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            actor_learning_rate=actor_learning_rate,
            policy_kwargs={"n_critics": 2, "layer_norm": False, **(policy_kwargs or {})},
            _init_setup_model=False,
            **kwargs,
        )
        self.cql_alpha = cql_alpha
        self.n_action_samples = n_action_samples
        self.max_target_backup = max_target_backup
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.n_action_samples < 1:
            raise ValueError(f"`n_action_samples` is {self.n_action_samples}; the logsumexp needs at least one action.")
        if self.cql_alpha < 0:
            raise ValueError(f"`cql_alpha` is {self.cql_alpha}; a negative weight would reward unseen actions.")
        if self.use_sde:
            raise ValueError(
                "`use_sde=True` gives a state one and the same action until its noise is drawn again, but the "
                "logsumexp needs independent samples. Use `use_sde=False`."
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
        return (critic.q_networks(x) * critic.q_std + critic.q_mean).reshape(-1, len(actions), k)

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
