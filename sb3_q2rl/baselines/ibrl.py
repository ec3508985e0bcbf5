"""IBRL: the BC policy and the actor both propose an action; the critics choose, while acting and in the TD target."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_q2rl.baselines.ibrl_policies import IBRLCnnPolicy, IBRLMultiInputPolicy, IBRLPolicy
from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.common import checks
from sb3_q2rl.common.acting import Decision
from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.proposals import ProposalSAC
from sb3_q2rl.common.returns import TruncationTail
from sb3_q2rl.common.scales import start_on_the_scale_of
from sb3_q2rl.data import Demonstrations


def rl_is_chosen(q_rl: th.Tensor, q_bc: th.Tensor, softmax_beta: float | None = None) -> th.Tensor:
    """
    Which of the two proposals? The one of higher value, a tie goes to BC; or, softly, one drawn with the probabilities
    softmax(beta (Q_RL, Q_BC)), which for two is the logistic function of the difference.

    :param q_rl: (n,)
    :param q_bc: (n,)
    :param softmax_beta: Inverse temperature of the soft choice; ``None``: the higher value
    :return: (n,) bool
    """
    if softmax_beta is None:
        return q_rl > q_bc
    return th.rand_like(q_rl) < th.sigmoid(softmax_beta * (q_rl - q_bc))


class IBRL(ProposalSAC):
    """
    Imitation Bootstrapped Reinforcement Learning (RSS 2024, https://arxiv.org/abs/2311.02198).

    The BC policy plays ``n_bc_episodes``. Then the actor and the BC policy propose, the target critics choose, and the
    TD target bootstraps on the action that they would choose next. The learner is TD3: a deterministic actor that
    explores by clipped Gaussian noise, in the targets too, and no entropy.

    The defaults are those of the authors' release (https://github.com/hengyuan-hu/ibrl, its robomimic tasks from
    state): 5 critics, minimum of 2, 3-step returns, actor dropout .5, noise .1 clipped at .3, 50 BC episodes, tau .01,
    learning rates 1e-4, and for every second environment step 5 critic steps on 256 transitions each. Their networks
    have three layers of 1024 (``policy_kwargs``), and their state tasks chose softly with beta 10, the paper's main
    variant by the higher value, as here. Three things differ: values are compared by the minimum over all target
    critics, theirs over two random ones, so that ``predict`` is deterministic; the actor's step sees all minibatches of
    an update, theirs only the last; critics and inputs start on the scale of what the BC episodes returned and
    observed, as Q2RL's do (:mod:`sb3_q2rl.common.scales`).

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a class. May be left out: the observation
        space decides, and the first argument is then the environment
    :param env: The environment, or its registered id
    :param bc_policy: A :class:`BCPolicy`, the path of a checkpoint, or the name of a shipped policy
    :param demonstrations: Put once in the replay buffer: Demonstrations, a file of them, or a shipped name. Saved with
        the model
    :param n_bc_episodes: Episodes of the BC policy before the first update; they count as environment steps
    :param softmax_beta: Inverse temperature of the soft choice between the proposals, per unit of return (the paper's
        10 is for returns in [0, 1]); ``None``: the higher value. ``deterministic`` predictions take the higher value
    :param exploration_std: Standard deviation of the noise on the actor's actions, in units of [-1, 1]
    :param noise_clip: Largest noise
    :param bc_deterministic: The BC policy acts at its mode, else by a sample
    :param learning_rate: Of the critics
    :param actor_learning_rate: Of the actor; ``None``: the same
    :param buffer_size: Transitions to keep; memory is taken as they come
    :param batch_size: Transitions of one update, cut in ``policy_delay`` minibatches
    :param tau: Target networks' update coefficient
    :param gamma: Discount factor
    :param n_steps: Rewards that a TD target sums before it bootstraps
    :param train_freq: Environment steps between updates, or a tuple such as ``(5, "step")``
    :param gradient_steps: Critic steps of one update; -1: as many as environment steps were made
    :param policy_delay: Critic steps for each actor step; the batch is split among them
    :param n_target_critics: The TD target takes the minimum over so many randomly drawn target critics
    :param truncation_tail: What a return assumes after a time limit: ``"repeat_last"`` reward for ever, or ``"zero"``
    :param image_shift: Shift images of a batch at random by up to so many pixels (DrQ); 0: leave them
    :param replay_buffer_class: A class derived from ours; ``HerReplayBuffer`` with ``n_steps=1`` only
    :param replay_buffer_kwargs: Its arguments
    :param stats_window_size: Episodes that the logged means are taken over
    :param tensorboard_log: Where to log
    :param policy_kwargs: ``n_critics``, ``net_arch``, ``actor_dropout``, ..., see :class:`IBRLPolicy`
    :param verbose: 0 nothing, 1 info, 2 debug
    :param seed: Of all random generators
    :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``
    :param _init_setup_model: Build the networks at once
    :raises ValueError: there is no BC policy, or a number that makes no sense
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": IBRLPolicy,
        "CnnPolicy": IBRLCnnPolicy,
        "MultiInputPolicy": IBRLMultiInputPolicy,
    }
    policy: IBRLPolicy

    def __init__(
        self,
        policy: str | type[IBRLPolicy] | GymEnv | None = None,
        env: GymEnv | str | None = None,
        bc_policy: BCPolicy | str | Path | None = None,
        demonstrations: Demonstrations | str | Path | None = None,
        n_bc_episodes: int = 50,
        softmax_beta: float | None = None,
        exploration_std: float = 0.1,
        noise_clip: float = 0.3,
        bc_deterministic: bool = True,
        learning_rate: float | Schedule = 1e-4,
        actor_learning_rate: float | Schedule | None = None,
        buffer_size: int = 1_000_000,
        batch_size: int = 5 * 256,
        tau: float = 0.01,
        gamma: float = 0.99,
        n_steps: int = 3,
        train_freq: int | tuple[int, str] = 2,
        gradient_steps: int = 5,
        policy_delay: int = 5,
        n_target_critics: int = 2,
        truncation_tail: TruncationTail = "repeat_last",
        image_shift: int = 4,
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
            bc_policy=bc_policy,
            demonstrations=demonstrations,
            actor_learning_rate=actor_learning_rate,
            policy_delay=policy_delay,
            n_target_critics=n_target_critics,
            truncation_tail=truncation_tail,
            image_shift=image_shift,
            learning_rate=learning_rate,
            buffer_size=buffer_size,
            learning_starts=0,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            n_steps=n_steps,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            ent_coef=0.0,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.n_bc_episodes = n_bc_episodes
        self.softmax_beta = softmax_beta
        self.exploration_std = exploration_std
        self.noise_clip = noise_clip
        self.bc_deterministic = bc_deterministic
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        for name in ("n_bc_episodes", "exploration_std", "noise_clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; expected a number, 0 or more.")
        if self.softmax_beta is not None and not self.softmax_beta > 0:
            raise ValueError(
                f"`softmax_beta` is {self.softmax_beta}; a soft choice needs a positive one. None: the higher value."
            )
        super()._setup_model()
        self.policy.warm_up_is_over.fill_(self.n_bc_episodes == 0)
        if self._bc is None:
            raise ValueError(
                "`bc_policy` is missing: IBRL starts from one. Pass a checkpoint's path, a name, or a BCPolicy."
            )
        if isinstance(self.demonstrations, Demonstrations):
            self.replay_buffer.add_demonstrations(self.demonstrations, self._bc_actions_along(self.demonstrations))

    def _on_new_bc_policy(self) -> None:
        warnings.warn(
            "This model was trained with another BC policy. The new one acts from now on; a replay buffer that you "
            "load holds the actions of the old one, which TD targets go on considering.",
            stacklevel=2,
        )

    # ------------------------------------------------------------------ who acts

    @property
    def has_started(self) -> bool:
        """Have the BC policy's warm-up episodes ended?"""
        return bool(self.policy.warm_up_is_over)

    def _act(
        self,
        obs: Any,
        raw_obs: Any,
        bc_state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
        noise: th.Tensor | None = None,
    ) -> Decision:
        assert self._bc is not None
        bc = self._bc.step(raw_obs, bc_state, episode_start, deterministic or self.bc_deterministic)
        if not self.has_started:
            return Decision(bc.actions, bc, rl_acts=th.zeros(len(bc.actions), dtype=th.bool))
        rl_actions = self.actor(obs, deterministic=True)
        if not deterministic:
            rl_actions = self._with_noise(rl_actions)
        q_rl, q_bc = self._values(obs, rl_actions), self._values(obs, bc.actions)
        rl_acts = rl_is_chosen(q_rl, q_bc, None if deterministic else self.softmax_beta)
        actions = th.where(rl_acts.unsqueeze(1), rl_actions, bc.actions)
        return Decision(actions, bc, rl_actions, rl_acts, q_rl, q_bc)

    def _values(self, obs: Any, actions: th.Tensor) -> th.Tensor:
        """By which proposals are compared: the minimum of the target critics, (n,)."""
        return self.critic_target(obs, actions).amin(dim=0)

    def _with_noise(self, actions: th.Tensor) -> th.Tensor:
        noise = (self.exploration_std * th.randn_like(actions)).clamp(-self.noise_clip, self.noise_clip)
        return (actions + noise).clamp(-1, 1)

    def _on_step(self) -> None:
        super()._on_step()
        decision = self.decision
        assert decision is not None
        assert decision.rl_acts is not None
        self._log_mean("rollout/rl_action_fraction", decision.rl_acts.float().mean())
        if decision.q_rl is not None and decision.q_bc is not None:
            self._log_mean("rollout/q_rl", decision.q_rl.mean())
            self._log_mean("rollout/q_bc", decision.q_bc.mean())

    # ------------------------------------------------------------------ learning

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        if self.replay_buffer.n_bc_episodes >= self.n_bc_episodes:
            self.policy.warm_up_is_over.fill_(True)
        if self.has_started and self.replay_buffer.can_sample():
            if self._n_updates == 0:
                start_on_the_scale_of(self, self.replay_buffer)
            super().train(gradient_steps, batch_size)

    def _waits_for(self) -> str | None:
        return None if self.has_started else checks.bc_episodes_to_come(self, self.n_bc_episodes)

    def _next_actions(self, batch: BCSamples) -> tuple[th.Tensor, th.Tensor]:
        """
        a' = argmax (or the soft choice) over the slow actor's action and the BC policy's of Q_target(s', .).

        The slow actor keeps its dropout on, as the authors' does.
        """
        obs = batch.next_observations
        rl_actions = self._with_noise(self.policy.actor_target(obs, deterministic=True))
        bc_actions = self._next_bc_actions(batch)
        bc_actions = th.where(bc_actions.isnan(), rl_actions, bc_actions)  # unknown: the actor's stands in for it
        rl_wins = rl_is_chosen(self._values(obs, rl_actions), self._values(obs, bc_actions), self.softmax_beta)
        return th.where(rl_wins.unsqueeze(1), rl_actions, bc_actions), th.zeros(len(rl_actions), device=self.device)

    def _actor_loss(self, batch: BCSamples) -> th.Tensor:
        """mean(-min_i Q_i(s, pi(s) + noise))"""
        actions = self._with_noise(self.actor(batch.observations, deterministic=True))
        return -self.critic.lowest(batch.observations, actions).mean()

    def _optimise_actor(self, loss: th.Tensor) -> None:
        super()._optimise_actor(loss)
        self.policy.follow_actor(self.tau)

    def _excluded_save_params(self) -> list[str]:
        # A model without its replay buffer starts again from the demonstrations
        return [name for name in super()._excluded_save_params() if name != "demonstrations"]
