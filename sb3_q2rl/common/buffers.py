"""Replay buffers that remember what the BC policy would have done, and that take memory only as they fill."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_q2rl.common.frames import NextFrames
from sb3_q2rl.common.images import image_keys
from sb3_q2rl.common.returns import TruncationTail, check_tail, monte_carlo_returns
from sb3_q2rl.data import Demonstrations

INITIAL_ROWS = 4096


class BCSamples(NamedTuple):
    """
    A batch with SB3's fields first. BC fields are (batch, ...), ``None`` where the buffer cannot know them (HER).

    With n-step returns, ``rewards`` are their sums, ``next_observations`` and ``dones`` those of the last step summed,
    and ``discounts``, (batch, 1), what to multiply the value there with.
    ``next_bc_actions`` are the BC policy's at ``next_observations``, NaN where it was not asked; in samples of a buffer
    ``with_next_bc_actions`` only.
    """

    observations: Any
    actions: th.Tensor
    next_observations: Any
    dones: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor | None = None
    bc_actions: th.Tensor | None = None
    bc_log_prob: th.Tensor | None = None
    bc_entropy: th.Tensor | None = None
    mc_returns: th.Tensor | None = None
    next_bc_actions: th.Tensor | None = None

    def split(self, n_parts: int) -> list[BCSamples]:
        """Cut the batch in ``n_parts`` of equal size: the critics' minibatches of one update."""
        size = len(self.actions) // n_parts

        def cut(field: Any, part: int) -> Any:
            if isinstance(field, dict):
                return {key: cut(value, part) for key, value in field.items()}
            return None if field is None else field[part * size : (part + 1) * size]

        return [BCSamples(*(cut(field, part) for field in self)) for part in range(n_parts)]


