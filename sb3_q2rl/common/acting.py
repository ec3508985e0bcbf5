"""Who acts: while collecting, in ``predict()``, and what the replay buffer is told about it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_q2rl.bc.features import as_features
from sb3_q2rl.bc.policy import BCPolicy, BCStep
from sb3_q2rl.common import step_checks
from sb3_q2rl.common.buffers import BCDictReplayBuffer, BCHerReplayBuffer, BCReplayBuffer

# Who is asked for an action: the model (through its gate, if it has one), its actor alone, or the BC policy alone
Who = Literal["model", "rl", "bc"]


class Decision(NamedTuple):
    """
    What happens in n environments at one step.

    :param actions: (n, action_dim) to execute, in [-1, 1]
    :param bc: what the BC policy proposed, where there is one
    :param rl: (n, action_dim) what the actor proposed, where both were asked
    :param rl_acts: (n,) bool, the RL action is the executed one
    :param q_rl: (n,) the values that were compared, where they were
    :param q_bc: (n,)
    """

    actions: th.Tensor
    bc: BCStep | None = None
    rl: th.Tensor | None = None
    rl_acts: th.Tensor | None = None
    q_rl: th.Tensor | None = None
    q_bc: th.Tensor | None = None

    def by(self, who: Who) -> th.Tensor:
        """The action of one of them; of the actor before it has learnt anything: the BC policy's."""
        if who == "bc" and self.bc is not None:
            return self.bc.actions
        return self.rl if who == "rl" and self.rl is not None else self.actions


