"""QGatedSAC: the whole of Q2RL. Estimate the BC policy's Q-function, start from it, then let the higher value act."""

from __future__ import annotations

import copy
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule

from sb3_q2rl.bc.policy import BCPolicy, BCStep
from sb3_q2rl.common import checks
from sb3_q2rl.common.acting import Decision
from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.returns import TruncationTail
from sb3_q2rl.data import Demonstrations
from sb3_q2rl.q2rl.gating import max_gate
from sb3_q2rl.q2rl.policies import GatedSACCnnPolicy, GatedSACMultiInputPolicy, GatedSACPolicy
from sb3_q2rl.q2rl.q_initialisation import QInitialisation

SelfQGatedSAC = TypeVar("SelfQGatedSAC", bound="QGatedSAC")


class QGatedSAC(QInitialisation):
    """
    Q2RL: Q-estimation and Q-gating from a behaviour-cloned policy for reinforcement learning (RSS 2026,
    https://arxiv.org/abs/2605.05172).

    1. The BC policy plays ``n_bc_episodes`` whole episodes; they count as environment steps.
    2. V_BC is fitted to their returns, which gives Q̂_BC = V_BC + alpha (log pi_BC + H) (*Q-estimation*). The critics
       and the actor start from the same episodes (*Q-initialisation*).
    3. From then on, at every step, the action with the higher value is executed (*Q-gating*), and SAC learns from it.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a class. May be left out: the observation
        space decides, and the first argument is then the environment
    :param env: The environment, or its registered id
    :param bc_policy: A :class:`BCPolicy`, the path of a checkpoint, or the name of a shipped policy
    :param n_bc_episodes: Episodes of the BC policy to estimate its Q-function from
    :param bc_temperature: alpha: units of return per nat of log-likelihood
    :param bc_loss_weight: w in the actor's loss: (1 - w) (-Q) + w (-log pi_RL(a_BC|s)), or its schedule. It weighs nats
        against the unit of the return: raise it where the gate falls below the BC policy, lower it where RL alone does
        not rise
    :param q_init_steps: Gradient steps of Q-initialisation
    :param bc_deterministic: The BC policy acts at its mode, else by a sample, in evaluation too: V_BC is the value of
        one of the two. Samples teach the actor more (it sees how to get back), and shake themselves loose where the
        mode is stuck, if the policy's densities are worth it
    :param rl_deterministic: The RL action is always the actor's mode (the paper in simulation), or always a sample (the
        paper on robots: a hand that trembles finds the hole). ``None``, as in SB3: a sample while learning, and
        in ``predict`` whatever is asked for
    :param keep_bc_episodes: Learn online from the estimation episodes, too
    :param demonstrations: Put once in the replay buffer (the paper's "with data"): Demonstrations, a file, or a name
    :param learning_rate: Of the critics
    :param actor_learning_rate: Of the actor, slower so that it does not outrun the critics; ``None``: the same
    :param buffer_size: Transitions to keep; memory is taken as they come
    :param batch_size: Transitions of one update
    :param tau: Target critics' update coefficient
    :param gamma: Discount factor
    :param n_steps: Rewards that a TD target sums before it bootstraps; they are of whoever acted. The paper's is 1:
        where success is hundreds of steps away, values that promise too much then take 10,000s of steps to come down.
        1 with hindsight
    :param train_freq: Environment steps between updates, or a tuple such as ``(5, "step")``
    :param gradient_steps: Critic steps of one update; -1: as many as environment steps were made
    :param policy_delay: Critic steps for each actor step; the batch is split among them
    :param n_target_critics: The TD target takes the minimum over so many randomly drawn target critics; ``None``: all.
        The paper's is 2. Its pessimism compounds where an episode is stuck: Q_RL sinks below every possible return, and
        the gate leaves the wheel to a stuck BC policy for ever
    :param truncation_tail: What a return assumes after a time limit: ``"repeat_last"`` reward for ever, or ``"zero"``
    :param image_shift: Shift images of a batch at random by up to so many pixels (DrQ); 0: leave them
    :param ent_coef: Entropy coefficient. The paper has none; ``"auto"`` is SAC's
    :param action_noise: Added to the RL action while learning
    :param replay_buffer_class: ``HerReplayBuffer``, or a class derived from ours
    :param replay_buffer_kwargs: Its arguments
    :param target_entropy: See SAC
    :param use_sde: See SAC
    :param sde_sample_freq: See SAC
    :param stats_window_size: Episodes that the logged means are taken over
    :param tensorboard_log: Where to log
    :param policy_kwargs: ``n_critics``, ``net_arch``, ``layer_norm``, ..., see :class:`GatedSACPolicy`
    :param verbose: 0 nothing, 1 info, 2 debug
    :param seed: Of all random generators
    :param device: ``"cpu"``, ``"cuda"`` or ``"auto"``
    :param _init_setup_model: Build the networks at once
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": GatedSACPolicy,
        "CnnPolicy": GatedSACCnnPolicy,
        "MultiInputPolicy": GatedSACMultiInputPolicy,
    }
    policy: GatedSACPolicy

    def __init__(
        self,
        policy: str | type[GatedSACPolicy] | GymEnv | None = None,
        env: GymEnv | str | None = None,
        bc_policy: BCPolicy | str | Path | None = None,
        n_bc_episodes: int = 50,
        bc_temperature: float = 1.0,
        bc_loss_weight: float | Schedule = 0.3,
        q_init_steps: int = 10_000,
        bc_deterministic: bool = True,
        rl_deterministic: bool | None = None,
        keep_bc_episodes: bool = True,
        demonstrations: Demonstrations | str | Path | None = None,
        learning_rate: float | Schedule = 3e-4,
        actor_learning_rate: float | Schedule | None = 1e-4,
        buffer_size: int = 1_000_000,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        n_steps: int = 5,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 4,
        policy_delay: int = 4,
        n_target_critics: int | None = 1,
        truncation_tail: TruncationTail = "repeat_last",
        image_shift: int = 4,
        ent_coef: str | float = 0.0,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        target_entropy: str | float = "auto",
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
        policy_kwargs = policy_kwargs or {}
        in_kwargs = policy_kwargs.get("bc_temperature", bc_temperature)
        if in_kwargs is not bc_temperature and in_kwargs != bc_temperature:
            raise ValueError(
                f"`policy_kwargs` has the `bc_temperature` {in_kwargs}, but the algorithm's is "
                f"{bc_temperature}. Pass it as `bc_temperature=...` alone."
            )
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
            ent_coef=ent_coef,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            target_entropy=target_entropy,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs={**policy_kwargs, "bc_temperature": bc_temperature},
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.n_bc_episodes = n_bc_episodes
        self.bc_temperature = bc_temperature
        self.bc_loss_weight = bc_loss_weight
        self.q_init_steps = q_init_steps
        self.bc_deterministic = bc_deterministic
        self.rl_deterministic = rl_deterministic
        self.keep_bc_episodes = keep_bc_episodes
        self._bc_is_new = False
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        self.policy.q_estimate.bc_temperature = self.bc_temperature  # load(path, bc_temperature=...) may change it
        if self._bc is None:
            raise ValueError(
                "`bc_policy` is missing: Q2RL starts from one. Pass a checkpoint's path, a name, or a BCPolicy."
            )
        if self.n_bc_episodes < 1:
            raise ValueError(f"`n_bc_episodes` is {self.n_bc_episodes}; the estimate needs at least one episode.")
        if self.q_init_steps < 0:
            raise ValueError(f"`q_init_steps` is {self.q_init_steps}; use 0 for none, or a positive number.")
        if not 0 <= self.bc_temperature < np.inf:
            raise ValueError(f"`bc_temperature` is {self.bc_temperature}; alpha is a finite number, 0 or more.")
        if isinstance(self.bc_loss_weight, str):
            raise ValueError(
                f"`bc_loss_weight` is {self.bc_loss_weight!r}; expected a number or a schedule, as SB3's "
                "LinearSchedule(0.3, 0.0, 1.0). Words such as lin_0.3 are for rl-zoo3's files and command line."
            )
        self._bc_loss_weight = FloatSchedule(self.bc_loss_weight)
        for progress_remaining in (1, 0.5, 0):
            weight = self._bc_loss_weight(progress_remaining)
            if not 0 <= weight <= 1:
                raise ValueError(
                    f"`bc_loss_weight` is {weight} with {progress_remaining} of the steps remaining; it weighs two "
                    "losses, so it lies in [0, 1]."
                )

    def _on_new_bc_policy(self) -> None:
        self._bc_is_new = True
        warnings.warn(
            "This model was trained with another BC policy: its estimate Q̂_BC will be made again from "
            f"{self.n_bc_episodes} episodes of the new one.",
            stacklevel=2,
        )

    # ------------------------------------------------------------------ Q-gating

    @property
    def has_started(self) -> bool:
        """Is Q̂_BC estimated, and the gate open?"""
        return self.policy.q_estimate.is_fitted

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
        bc = self._bc.step(raw_obs, bc_state, episode_start, self.bc_deterministic)
        if not self.has_started:
            return Decision(bc.actions, bc, rl_acts=th.zeros(len(bc.actions), dtype=th.bool))
        actor_input = self._actor_input(obs, bc.actions)
        is_mode = deterministic if self.rl_deterministic is None else self.rl_deterministic
        rl_actions = self._rl_actions(actor_input, is_mode, noise)
        q_rl = self.critic(obs, rl_actions).amin(dim=0)
        q_bc = self.policy.q_estimate(raw_obs, bc)
        rl_acts = max_gate(q_rl, q_bc)
        actions = th.where(rl_acts.unsqueeze(1), rl_actions, bc.actions)
        return Decision(actions, bc, rl_actions, rl_acts, q_rl, q_bc)

    def _on_step(self) -> None:
        super()._on_step()
        decision = self.decision
        assert decision is not None
        assert decision.rl_acts is not None
        self._log_mean("rollout/rl_action_fraction", decision.rl_acts.float().mean())
        if decision.q_rl is not None and decision.q_bc is not None:
            self._log_mean("rollout/q_rl", decision.q_rl.mean())
            self._log_mean("rollout/q_bc", decision.q_bc.mean())
            self._log_mean("rollout/q_gap", (decision.q_rl - decision.q_bc).mean())

    # ------------------------------------------------------------------ Q-estimation

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        if not self.has_started:
            episodes = self.replay_buffer.first_bc_episodes(self.n_bc_episodes)
            if not episodes:
                checks.room_for_bc_episodes(self)
                return
            before: Any = copy.deepcopy(self.get_parameters())
            try:
                self._estimate(episodes)
            except BaseException:  # Ctrl-C, too: networks that are half made must not act. The next step tries again
                self.set_parameters(before)
                raise
        if self.replay_buffer.can_sample():  # without the BC episodes it starts empty
            super().train(gradient_steps, batch_size)

    def _estimate(self, episodes: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """
        The end of phase 1: fit Q̂_BC and start both networks from the BC policy's episodes.

        :param episodes: (rows, env_indices) of each in the replay buffer
        """
        start = time.time()
        rows, columns = (np.concatenate(parts) for parts in zip(*episodes, strict=True))
        if self.verbose > 0:
            print(
                f"Q-estimation from {len(episodes)} BC episodes, {len(rows)} steps, then {self.q_init_steps} steps of "
                "Q-initialisation ...",
                flush=True,  # from images it takes a CPU minutes
            )

        def raw_transitions(indices: np.ndarray) -> tuple[Any, th.Tensor]:
            places = rows[indices], columns[indices]
            return self.replay_buffer.observations_at(*places), th.as_tensor(
                self.replay_buffer.mc_returns[places], device=self.device
            )

        fit = self.policy.q_estimate.fit(
            raw_transitions, [len(episode_rows) for episode_rows, _ in episodes], batch_size=self.batch_size
        )
        nats = self.replay_buffer.bc_log_prob[rows, columns] + self.replay_buffer.bc_entropy[rows, columns]
        self.policy.q_estimate.centre(th.as_tensor(nats, device=self.device))
        self._initialise(rows, columns)
        self.begin_online_buffer()
        self.policy.q_estimate.is_fitted = True

        seconds = time.time() - start
        self.logger.record("q_estimation/v_r2", fit.r2)
        self.logger.record("q_estimation/v_rmse", fit.rmse)
        self.logger.record("q_estimation/v_steps", fit.n_steps)
        self.logger.record("q_estimation/seconds", seconds)
        if self.verbose > 0:
            alike = np.isnan(fit.r2)
            explained = "all returns are alike" if alike else f"V_BC explains {fit.r2:.0%} of the held-out returns"
            print(
                f"... {explained} (error {fit.rmse:.3g}). The gate opens at step {self.num_timesteps}, after "
                f"{seconds:.0f} s of both."
            )

    def add_waiting_demonstrations(self) -> None:
        """The paper's "with data"."""
        if isinstance(self.demonstrations, Demonstrations):
            self.replay_buffer.add_demonstrations(self.demonstrations, self._bc_actions_along(self.demonstrations))

    def begin_online_buffer(self) -> None:
        if not self.keep_bc_episodes:
            self.replay_buffer.reset()
        super().begin_online_buffer()

    # ------------------------------------------------------------------ learning

    def _actor_loss(self, batch: BCSamples) -> th.Tensor:
        """(1 - w) mean(-min_i Q_i(s, a)) + w mean(-log pi_RL(a_BC|s)), with a ~ pi_RL(s)"""
        policy_loss = self._policy_loss(batch)
        bc_loss = self._bc_loss(batch)
        self._log_mean("train/bc_loss", bc_loss)
        w = self._bc_loss_weight(self._current_progress_remaining)
        self.logger.record("train/bc_loss_weight", w)
        return (1 - w) * policy_loss + w * bc_loss

    def _sample_batch(self, batch_size: int) -> BCSamples:
        batch = super()._sample_batch(batch_size)
        if batch.bc_actions is not None:
            return batch
        # Hindsight goals: ask the (memoryless) BC policy what it would do about them
        assert self._bc is not None
        obs = self._unnormalized(batch.observations)
        step: BCStep = self._bc.step(obs, None, np.ones(batch_size, dtype=bool), deterministic=True)
        return batch._replace(bc_actions=step.actions)

    def _waits_for(self) -> str | None:
        return None if self.has_started else checks.bc_episodes_to_come(self, self.n_bc_episodes)

    @classmethod
    def load(cls: type[SelfQGatedSAC], *args: Any, **kwargs: Any) -> SelfQGatedSAC:
        """
        As in SB3. ``bc_policy=...`` replaces the BC policy; if its weights differ from those the model was trained
        with, Q̂_BC is estimated again.
        """
        model = super().load(*args, **kwargs)
        if model._bc_is_new:
            model.policy.q_estimate.is_fitted = False
        elif model.has_started and kwargs.get("demonstrations") is not None:
            warnings.warn(
                "`demonstrations` are put in the replay buffer when the gate opens, which it has: these are not. Load "
                "the replay buffer that was saved with the model, or start anew with them.",
                stacklevel=2,
            )
        return model

    def _excluded_save_params(self) -> list[str]:
        # Demonstrations that are not in the replay buffer yet must travel with the model
        waiting = () if self.has_started else ("demonstrations",)
        return [name for name in super()._excluded_save_params() if name not in waiting] + ["_bc_is_new"]

    def load_replay_buffer(self, *args: Any, **kwargs: Any) -> None:
        super().load_replay_buffer(*args, **kwargs)
        if self._bc_is_new:
            self.replay_buffer.forget_bc_policy()
            self._ask_again()

    def _ask_again(self, chunk: int = 256) -> None:
        """What would the new BC policy have done where the old one was asked?"""
        assert self._bc is not None
        buffer = self.replay_buffer
        if self._bc.is_recurrent:
            warnings.warn(
                "The replay buffer holds what the old BC policy would have done, to which the BC loss goes on pulling: "
                "a recurrent one cannot be asked about single observations. Start with an empty buffer to avoid that.",
                stacklevel=3,
            )
            return
        rows, columns = (indices.ravel() for indices in np.indices((buffer.size(), buffer.n_envs)))
        for i in range(0, len(rows), chunk):
            places = rows[i : i + chunk], columns[i : i + chunk]
            obs = buffer.observations_at(*places)
            step = self._bc.step(obs, None, np.ones(len(places[0]), dtype=bool), self.bc_deterministic)
            buffer.bc_actions[places] = step.actions.cpu().numpy()