class _BCColumns(ReplayBuffer):
    """
    What all our buffers add to SB3's, whatever the kind of observation:

    - columns for the BC policy's action, log-probability, entropy and whether that action was the executed one,
      read from ``info["bc_step"]``;
    - n-step returns;
    - the Monte-Carlo return of every step, filled in backwards when its episode ends (NaN until then);
    - growth: arrays start at a few thousand rows and double up to ``buffer_size``. Loading a model to play it, or
      checkpointing a young run, costs only what was recorded.

    :param buffer_size: Maximum number of transitions
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: Where samples go
    :param n_envs: Number of environments, each has a column
    :param gamma: Discount factor of the returns
    :param truncation_tail: What follows a truncated episode, see :func:`monte_carlo_returns`
    :param n_steps: Rewards that are summed in a sample before the TD target bootstraps
    :param with_next_bc_actions: Samples hold what the BC policy would have done next
    :param kwargs: For SB3's buffer of the kind
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        gamma: float = 0.99,
        truncation_tail: TruncationTail = "repeat_last",
        n_steps: int = 1,
        with_next_bc_actions: bool = False,
        **kwargs: Any,
    ) -> None:
        check_tail(truncation_tail, gamma)
        self.max_rows = max(buffer_size // n_envs, 1)
        rows = min(self.max_rows, INITIAL_ROWS)
        super().__init__(rows * n_envs, observation_space, action_space, device=device, n_envs=n_envs, **kwargs)
        self.gamma = gamma
        self.truncation_tail = truncation_tail
        self.n_steps = n_steps
        self.with_next_bc_actions = with_next_bc_actions
        # Where an episode was left unfinished: the next row is not its continuation
        self.cuts = np.zeros((rows, n_envs), dtype=bool)
        self.bc_actions = np.zeros((rows, n_envs, self.action_dim), dtype=np.float32)
        self.bc_log_prob = np.zeros((rows, n_envs), dtype=np.float32)
        self.bc_entropy = np.zeros((rows, n_envs), dtype=np.float32)
        self.bc_acted = np.zeros((rows, n_envs), dtype=bool)
        self.mc_returns = np.full((rows, n_envs), np.nan, dtype=np.float32)
        self._episode_length = np.zeros(n_envs, dtype=np.int64)
        self.n_bc_episodes = 0
        keys = image_keys(observation_space)
        if isinstance(self.next_observations, dict):
            self.next_observations |= {key: NextFrames(self.observations[key]) for key in keys}
        elif keys:
            self.next_observations = NextFrames(self.observations)  # type: ignore[assignment]

    def _share_frames(self) -> None:
        """Images of next observations are looked up among the observations, wherever those lie now."""
        pairs = (
            [(self.observations[key], following) for key, following in self.next_observations.items()]
            if isinstance(self.next_observations, dict)
            else [(self.observations, self.next_observations)]
        )
        for frames, following in pairs:
            if isinstance(following, NextFrames):
                following.frames = frames

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: list[dict[str, Any]]) -> None:
        self._make_room(1)
        row = self.pos
        super().add(obs, next_obs, action, reward, done, infos)
        for env_idx, info in enumerate(infos):
            bc_step = info.get("bc_step", (0.0, 0.0, 0.0, False))
            self.bc_actions[row, env_idx] = bc_step[0]
            self.bc_log_prob[row, env_idx] = bc_step[1]
            self.bc_entropy[row, env_idx] = bc_step[2]
            self.bc_acted[row, env_idx] = bc_step[3]
        self.mc_returns[row] = np.nan
        self.cuts[row] = False
        self._episode_length += 1
        for env_idx in np.flatnonzero(done).tolist():
            self._finish_episode(row, env_idx)

    def _finish_episode(self, last_row: int, env_idx: int) -> None:
        length = min(self._episode_length[env_idx], self.buffer_size)
        rows = (last_row - np.arange(length)[::-1]) % self.buffer_size
        terminated = not self.timeouts[last_row, env_idx]
        self.mc_returns[rows, env_idx] = monte_carlo_returns(
            self.rewards[rows, env_idx], terminated, self.gamma, self.truncation_tail
        )
        self._episode_length[env_idx] = 0
        self.n_bc_episodes += int(self.bc_acted[rows, env_idx].all())

    def forget_open_episodes(self) -> None:
        """The environments were reset in mid-episode: what follows is not the continuation of what was stored last."""
        self._episode_length[:] = 0
        self.cuts[self.pos - 1] = True  # an episode that ended there ends anyway

    def forget_bc_policy(self) -> None:
        """The BC policy was replaced: none of these episodes is the new one's."""
        self.bc_acted[:] = False
        self.n_bc_episodes = 0

    def reset(self) -> None:
        super().reset()
        self.forget_open_episodes()
        self.forget_bc_policy()

    def can_sample(self) -> bool:
        """Is there anything to draw a batch from?"""
        return self.size() > 0

    def _make_room(self, n_rows: int) -> None:
        # The parent class wraps around at `buffer_size`: grow before it gets there
        while not self.full and self.pos + n_rows >= self.buffer_size < self.max_rows:
            old_rows, new_rows = self.buffer_size, min(2 * self.buffer_size, self.max_rows)

            def grow(holder: dict[str, Any], old_rows: int = old_rows, new_rows: int = new_rows) -> None:
                for name, value in holder.items():
                    if isinstance(value, dict):
                        grow(value)
                    elif isinstance(value, np.ndarray) and value.shape[:2] == (old_rows, self.n_envs):
                        shape = (new_rows, *value.shape[1:])
                        if value.flags.owndata:
                            # In place: gigabytes of images must not lie in memory twice. Nobody holds a view of them
                            value.resize(shape, refcheck=False)
                        else:  # the first time after loading: unpickled arrays lie in what was read from the file
                            holder[name] = np.zeros(shape, value.dtype)
                            holder[name][:old_rows] = value

            grow(vars(self))
            self._share_frames()
            self.buffer_size = new_rows

    def bc_episodes(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """
        :return: (rows, env_indices) of every finished episode in which the BC policy took all the actions, oldest first
            in each environment
        """
        in_order = (np.arange(self.size()) + (self.pos if self.full else 0)) % self.buffer_size
        episodes = []
        for env_idx in range(self.n_envs):
            known = ~np.isnan(self.mc_returns[in_order, env_idx])
            start = 0
            for end in np.flatnonzero(known & (self.dones[in_order, env_idx] > 0)).tolist():
                rows = in_order[start : end + 1]
                start = end + 1
                rows = rows[~np.isnan(self.mc_returns[rows, env_idx])]  # without the stump of a forgotten episode
                if self.bc_acted[rows, env_idx].all():
                    episodes.append((rows, np.full(len(rows), env_idx)))
        return episodes

    def first_bc_episodes(self, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """
        Those that began first: of those that end first too many would be short, and where success ends an episode too
        many successes.

        :param n: how many
        :return: as of :meth:`bc_episodes`, n of them; none as long as one that began before the last of them may still
            become one of them
        """
        if self.n_bc_episodes < n:
            return []
        oldest = self.pos if self.full else 0

        def begun(row: int, env_idx: int) -> tuple[int, int]:
            return (row - oldest) % self.buffer_size, env_idx

        first = sorted(self.bc_episodes(), key=lambda episode: begun(episode[0][0], episode[1][0]))[:n]
        under_way = [
            begun(self.pos - self._episode_length[i], i) for i in np.flatnonzero(self._episode_length).tolist()
        ]
        if len(first) < n or any(start < begun(first[-1][0][0], first[-1][1][0]) for start in under_way):
            return []
        return first

    def observations_at(self, rows: np.ndarray, env_indices: np.ndarray, env: VecNormalize | None = None) -> Any:
        """
        :param rows: (batch,) time indices
        :param env_indices: (batch,) which environment's column
        :param env: Normalises the observations, if given
        :return: (batch, *obs_shape), or a dict of those
        """
        return self._picked(self.observations, rows, env_indices, env)

    def _picked(self, stored: Any, rows: np.ndarray, env_indices: np.ndarray, env: VecNormalize | None) -> Any:
        if isinstance(stored, dict):
            picked: Any = {key: value[rows, env_indices] for key, value in stored.items()}
            normalized: Any = self._normalize_obs(picked, env)
            return {key: self.to_torch(value) for key, value in normalized.items()}
        return self.to_torch(self._normalize_obs(stored[rows, env_indices], env))  # type: ignore[arg-type]

    def gather(self, rows: np.ndarray, env_indices: np.ndarray, env: VecNormalize | None = None) -> BCSamples:
        """
        :param rows: (batch,) time indices
        :param env_indices: (batch,) which environment's column
        :param env: Normalises the observations, if given
        """
        last_rows, rewards, discounts = self._n_step_returns(rows, env_indices, env)
        # A time limit is no terminal state: bootstrap there
        dones = self.dones[last_rows, env_indices] * (1 - self.timeouts[last_rows, env_indices])
        return BCSamples(
            observations=self.observations_at(rows, env_indices, env),
            actions=self.to_torch(self.actions[rows, env_indices]),
            next_observations=self._picked(self.next_observations, last_rows, env_indices, env),
            dones=self.to_torch(dones).reshape(-1, 1),
            rewards=self.to_torch(rewards).reshape(-1, 1),
            discounts=self.to_torch(discounts).reshape(-1, 1),
            bc_actions=self.to_torch(self.bc_actions[rows, env_indices]),
            bc_log_prob=self.to_torch(self.bc_log_prob[rows, env_indices]),
            bc_entropy=self.to_torch(self.bc_entropy[rows, env_indices]),
            mc_returns=self.to_torch(self.mc_returns[rows, env_indices]),
            next_bc_actions=self._next_bc_actions(last_rows, env_indices) if self.with_next_bc_actions else None,
        )

    def _next_bc_actions(self, rows: np.ndarray, env_indices: np.ndarray) -> th.Tensor:
        actions = self.bc_actions[(rows + 1) % self.buffer_size, env_indices]
        actions[self._is_last(rows, env_indices)] = np.nan
        return self.to_torch(actions)

    def _is_last(self, rows: np.ndarray, env_indices: np.ndarray) -> np.ndarray:
        """Is the row after this one no continuation of its episode? Same shape as the indices, broadcast."""
        newest = (self.pos - 1) % self.buffer_size
        return (self.dones[rows, env_indices] > 0) | self.cuts[rows, env_indices] | (rows == newest)

    def _n_step_returns(
        self, rows: np.ndarray, env_indices: np.ndarray, env: VecNormalize | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Sum rewards for ``n_steps``, or until the episode stops: R = sum_{k < m} gamma^k r_{t+k}, m <= n_steps.

        :return: (batch,) the row of the last reward, the sum R, and gamma^m, which the next value is discounted with
        """
        if self.n_steps == 1:  # the same, in a fraction of the time
            rewards = self._normalize_reward(self.rewards[rows, env_indices], env)
            return rows, rewards, np.full(len(rows), self.gamma, dtype=np.float32)
        columns = env_indices[:, None]
        window = (rows[:, None] + np.arange(self.n_steps)) % self.buffer_size  # (batch, n_steps)
        stops = self._is_last(window, columns)
        counts = np.cumsum(stops, axis=1) - stops == 0  # nothing stopped before this step
        powers = np.float32(self.gamma) ** np.arange(self.n_steps + 1, dtype=np.float32)
        rewards = self._normalize_reward(self.rewards[window, columns], env)
        lengths = counts.sum(axis=1)
        last_rows = (rows + lengths - 1) % self.buffer_size
        return last_rows, (rewards * powers[:-1] * counts).sum(axis=1), powers[lengths]

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> BCSamples:  # type: ignore[override]
        return self.gather(batch_inds, np.random.randint(0, self.n_envs, size=len(batch_inds)), env)

    def bytes_when_full(self) -> int:
        """Memory of ``buffer_size`` transitions."""

        def row_bytes(value: Any) -> float:
            if isinstance(value, dict):
                return sum(row_bytes(item) for item in value.values())
            is_column = isinstance(value, np.ndarray) and value.shape[:2] == (self.buffer_size, self.n_envs)
            return value.nbytes / self.buffer_size if is_column else 0

        return int(self.max_rows * row_bytes(vars(self)))

    def check_room_for(self, demonstrations: Demonstrations) -> None:
        """:raises ValueError: there are more of them than the buffer may hold"""
        capacity = self.max_rows * self.n_envs
        if len(demonstrations) > capacity:
            raise ValueError(
                f"{len(demonstrations)} demonstrated steps do not fit in a replay buffer of {capacity}. "
                "Raise `buffer_size`."
            )

    def add_demonstrations(self, demonstrations: Demonstrations, bc_actions: np.ndarray | None = None) -> None:
        """
        Append demonstrations; the BC action stored beside each is by default the demonstrated one. Episodes stay in
        order, each environment's column takes an equal share of the steps (a few are repeated where they do not
        divide).

        :param demonstrations: Episodes whose observations have this buffer's shape
        :param bc_actions: (n, action_dim) what the BC policy would have done instead
        :raises ValueError: there are more of them than the buffer may hold
        """
        self.check_room_for(demonstrations)
        n_rows = -(-len(demonstrations) // self.n_envs)
        self._make_room(n_rows)
        rows = (self.pos + np.arange(n_rows)) % self.buffer_size
        order = np.resize(np.arange(len(demonstrations)), (self.n_envs, n_rows)).T

        def write(column: Any, values: Any) -> None:
            if isinstance(column, dict):
                for key in column:
                    column[key][rows] = values[key][order]
            else:
                column[rows] = values[order]

        write(self.observations, demonstrations.observations)
        write(self.next_observations, demonstrations.next_observations)
        write(self.actions, demonstrations.actions)
        write(self.bc_actions, demonstrations.actions if bc_actions is None else bc_actions)
        write(self.rewards, demonstrations.rewards)
        write(self.dones, demonstrations.terminated | demonstrations.truncated)
        write(self.timeouts, demonstrations.truncated & ~demonstrations.terminated)
        returns = [
            monte_carlo_returns(episode.rewards, bool(episode.terminated[-1]), self.gamma, self.truncation_tail)
            for episode in demonstrations.episodes()
        ]
        write(self.mc_returns, np.concatenate(returns))
        self.bc_acted[rows] = False
        self.cuts[rows] = False
        self.forget_open_episodes()
        self.full = self.full or self.pos + n_rows >= self.buffer_size
        self.pos = (self.pos + n_rows) % self.buffer_size
        self.forget_open_episodes()  # a column's share may end within an episode


class BCReplayBuffer(_BCColumns):
    """For flat and image observations."""


class BCDictReplayBuffer(_BCColumns, DictReplayBuffer):  # type: ignore[misc]  # our samples are another tuple
    """For Dict observations."""


class BCHerReplayBuffer(_BCColumns, HerReplayBuffer):  # type: ignore[misc]
    """
    Hindsight experience replay. Relabelled transitions have another goal than the one the BC policy was asked about,
    so ``sample`` leaves the BC fields empty and the algorithm asks a memoryless BC policy again.
    """

    def can_sample(self) -> bool:
        return bool((self.ep_length > 0).any())  # goals come from an episode's end

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> BCSamples:  # type: ignore[override]
        return BCSamples(*HerReplayBuffer.sample(self, batch_size, env)[:5])

    def forget_open_episodes(self) -> None:
        super().forget_open_episodes()
        open_episodes = np.flatnonzero(self._current_ep_start != self.pos)
        for env_idx in open_episodes:
            self.dones[self.pos - 1, env_idx] = True
            self.timeouts[self.pos - 1, env_idx] = True
            self._compute_episode_length(int(env_idx))

    def reset(self) -> None:
        self.ep_length[:] = 0
        self._current_ep_start[:] = 0
        super().reset()
