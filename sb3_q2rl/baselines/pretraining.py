"""An offline phase before the online one: gradient steps on demonstrations alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger, update_learning_rate
from tqdm import tqdm

from sb3_q2rl.baselines.mixed_batches import MixedBatchSAC
from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.checkpoint import CheckpointCallback, checkpoints_of, save_checkpoint
from sb3_q2rl.data import Demonstrations

SelfPretrainedSAC = TypeVar("SelfPretrainedSAC", bound="PretrainedSAC")


class PretrainedSAC(MixedBatchSAC):
    """
    Adds ``pretrain``. A saved model knows that it was pre-trained (``is_pretrained``). ``learn`` begins with the
    offline phase where that is still to come, so that a call from rl-zoo3 needs nothing else. A phase that was
    interrupted goes on where it was, in the same model or in one of a checkpoint.

    :param args: See :class:`MixedBatchSAC`
    :param pretrain_steps: Gradient steps of the offline phase
    :param pretrain_batch_size: Transitions of each of them
    :param kwargs: See :class:`MixedBatchSAC`
    :raises ValueError: a negative number of steps, or an empty batch
    """

    def __init__(
        self,
        *args: Any,
        pretrain_steps: int = 20_000,
        pretrain_batch_size: int = 256,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, _init_setup_model=False, **kwargs)
        self.pretrain_steps = pretrain_steps
        self.pretrain_batch_size = pretrain_batch_size
        self.is_pretrained = False
        self._is_pretraining = False
        # Steps made and to be made of a phase that is not over
        self._offline_steps, self._offline_total = 0, 0
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.pretrain_steps < 0:
            raise ValueError(f"`pretrain_steps` is {self.pretrain_steps}; use 0 for none, or a positive number.")
        if self.pretrain_batch_size < 1:
            raise ValueError(f"`pretrain_batch_size` is {self.pretrain_batch_size}; a batch has at least 1 transition.")
        super()._setup_model()

    def pretrain(
        self: SelfPretrainedSAC,
        demonstrations: Demonstrations | str | Path | None = None,
        steps: int | None = None,
        progress_bar: bool = False,
        log_interval: int = 1_000,
        checkpoints: CheckpointCallback | None = None,
    ) -> SelfPretrainedSAC:
        """
        The offline phase. One step is one critic step and one actor step on ``pretrain_batch_size`` transitions.

        :param demonstrations: Demonstrations, a file, or a name; those of the constructor if left out
        :param steps: Gradient steps, those before an interruption included; if left out as many as the interrupted
            phase was to have, else ``pretrain_steps``
        :param progress_bar: Show one
        :param log_interval: Write the means of the losses every so many steps
        :param checkpoints: Save the run as this says, every ``save_freq`` gradient steps and at the end; ``learn``
            takes it from among its callbacks. Go on with :func:`resume`
        :raises ValueError: there are no demonstrations, or fewer than one step
        """
        steps = (self._offline_total or self.pretrain_steps) if steps is None else steps
        if steps < 1:
            raise ValueError(f"`steps` is {steps}; pretrain() needs at least one.")
        if demonstrations is not None:
            self._take(demonstrations)
            assert isinstance(self.demonstrations, Demonstrations)
            self._keep_apart(self.demonstrations)
        if self.replay_buffer.offline is None:
            raise ValueError(
                "`demonstrations` are missing: pass some to pretrain() or to the constructor. A loaded model finds its "
                "own with load_replay_buffer(). Without an offline phase: `pretrain_steps=0`."
            )
        if checkpoints is not None:
            checkpoints.model = self
            checkpoints.refuse_another_run()
        if self._offline_steps == 0 and self._vec_normalize_env is not None and self._vec_normalize_env.training:
            self.replay_buffer.offline.show_to(self._vec_normalize_env)
        self._offline_total = steps
        self._pretrain(progress_bar, log_interval, checkpoints)
        self.is_pretrained, self._offline_steps, self._offline_total = True, 0, 0
        if checkpoints is not None:
            save_checkpoint(self, checkpoints.directory, checkpoints.keep, steps)
        return self

    def _pretrain(self, progress_bar: bool, log_interval: int, checkpoints: CheckpointCallback | None) -> None:
        steps = self._offline_total
        if not self._custom_logger:
            self._logger = configure_logger(self.verbose, self.tensorboard_log, f"{type(self).__name__}_pretrain", True)
        left = range(self._offline_steps + 1, steps + 1)
        for step in tqdm(left, "offline phase", steps, initial=self._offline_steps, disable=not progress_bar):
            self._offline_step()
            self._offline_steps = step
            if step % log_interval == 0 or step == steps:
                self._record_means()
                self.logger.record("pretrain/steps", step)
                self.logger.dump(step)
            if checkpoints is not None and step % checkpoints.save_freq == 0 and step < steps:
                save_checkpoint(self, checkpoints.directory, checkpoints.keep, step)

    def _offline_step(self) -> None:
        policy_delay = self.policy_delay
        self._is_pretraining, self.policy_delay = True, 1
        try:
            self.train(1, self.pretrain_batch_size)
        finally:
            self._is_pretraining, self.policy_delay = False, policy_delay

    def _update_learning_rates(self) -> None:
        super()._update_learning_rates()
        if self.ent_coef_optimizer is not None:  # at the actor's rate, as in the code of Cal-QL's and WSRL's authors
            rate = self._actor_lr_schedule(self._current_progress_remaining)
            update_learning_rate(self.ent_coef_optimizer, rate)

    def _sample_batch(self, batch_size: int) -> BCSamples:
        if not self._is_pretraining:
            return super()._sample_batch(batch_size)
        return self._shifted(self.replay_buffer.sample_mixed(batch_size, 1.0, self._vec_normalize_env))

    def learn(
        self: SelfPretrainedSAC,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfPretrainedSAC:
        """As in SB3. The offline phase, where it is still to come, is no part of ``total_timesteps``."""
        if not self.is_pretrained and (self._offline_total or self.pretrain_steps) > 0:
            self.pretrain(progress_bar=progress_bar, checkpoints=checkpoints_of(callback))
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
