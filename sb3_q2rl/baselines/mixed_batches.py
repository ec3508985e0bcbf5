"""Batches of which a fixed part comes from demonstrations, however few of them there are beside the online data."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from sb3_q2rl.common.buffers import BCDictReplayBuffer, BCReplayBuffer, BCSamples, _BCColumns
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC
from sb3_q2rl.common.scales import start_on_the_scale_of
from sb3_q2rl.data import Demonstrations


class _WithOfflineData(_BCColumns):
    """Online data as ever, and offline data in a buffer apart that the online data never overwrites."""

    offline: MixedReplayBuffer | MixedDictReplayBuffer | None = None

    def keep_apart(self, demonstrations: Demonstrations, **kwargs: Any) -> None:
        """
        :param demonstrations: Replace the offline data that was there
        :param kwargs: For the buffer's class
        """
        size = len(demonstrations)
        offline = type(self)(size, self.observation_space, self.action_space, device=self.device, **kwargs)
        offline.add_demonstrations(demonstrations)
        self.offline = offline  # type: ignore[assignment]  # one of the two kinds below

    def show_to(self, normalizer: VecNormalize) -> None:
        """Let a normaliser take its scale from this data. Before the offline phase it has seen next to nothing."""
        if not normalizer.norm_obs:
            return
        one = not isinstance(normalizer.obs_rms, dict)
        observations: Any = {"obs": self.observations} if one else self.observations
        statistics: Any = {"obs": normalizer.obs_rms} if one else normalizer.obs_rms
        for key, running in statistics.items():
            running.update(observations[key][: self.size()].reshape(-1, *running.mean.shape))

    def sample_mixed(self, batch_size: int, offline_ratio: float, env: VecNormalize | None = None) -> BCSamples:
        """
        :param batch_size: Transitions in all
        :param offline_ratio: Part of them that is offline data. Where one of the two is missing, all are of the other
        :param env: Normalises the observations, if given
        """
        n_offline = 0 if self.offline is None else round(offline_ratio * batch_size)
        if not self.can_sample():
            n_offline = batch_size
        if n_offline == 0:
            return self.sample(batch_size, env)  # type: ignore[return-value]  # ours gives our samples
        assert self.offline is not None
        offline: Any = self.offline.sample(n_offline, env)
        if n_offline == batch_size:
            return offline
        online = self.sample(batch_size - n_offline, env)
        return _rows(_joined([offline, online]), _evenly_spread(n_offline, batch_size).to(self.device))


def _evenly_spread(n_first: int, n: int) -> th.Tensor:
    """
    An order for ``n`` rows, of which the first ``n_first`` are of one kind: every part of it has its share of both
    kinds, as exactly as whole numbers can be. The minibatches that a batch is cut in do so, too.

    :return: (n,) indices
    """
    shares = th.arange(n + 1) * n_first // n
    is_first = shares[1:] > shares[:-1]
    return th.where(is_first, shares[:-1], n_first + th.arange(n) - shares[:-1])


def _joined(parts: list[Any]) -> Any:
    """Batches one after the other, field by field."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: _joined([part[key] for part in parts]) for key in first}
    if isinstance(first, BCSamples):
        return BCSamples(*(_joined(list(fields)) for fields in zip(*parts, strict=True)))
    return None if first is None else th.cat(parts)


def _rows(batch: Any, order: th.Tensor) -> Any:
    if isinstance(batch, dict):
        return {key: value[order] for key, value in batch.items()}
    if isinstance(batch, BCSamples):
        return BCSamples(*(_rows(field, order) for field in batch))
    return None if batch is None else batch[order]


class MixedReplayBuffer(_WithOfflineData, BCReplayBuffer):
    """For flat and image observations."""


class MixedDictReplayBuffer(_WithOfflineData, BCDictReplayBuffer):  # type: ignore[misc]  # our samples are another tuple
    """For Dict observations."""


class MixedBatchSAC(OfflineToOnlineSAC):
    """
    ``demonstrations`` stay in a buffer of their own, and ``offline_ratio`` of every batch comes from there. They are
    saved and loaded with the replay buffer.

    :param args: See :class:`OfflineToOnlineSAC`
    :param offline_ratio: Part of a batch that is drawn from the demonstrations, in [0, 1]
    :param kwargs: See :class:`OfflineToOnlineSAC`
    :raises ValueError: a ratio out of [0, 1], or a replay buffer that cannot keep the demonstrations apart
    """

    replay_buffer: MixedReplayBuffer | MixedDictReplayBuffer

    def __init__(self, *args: Any, offline_ratio: float = 0.5, _init_setup_model: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, _init_setup_model=False, **kwargs)
        self.offline_ratio = offline_ratio
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if not 0 <= self.offline_ratio <= 1:
            raise ValueError(
                f"`offline_ratio` is {self.offline_ratio}; it is a part of the batch, so it lies in [0, 1]."
            )
        super()._setup_model()
        if isinstance(self.demonstrations, Demonstrations):
            self._keep_apart(self.demonstrations)

    def _choose_replay_buffer(self) -> None:
        is_dict = isinstance(self.observation_space, spaces.Dict)
        ours: type[ReplayBuffer] = MixedDictReplayBuffer if is_dict else MixedReplayBuffer
        given = self.replay_buffer_class
        if given is not None and not issubclass(given, _WithOfflineData):
            raise ValueError(
                f"`replay_buffer_class`={given.__name__} cannot keep demonstrations apart from online data, which "
                f"{type(self).__name__} needs. Leave it out, or derive yours from "
                f"sb3_q2rl.baselines.mixed_batches.{ours.__name__}."
            )
        self.replay_buffer_class = given or ours
        super()._choose_replay_buffer()

    def _keep_apart(self, demonstrations: Demonstrations) -> None:
        self.replay_buffer.keep_apart(demonstrations, **self.replay_buffer_kwargs)
        if self._n_updates == 0:
            assert self.replay_buffer.offline is not None
            start_on_the_scale_of(self, self.replay_buffer.offline)

    def _sample_batch(self, batch_size: int) -> BCSamples:
        return self._shifted(self.replay_buffer.sample_mixed(batch_size, self.offline_ratio, self._vec_normalize_env))

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        if self.offline_ratio > 0 and self.replay_buffer.offline is None:
            warnings.warn(
                f"There are no demonstrations for `offline_ratio`={self.offline_ratio} of every batch: all of it is "
                "online data. Pass `demonstrations`; after loading a model, load_replay_buffer() brings them back.",
                stacklevel=3,
            )
        return super()._setup_learn(*args, **kwargs)

    def load_replay_buffer(self, path: str | Path | Any, *args: Any, **kwargs: Any) -> None:
        super().load_replay_buffer(path, *args, **kwargs)
        if self.replay_buffer.offline is not None:
            self.replay_buffer.offline.device = self.device