class ActingSAC(SAC):
    """
    SAC whose actions may come from somebody else, too. ``_act`` decides; everything around it keeps the BC policy's
    recurrent state, its raw observations and its columns in the replay buffer right.
    """

    replay_buffer: BCReplayBuffer | BCDictReplayBuffer | BCHerReplayBuffer
    decision: Decision | None
    _bc: BCPolicy | None
    _bc_state: Any
    _is_between_steps = True

    @property
    def has_started(self) -> bool:
        """Has the actor begun to act, after whatever preparation the algorithm makes?"""
        return True

    def _act(
        self,
        obs: Any,
        raw_obs: Any,
        bc_state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
        noise: th.Tensor | None = None,
    ) -> Decision:
        """
        Who acts, while collecting and in ``predict()``.

        :param obs: (n, *obs_shape) tensors as the networks see them
        :param raw_obs: The same before ``VecNormalize``, as the BC policy knows them
        :param bc_state: Recurrent state of the BC policy
        :param episode_start: (n,) bool, rows whose recurrent state must be reset
        :param deterministic: Evaluation: no exploration
        :param noise: While collecting: what to add to the RL action, if anything
        """
        return Decision(self._rl_actions(obs, deterministic, noise))

    def _rl_actions(self, obs: Any, deterministic: bool, noise: th.Tensor | None) -> th.Tensor:
        actions = self.actor(obs, deterministic)
        return actions if noise is None else (actions + noise).clamp(-1, 1)

    def _ask(
        self,
        observation: Any,
        raw_observation: Any,
        bc_state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
        noise: th.Tensor | None = None,
    ) -> Decision:
        self.policy.set_training_mode(False)
        obs, _ = self.policy.obs_to_tensor(observation)
        raw_obs = obs if raw_observation is observation else self.policy.obs_to_tensor(raw_observation)[0]
        with th.no_grad():
            decision = self._act(obs, raw_obs, bc_state, episode_start, deterministic, noise)
        if decision.bc is not None:
            step_checks.bc_step_is_sound(decision.bc)
        return decision

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        raw = self._last_obs if self._vec_normalize_env is None else self._last_original_obs
        assert self._last_episode_starts is not None
        noise = None if action_noise is None else th.as_tensor(action_noise(), dtype=th.float32, device=self.device)
        self._is_between_steps = False
        self.decision = self._ask(self._last_obs, raw, self._bc_state, self._last_episode_starts, False, noise)
        scaled = self.decision.actions.cpu().numpy()
        return self.policy.unscale_action(scaled.reshape(n_envs, *self.action_space.shape)), scaled  # type: ignore[misc]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        who: Who = "model",
    ) -> tuple[np.ndarray, Any]:
        """
        As in SB3. Whoever acts while learning acts here too, without exploration if ``deterministic``.

        :param observation: One observation, or a batch of them
        :param state: Recurrent state of the BC policy, as the last call returned it
        :param episode_start: (n,) bool; resets the recurrent state of those rows
        :param deterministic: No exploration
        :param who: ``"model"``, or to compare: ``"rl"`` the actor alone, ``"bc"`` the BC policy alone
        :return: the actions in the environment's own scale, and the next state
        :raises ValueError: an unknown ``who``, or ``"bc"`` of a model that has no BC policy
        """
        if who not in get_args(Who):
            raise ValueError(f"`who` is {who!r}, expected one of {get_args(Who)}.")
        if who == "bc" and self._bc is None:
            raise ValueError(f"`who` is 'bc', but this {type(self).__name__} has no BC policy. Ask it for 'model'.")
        observation = self._as_learnt_from(observation)
        decision = self.decide(observation, state, episode_start, deterministic)
        actions = decision.by(who).cpu().numpy().reshape(-1, *self.action_space.shape)  # type: ignore[misc]
        actions = self.policy.unscale_action(actions)
        next_state = None if decision.bc is None else decision.bc.state
        return (actions if self.policy.is_vectorized_observation(observation) else actions[0]), next_state

    def decide(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> Decision:
        """
        What ``predict`` does, with the reasons: who proposed what, which values were compared, who acts.

        :param observation: One observation, or a batch of them
        :param state: See :meth:`predict`
        :param episode_start: See :meth:`predict`
        :param deterministic: See :meth:`predict`
        :return: For a batch, of one where one observation came
        """
        observation = self._as_learnt_from(observation)
        normalizer = self._vec_normalize_env
        raw = observation if normalizer is None else normalizer.unnormalize_obs(observation)
        if episode_start is None:
            is_batch = self.policy.is_vectorized_observation(observation)
            first = next(iter(observation.values())) if isinstance(observation, dict) else observation
            episode_start = np.full(len(first) if is_batch else 1, state is None)
        return self._ask(observation, raw, state, episode_start, deterministic)

    def _as_learnt_from(self, observation: Any) -> Any:
        """Images, where the model has learnt from what the BC policy's encoders make of them, become that."""
        return as_features(observation, self._bc, self.observation_space)

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: Any,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        step_checks.rewards_are_finite(reward, infos)
        step_checks.transition_is_finite(new_obs, dones, infos)
        assert self.decision is not None
        buffer_action = self._executed(buffer_action, infos)
        intervened = np.array(["intervene_action" in info for info in infos])
        if self.decision.rl_acts is not None and intervened.any():
            free = th.as_tensor(~intervened, device=self.decision.rl_acts.device)
            self.decision = self.decision._replace(rl_acts=self.decision.rl_acts & free)
        bc = self.decision.bc
        if bc is not None:
            zeros = np.zeros(len(dones))  # no density: log pi + H counts nothing
            actions = bc.actions.cpu().numpy()
            log_prob = zeros if bc.log_prob is None else bc.log_prob.cpu().numpy()
            entropy = zeros if bc.entropy is None else bc.entropy.cpu().numpy()
            rl_acts = self.decision.rl_acts
            bc_acts = np.zeros(len(dones), bool) if rl_acts is None else ~rl_acts.cpu().numpy() & ~intervened
            for i, info in enumerate(infos):
                info["bc_step"] = (actions[i], log_prob[i], entropy[i], bc_acts[i])
            self._bc_state = bc.state
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        # SB3 leaves this to the on-policy algorithms; the BC policy's recurrent state needs it
        self._last_episode_starts = dones
        self._is_between_steps = True

    def _executed(self, buffer_action: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
        """
        What to learn from where a robot tells of another action than it was given: ``info["executed_action"]``, after
        its safety limits, or ``info["intervene_action"]``, a person's; both in the environment's own scale. A BC action
        that was cut to the limits is still the BC policy's: the limits are a part of the world that it acts in.
        """
        for i, info in enumerate(infos):
            executed = info.get("executed_action", info.get("intervene_action"))
            if executed is not None:
                buffer_action = buffer_action.copy()
                executed = step_checks.executed_action(executed, self.action_space.shape, i)  # type: ignore[arg-type]  # a Box has one
                buffer_action[i] = self.policy.scale_action(executed).reshape(-1).clip(-1, 1)
        return buffer_action

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if not self._is_between_steps:  # a callback or Ctrl-C stopped in a step that was made, but not stored
            self._last_obs = None
        if reset_num_timesteps or self._last_obs is None:  # SB3 is about to reset the environments
            self.replay_buffer.forget_open_episodes()
            self._bc_state = None
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)
