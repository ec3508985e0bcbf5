"""The one gradient-step loop of this package. An algorithm overrides the hooks that its paper changes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_q2rl.bc.features import demonstrations_as_features
from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.bc.record import BCRecord, describe, open_bc_policy, rebuild
from sb3_q2rl.common import checks
from sb3_q2rl.common.acting import ActingSAC, Decision
from sb3_q2rl.common.buffers import BCDictReplayBuffer, BCHerReplayBuffer, BCReplayBuffer, BCSamples
from sb3_q2rl.common.critics import EnsembleCritic
from sb3_q2rl.common.images import image_keys, shift_observation, with_channels_first
from sb3_q2rl.common.keywords import check_load_keywords
from sb3_q2rl.common.policies import EnsembleSACCnnPolicy, EnsembleSACMultiInputPolicy, EnsembleSACPolicy
from sb3_q2rl.common.returns import TruncationTail
from sb3_q2rl.data import Demonstrations
from sb3_q2rl.data.detect import options_for_space, reader_options

SelfOfflineToOnlineSAC = TypeVar("SelfOfflineToOnlineSAC", bound="OfflineToOnlineSAC")


class OfflineToOnlineSAC(ActingSAC):
    """
    SAC with an ensemble of critics, prior knowledge (a BC policy, demonstrations, or both) and an update loop whose
    parts can be replaced one by one: ``_act``, ``_sample_batch``, ``_next_actions``, ``_critic_loss``, ``_actor_loss``.

    One call of ``train`` makes ``gradient_steps`` critic steps. Every ``policy_delay`` of them share one batch, cut in
    as many minibatches, and are followed by one actor step on the whole batch (REDQ and Q2RL's update-to-data ratio).

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, or a class. May be left out: the
        observation space decides, and the first argument is then the environment
    :param env: The environment, or its registered id
    :param bc_policy: A :class:`BCPolicy`, the path of a checkpoint, or the name of a shipped policy
    :param demonstrations: Demonstrations, the path of a file of them, or the name of a shipped data set
    :param actor_learning_rate: The actor's, where it differs from ``learning_rate``
    :param policy_delay: Critic steps for each actor step
    :param n_target_critics: The TD target is the minimum over so many randomly drawn target critics (REDQ);
        ``None``: over all
    :param truncation_tail: What Monte-Carlo returns assume after a time limit, see :func:`monte_carlo_returns`
    :param image_shift: Shift images of a batch at random by up to so many pixels (DrQ); 0: leave them
    :param sac_kwargs: As in SAC; ``n_steps``: rewards that a TD target sums before it bootstraps
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": EnsembleSACPolicy,
        "CnnPolicy": EnsembleSACCnnPolicy,
        "MultiInputPolicy": EnsembleSACMultiInputPolicy,
    }
    critic: EnsembleCritic  # type: ignore[assignment]
    critic_target: EnsembleCritic  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[BasePolicy] | GymEnv | None = None,
        env: GymEnv | str | None = None,
        *,
        bc_policy: BCPolicy | str | Path | None = None,
        demonstrations: Demonstrations | str | Path | None = None,
        actor_learning_rate: float | Schedule | None = None,
        policy_delay: int = 1,
        n_target_critics: int | None = 2,
        truncation_tail: TruncationTail = "repeat_last",
        image_shift: int = 4,
        _init_setup_model: bool = True,
        **sac_kwargs: Any,
    ) -> None:
        policy, env = self._sort_out(policy, env, sac_kwargs.get("verbose", 0))
        super().__init__(policy, env, _init_setup_model=False, **sac_kwargs)  # type: ignore[arg-type]
        self.bc_policy = bc_policy
        self.demonstrations = demonstrations
        self.actor_learning_rate = actor_learning_rate
        self.policy_delay = policy_delay
        self.n_target_critics = n_target_critics
        self.truncation_tail = truncation_tail
        self.image_shift = image_shift
        self.saved_by = type(self).__name__  # load() replaces it by what the file says
        self._bc: BCPolicy | None = None
        self._bc_record: BCRecord | None = None
        self._bc_state: Any = None
        self.decision: Decision | None = None
        self._sums: dict[str, list[Any]] = {}
        if _init_setup_model:
            self._setup_model()

    @classmethod
    def _sort_out(
        cls, policy: str | type[BasePolicy] | GymEnv | None, env: GymEnv | str | None, verbose: int
    ) -> tuple[str | type[BasePolicy], GymEnv | None]:
        """``Algorithm(env)`` and ``Algorithm("MlpPolicy", env)`` both work: find out which was meant."""
        if env is None and not isinstance(policy, type) and policy not in cls.policy_aliases:
            policy, env = None, policy
        env = maybe_make_env(env, verbose)  # type: ignore[arg-type]
        if isinstance(policy, type):
            checks.policy_class(policy, cls)
        else:  # load() names a class, and may lack an environment
            checks.has_env(env, cls.__name__)
        if env is not None:
            checks.action_space_is_finite_box(env.action_space)
            checks.observation_keys(env.observation_space)
        if policy is None:
            space = env.observation_space
            image = is_image_space(space) if isinstance(space, spaces.Box) else False
            policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "CnnPolicy" if image else "MlpPolicy"
        return policy, env  # type: ignore[return-value]

    # ------------------------------------------------------------------ set-up

    def _setup_model(self) -> None:
        checks.saved_by_the_same(self)
        self.saved_by = type(self).__name__
        checks.whole_numbers(self)
        checks.numbers(self)
        checks.update_schedule(self)
        self._choose_replay_buffer()
        # Loading puts the saved statistics here; an environment that was given goes first
        if self.env is not None:
            given = unwrap_vec_normalize(self.env)
            checks.normalized_alike(self._vec_normalize_env, given)
            self._vec_normalize_env = given
        checks.no_reward_normalization(self._vec_normalize_env)
        with warnings.catch_warnings():  # SB3 takes other buffers than its own to have no n-step returns
            warnings.filterwarnings("ignore", message="`n_steps=")
            super()._setup_model()
        if self.verbose > 0:
            gigabytes = self.replay_buffer.bytes_when_full() / 1e9
            print(f"Replay buffer: {gigabytes:.2g} GB once its {self.buffer_size:,} transitions are filled")
        checks.memory_suffices(self)
        actor_lr = self.actor_learning_rate
        self._actor_lr_schedule = self.lr_schedule if actor_lr is None else FloatSchedule(actor_lr)
        checks.n_target_critics(self)
        self._setup_bc_policy()
        if self.demonstrations is not None:
            self._take(self.demonstrations)

    def _take(self, demonstrations: Demonstrations | str | Path) -> None:
        """
        Demonstrations, or where they are, as the networks see them.

        :raises TypeError: something else
        """
        if not isinstance(demonstrations, Demonstrations | str | Path):
            raise TypeError(
                f"`demonstrations` is a {type(demonstrations).__name__}; expected Demonstrations, the path of a file "
                "of them, or the name of a shipped data set."
            )
        if not isinstance(demonstrations, Demonstrations):
            demonstrations = self._load_demonstrations(demonstrations)
        shown = demonstrations_as_features(demonstrations, self._bc, self.observation_space)
        self.demonstrations = with_channels_first(shown, self.observation_space)
        checks.demonstrations_fit(self)

    def _load_demonstrations(self, path: str | Path) -> Demonstrations:
        """
        Files that hold raw rewards (robomimic's) are given the scale of an environment that tells its own, and their
        observations the keys of one that has a Dict.
        """
        known = set(reader_options(path))
        options = options_for_space(path, self.observation_space)
        for name in {"reward_scale", "reward_bias"} & known:
            if self.env is not None and self.env.has_attr(name):
                options[name] = self.env.get_attr(name)[0]
        return Demonstrations.load(path, **options)

    def _choose_replay_buffer(self) -> None:
        checks.buffer_options(self)
        if self.replay_buffer_class is None:
            is_dict = isinstance(self.observation_space, spaces.Dict)
            self.replay_buffer_class = BCDictReplayBuffer if is_dict else BCReplayBuffer
        elif self.replay_buffer_class is HerReplayBuffer:
            self.replay_buffer_class = BCHerReplayBuffer
        checks.buffer_class(self.replay_buffer_class)
        self.replay_buffer_kwargs = {
            **self.replay_buffer_kwargs,
            "gamma": self.gamma,
            "truncation_tail": self.truncation_tail,
            "n_steps": self.n_steps,
        }

    def _setup_bc_policy(self) -> None:
        if self.bc_policy is not None:
            self._bc = open_bc_policy(self.bc_policy, self.device)
        elif self._bc_record is not None:
            self._bc = rebuild(self._bc_record, self.device)
        if self._bc is None:
            return
        if self._bc.is_recurrent and issubclass(self.replay_buffer_class, HerReplayBuffer):  # type: ignore[arg-type]
            raise ValueError(
                "`bc_policy` is recurrent and `replay_buffer_class` relabels goals in hindsight: what a recurrent "
                "policy would have done under another goal cannot be computed. Use a memoryless BC policy, or no HER."
            )
        checks.bc_policy_fits(self._bc, self.policy)
        known = self._bc_record
        self._bc_record = describe(self._bc, self.bc_policy if known is None else self.bc_policy or known["source"])
        if known is not None and known["fingerprint"] != self._bc_record["fingerprint"]:
            self._on_new_bc_policy()

    def add_waiting_demonstrations(self) -> None:
        """Put in the replay buffer what was to wait until the model has started. By default nothing does."""

    def begin_online_buffer(self) -> None:
        """Make the replay buffer what online learning starts from, once the model has started."""
        self.add_waiting_demonstrations()

    def _bc_actions_along(self, demonstrations: Demonstrations) -> np.ndarray | None:
        """(n, action_dim) BC actions to store beside the demonstrated ones; ``None``: these themselves (the paper)."""
        return None

    def _on_new_bc_policy(self) -> None:
        """A saved model was given another BC policy than it was trained with."""

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        given = unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None
        checks.normalized_alike(self._vec_normalize_env, given)
        checks.no_reward_normalization(given)
        super().set_env(env, force_reset)

    @classmethod
    def load(
        cls: type[SelfOfflineToOnlineSAC],
        path: Any,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfOfflineToOnlineSAC:
        """
        As in SB3.

        :raises TypeError: a keyword that no constructor of it takes
        :raises ValueError: the model of another algorithm
        """
        check_load_keywords(cls, kwargs)
        return super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        own = self.replay_buffer
        super().load_replay_buffer(path, truncate_last_traj)
        loaded, self.replay_buffer = self.replay_buffer, own
        checks.replay_buffer_fits(self, loaded)
        self.replay_buffer = loaded

    # ------------------------------------------------------------------ learning

    def learn(
        self: SelfOfflineToOnlineSAC,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfOfflineToOnlineSAC:
        """
        As in SB3. Runs in TensorBoard have the algorithm's name; warm-up and estimation are part of
        ``total_timesteps``.

        :raises RuntimeError: not one episode of the BC policy ended, where some have to come first
        """
        tb_log_name = tb_log_name or type(self).__name__
        super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        was_stopped_by_callback = self.num_timesteps < self._total_timesteps
        if not was_stopped_by_callback and (waits_for := self._waits_for()):
            warnings.warn(
                f"learn() ended before anything was learnt online: {waits_for} Raise `total_timesteps`; "
                "learn(..., reset_num_timesteps=False) goes on from here.",
                stacklevel=2,
            )
        return self

    def _waits_for(self) -> str | None:
        """What has to come before it learns online; nothing any more, or by default."""
        return None

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        self.policy.set_training_mode(True)
        self._update_learning_rates()
        for _ in range(gradient_steps // self.policy_delay):
            batch = self._sample_batch(batch_size)
            for minibatch in batch.split(self.policy_delay):
                self._optimise_critic(self._critic_loss(minibatch))
            if self.use_sde:
                self.actor.reset_noise()
            # The critics only pass the gradient on to the action: half the work is saved by not asking for theirs
            self.critic.requires_grad_(False)
            try:
                self._optimise_actor(self._actor_loss(self._seen(batch)))
            finally:  # whoever stops it here by Ctrl-C may go on later
                self.critic.requires_grad_(True)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _optimise_critic(self, loss: th.Tensor) -> None:
        """One step of the critics, and a small one of their targets behind them."""
        self.critic.optimizer.zero_grad()
        loss.backward()
        self.critic.optimizer.step()
        with th.no_grad():
            for target, online in zip(self.critic_target.parameters(), self.critic.parameters(), strict=True):
                target.lerp_(online, self.tau)
            for behind, ahead in zip(self.critic_target.buffers(), self.critic.buffers(), strict=True):
                behind.copy_(ahead)  # running statistics of batch normalisation, if any
        self._log_mean("train/critic_loss", loss)

    def _optimise_actor(self, loss: th.Tensor) -> None:
        self.actor.optimizer.zero_grad()
        loss.backward()
        self.actor.optimizer.step()
        self._log_mean("train/actor_loss", loss)

    def _sample_batch(self, batch_size: int) -> BCSamples:
        """Where a batch comes from."""
        return self._shifted(self.replay_buffer.sample(batch_size, env=self._vec_normalize_env))  # type: ignore[arg-type]

    def _shifted(self, batch: BCSamples) -> BCSamples:
        """Images of both observations, each moved by a random shift of its own (DrQ)."""
        keys = image_keys(self.observation_space)
        if not keys or self.image_shift == 0:
            return batch
        return batch._replace(
            observations=shift_observation(batch.observations, keys, self.image_shift),
            next_observations=shift_observation(batch.next_observations, keys, self.image_shift),
        )

    def _seen(self, batch: BCSamples) -> BCSamples:
        """The batch with its observations encoded, by the encoder that actor and critics share."""
        return batch._replace(observations=self.critic.encode(batch.observations))

    def _unnormalized(self, obs: Any) -> Any:
        """Observations of a batch as the BC policy knows them."""
        if self._vec_normalize_env is None:
            return obs
        as_dict = obs if isinstance(obs, dict) else {"obs": obs}
        arrays: Any = {key: value.cpu().numpy() for key, value in as_dict.items()}
        raw: Any = self._vec_normalize_env.unnormalize_obs(arrays if isinstance(obs, dict) else arrays["obs"])
        return self.policy.obs_to_tensor(raw)[0]

    def _actor_input(self, obs: Any, bc_actions: th.Tensor | None) -> Any:
        """What the actor reads: the observation. Another actor may read the BC policy's proposal, too."""
        return obs

    def _next_actions(self, batch: BCSamples) -> tuple[th.Tensor, th.Tensor]:
        """
        What the TD target bootstraps on: a' ~ pi(s').

        :return: (batch, action_dim) actions and (batch,) log-probabilities
        """
        return self.actor.action_log_prob(batch.next_observations)

    def _td_target(self, batch: BCSamples) -> th.Tensor:
        """
        y = r + gamma (1 - d) (min over a random subset of target critics of Q(s', a') - ent_coef log pi(a'|s'))

        With n-step returns r is their sum, and gamma^n stands before the value of the state n steps on.
        """
        with th.no_grad():
            next_actions, next_log_prob = self._next_actions(batch)
            members = th.randperm(self.critic.n_critics, device=self.device)[: self.n_target_critics]
            next_q = self._next_value(batch.next_observations, next_actions, members)
            next_q = next_q - self._entropy_coef() * next_log_prob
            discounts = self.gamma if batch.discounts is None else batch.discounts.squeeze(1)
            return batch.rewards.squeeze(1) + (1 - batch.dones.squeeze(1)) * discounts * next_q

    def _next_value(self, obs: Any, actions: th.Tensor, members: th.Tensor) -> th.Tensor:
        """(batch,) how the values that some of the target critics give become one: the lowest counts."""
        return self.critic_target(obs, actions, members).amin(dim=0)

    def _critic_loss(self, batch: BCSamples) -> th.Tensor:
        """The TD error."""
        return self._value_loss(batch, self._td_target(batch))

    def _value_loss(self, batch: BCSamples, targets: th.Tensor) -> th.Tensor:
        """The mean squared error of Q_i(s, a), summed over the critics."""
        q_values = self.critic(batch.observations, batch.actions)  # (n_critics, batch)
        self._log_mean("train/q_mean", q_values.detach().mean())
        return (q_values - targets).square().mean(dim=1).sum()

    def _policy_loss(self, batch: BCSamples) -> th.Tensor:
        """SAC's: mean(ent_coef log pi(a|s) - min_i Q_i(s, a)), a ~ pi. It leaves the distribution in the actor."""
        actions, log_prob = self.actor.action_log_prob(self._actor_input(batch.observations, batch.bc_actions))
        ent_coef = self._entropy_coef()  # before its own step, as in SAC
        if self.ent_coef_optimizer is not None:
            self._step_entropy_coef(log_prob)
        q_values = self._policy_value(batch.observations, actions)
        self._log_mean("train/policy_entropy", -log_prob.detach().mean())
        return (ent_coef * log_prob - q_values).mean()

    def _policy_value(self, obs: Any, actions: th.Tensor) -> th.Tensor:
        """(batch,) what the actor climbs: the lowest of its critics."""
        return self.critic.lowest(obs, actions)

    def _actor_loss(self, batch: BCSamples) -> th.Tensor:
        return self._policy_loss(batch)

    def _entropy_coef(self) -> th.Tensor:
        if self.log_ent_coef is not None:
            return self.log_ent_coef.detach().exp()
        return self.ent_coef_tensor

    def _step_entropy_coef(self, log_prob: th.Tensor) -> None:
        assert self.log_ent_coef is not None
        assert self.ent_coef_optimizer is not None
        assert isinstance(self.target_entropy, float)
        loss = -(self.log_ent_coef * (log_prob.detach() + self.target_entropy)).mean()
        self.ent_coef_optimizer.zero_grad()
        loss.backward()
        self.ent_coef_optimizer.step()
        self._log_mean("train/ent_coef", self._entropy_coef())

    def _update_learning_rates(self) -> None:
        optimizers = [self.critic.optimizer]
        if self.ent_coef_optimizer is not None:
            optimizers.append(self.ent_coef_optimizer)
        self._update_learning_rate(optimizers)
        update_learning_rate(self.actor.optimizer, self._actor_lr_schedule(self._current_progress_remaining))

    # ------------------------------------------------------------------ logging, saving

    def _log_mean(self, name: str, value: th.Tensor) -> None:
        """Average a quantity until the next dump of the logger; reading it only then never makes a GPU wait."""
        total = self._sums.setdefault(name, [0.0, 0])
        total[0] = total[0] + value.detach()
        total[1] += 1

    def _record_means(self) -> None:
        for name, (total, count) in self._sums.items():
            self.logger.record(name, float(total) / count)
        self._sums.clear()

    def dump_logs(self) -> None:
        self._record_means()
        super().dump_logs()

    def _excluded_save_params(self) -> list[str]:
        # "train": of AsyncLearning, while it stands in for ours
        ours = ["bc_policy", "demonstrations", "_bc", "_bc_state", "decision", "_sums", "train"]
        # The normalisation statistics stay: without an environment, predict() still needs raw observations for the BC
        return [name for name in super()._excluded_save_params() if name != "_vec_normalize_env"] + ours
