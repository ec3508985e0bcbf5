"""Q-initialisation: critics and actor start from the BC policy's episodes, before the first gated step."""

from __future__ import annotations

import math

import numpy as np
import torch as th
from stable_baselines3.common.utils import update_learning_rate
from torch.distributions import Distribution, Normal

from sb3_q2rl.bc.distributions import sample_around_mode
from sb3_q2rl.bc.gaussian import GaussianBCPolicy
from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.cameras import CamerasExtractor
from sb3_q2rl.common.extractors import Encoded
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC
from sb3_q2rl.common.policies import MAX_ACTION
from sb3_q2rl.common.scales import N_FOR_STATISTICS, start_on_scale
from sb3_q2rl.q2rl.policies import GatedSACPolicy

# How far from the BC policy's actions critics are told what Q̂_BC says, in units of [-1, 1]
OTHERS_STD = 0.3
# The actor's learning rate at the start of Q-initialisation; it falls to 0 along a cosine
CLONING_RATE = 1e-3
# Of the cloning loss: 0 is the likelihood, 1 about the squared error
BETA = 0.5


class QInitialisation(OfflineToOnlineSAC):
    """The phase of :class:`QGatedSAC` between Q-estimation and Q-gating, ``q_init_steps`` gradient steps long."""

    policy: GatedSACPolicy
    q_init_steps: int
    bc_deterministic: bool

    def _initialise(self, rows: np.ndarray, columns: np.ndarray) -> None:
        """
        Q-initialisation on the BC episodes: the critics towards Q̂_BC(s, a), for the BC policy's actions and for others,
        the actor towards the BC actions. The actor learns at a rate of its own here, that of a clone: nothing it does
        can fool the critics yet, and the gate should open for an actor that has been cloned well.

        The reference fits the critics to the raw returns instead. Those tell each episode's luck: critics that learn it
        by heart beat the smooth Q̂_BC in half of the states, and the gate opens for an actor that has learnt nothing.
        """
        self.policy.set_training_mode(True)
        some = np.random.permutation(len(rows))[:N_FOR_STATISTICS]
        obs = self.replay_buffer.observations_at(rows[some], columns[some], self._vec_normalize_env)
        start_on_scale(self, self.policy.q_estimate.return_mean, self.policy.q_estimate.return_std, obs)
        self._see_as_bc_does()
        values = self._bc_values(rows, columns)
        scores_any_action = self._scores_any_action(rows, columns)
        for step in range(self.q_init_steps):
            annealed = (1 + math.cos(math.pi * step / self.q_init_steps)) / 2
            update_learning_rate(self.actor.optimizer, CLONING_RATE * annealed)
            drawn = np.random.randint(len(rows), size=self.batch_size)
            batch = self.replay_buffer.gather(rows[drawn], columns[drawn], self._vec_normalize_env)
            batch = self._seen(self._shifted(batch))
            targets = values[drawn] + self.policy.q_estimate.advantage(batch.bc_log_prob, batch.bc_entropy)
            loss = self._value_loss(batch, targets)
            if scores_any_action:
                distribution = self._bc_distribution(rows[drawn], columns[drawn])
                others, advantage = self._other_actions(batch, distribution)
                loss = loss + self._value_loss(batch._replace(actions=others), values[drawn] + advantage)
                if not self.bc_deterministic:
                    # Another sample each time: of the one that was executed the actor learns the noise by heart
                    batch = batch._replace(bc_actions=self._to_clone(distribution).clamp(-1, 1))
            self._clone_along(batch, loss)

    def _see_as_bc_does(self) -> None:
        """
        Encoders of images start as the BC policy's own where those have the same sizes: it learnt from all of its
        demonstrations what to look at, which is more than its few episodes here can teach.
        """
        if not isinstance(self._bc, GaussianBCPolicy):
            return
        for critic in (self.critic, self.critic_target):
            extractor = critic.features_extractor.extractor
            if isinstance(extractor, CamerasExtractor):
                extractor.start_from(self._bc.cameras)

    def _to_clone(self, distribution: Distribution) -> th.Tensor:
        """
        Of a mixture the likeliest way only: who learns two ways by one Gaussian goes neither. (Over the bin, say, BC
        lowers the can or has let go and rises; the middle of the two is to stay there for good.)

        :param distribution: pi_BC(.|s), batch of n
        :return: (n, action_dim)
        """
        return sample_around_mode(distribution)

    def _clone_along(self, batch: BCSamples, value_loss: th.Tensor) -> None:
        """
        One step of all networks. An encoder of images learns what actions need, too: from features that only have to
        tell values the actor cannot be cloned (Can: 0 of 10 episodes after 3,000 steps, with this 2 after 1,500).

        :param batch: With its observations encoded
        :param value_loss: The critics'
        """
        features = batch.observations.features
        fixed = features.detach()
        # The same features, with a gradient in the units of the critics' loss: neither loss shall rule the encoder. (A
        # smaller critics' loss would do that, too, but leave Adam with moments that are wrong for the online losses.)
        shaped = fixed + self.policy.q_estimate.return_std**2 * (features - fixed)
        seen = Encoded(shaped, actor_shapes_encoder=True)
        self.actor.action_log_prob(self._actor_input(seen, batch.bc_actions))
        cloning_loss = self._cloning_loss(batch)
        self.actor.optimizer.zero_grad()
        # With the gradient of both and the value of the critics' own, which is what is logged as theirs
        self._optimise_critic(value_loss + (cloning_loss - cloning_loss.detach()))
        self.actor.optimizer.step()
        self._log_mean("train/actor_loss", cloning_loss)

    def _scores_any_action(self, rows: np.ndarray, columns: np.ndarray) -> bool:
        """Can the BC policy tell the density of an action that it did not take? A recurrent one's state is gone."""
        assert self._bc is not None
        if self._bc.is_recurrent or not hasattr(self._bc, "distribution"):
            return False
        return bool(self.replay_buffer.bc_entropy[rows, columns].any())

    @th.no_grad()
    def _bc_distribution(self, rows: np.ndarray, columns: np.ndarray) -> Distribution:
        """pi_BC(.|s) in some states of the BC episodes, from raw observations."""
        return self._bc.distribution(self.replay_buffer.observations_at(rows, columns))  # type: ignore[union-attr]

    @th.no_grad()
    def _other_actions(self, batch: BCSamples, distribution: Distribution) -> tuple[th.Tensor, th.Tensor]:
        """
        What else Q̂_BC(s, a) tells: of half of the states for what the actor would do, of the others for actions around
        the BC policy's. Critics that know BC actions only take any other to be as good, and the gate lets a bad clone
        through. An action that the BC policy never takes is a standard deviation of the returns worse, not endlessly.

        :param batch: With its observations encoded
        :param distribution: pi_BC in these states
        :return: (batch, action_dim) actions, and (batch,) their alpha (log pi_BC + H)
        """
        assert batch.bc_actions is not None
        proposed = self.actor(self._actor_input(batch.observations, batch.bc_actions))
        around = batch.actions + OTHERS_STD * th.randn_like(batch.actions)
        is_first_half = th.arange(len(proposed), device=self.device).unsqueeze(1) < len(proposed) // 2
        actions = th.where(is_first_half, proposed, around).clamp(-MAX_ACTION, MAX_ACTION)
        # Beyond its support (a d3rlpy policy whose [-1, 1] is a part of ours) some distributions answer with NaN
        log_prob = distribution.log_prob(actions).nan_to_num(nan=-th.inf, neginf=-th.inf)
        advantage = self.policy.q_estimate.advantage(log_prob, batch.bc_entropy)
        limit = float(self.policy.q_estimate.return_std)
        return actions, th.as_tensor(advantage).clamp(-limit, limit)

    @th.no_grad()
    def _bc_values(self, rows: np.ndarray, columns: np.ndarray, chunk: int = 256) -> th.Tensor:
        """V_BC of every transition of the BC episodes, from raw observations."""
        values = []
        for i in range(0, len(rows), chunk):
            obs = self.replay_buffer.observations_at(rows[i : i + chunk], columns[i : i + chunk])
            values.append(self.policy.q_estimate.value(obs))
        return th.cat(values)

    def _cloning_loss(self, batch: BCSamples) -> th.Tensor:
        """
        mean(-sum_i w_i(s) log pi_RL(a_BC,i|s)), with the distribution that the actor computed last. The weight of a
        state is its sigma_i^(2 beta) beside the batch's mean, without gradient.

        A Gaussian may buy likelihood with sigma: certain where it is right already, and where it is wrong so wide that
        the mean hardly learns any more. Weighted by the variance it learns more alike everywhere (beta-NLL,
        https://arxiv.org/abs/2203.09168). That is done among states only: between dimensions of an action the
        likelihood's sense of scale is right, a finger's twitch may count as much as an arm's sweep.
        """
        assert batch.bc_actions is not None
        before_tanh = self.actor.action_dist.distribution
        assert isinstance(before_tanh, Normal)
        log_prob = before_tanh.log_prob(th.atanh(batch.bc_actions.clamp(-MAX_ACTION, MAX_ACTION)))
        weights = before_tanh.stddev.detach() ** (2 * BETA)
        return -(weights / weights.mean(dim=0) * log_prob).sum(dim=1).mean()

    def _bc_loss(self, batch: BCSamples) -> th.Tensor:
        """mean(-log pi_RL(a_BC|s)), with the distribution that the actor computed last."""
        assert batch.bc_actions is not None
        return -self.actor.action_dist.log_prob(batch.bc_actions.clamp(-MAX_ACTION, MAX_ACTION)).mean()
