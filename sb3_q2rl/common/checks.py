"""What can be wrong with what a user gives a model: what came, what was expected, what to do."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.common import step_checks
from sb3_q2rl.common.buffers import _BCColumns
from sb3_q2rl.common.images import image_keys
from sb3_q2rl.data import Demonstrations

if TYPE_CHECKING:
    from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC


def has_env(env: Any, algorithm: str) -> None:
    """:raises ValueError: there is no environment to choose a policy class for"""
    if env is None:
        raise ValueError(f"`env` is missing: write {algorithm}(env, ...) or {algorithm}('MlpPolicy', env, ...).")


def policy_class(policy: type[BasePolicy], algorithm: type[OfflineToOnlineSAC]) -> None:
    """:raises ValueError: the policy of another algorithm"""
    known = tuple(algorithm.policy_aliases.values())
    if not issubclass(policy, known):
        raise ValueError(
            f"`policy` is {policy.__name__}, which {algorithm.__name__} cannot use; expected "
            f"{', '.join(kind.__name__ for kind in known)}, or a class derived from one. A saved model is loaded by "
            "the `load` of the algorithm that saved it."
        )


def saved_by_the_same(model: OfflineToOnlineSAC) -> None:
    """:raises ValueError: what was loaded is neither of this algorithm nor of one that it derives from"""
    if model.saved_by not in {kind.__name__ for kind in type(model).__mro__}:
        raise ValueError(
            f"The model was saved by {model.saved_by}, and {type(model).__name__} cannot load it. Use "
            f"{model.saved_by}.load."
        )


def observation_keys(space: spaces.Space) -> None:
    """:raises ValueError: a name that torch cannot give a module"""
    wrong = [key for key in space.spaces if "." in key] if isinstance(space, spaces.Dict) else []
    if wrong:
        raise ValueError(
            f"`env` has observations named {', '.join(map(repr, wrong))}; networks cannot be named with a dot. Rename "
            "them in a gymnasium.ObservationWrapper, e.g. 'observation.state' to 'state'."
        )


def action_space_is_finite_box(space: spaces.Space) -> None:
    """:raises ValueError: another kind of space, or bounds that are infinite"""
    if not isinstance(space, spaces.Box) or not np.isfinite([space.low, space.high]).all():
        raise ValueError(
            f"`env` has the action space {space}; expected a Box with finite bounds, in which BC and RL actions are "
            "scaled to [-1, 1]. Declare the bounds that the environment has, or wrap it in one that turns continuous "
            "actions into its own."
        )


_WHOLE = (
    *("batch_size", "buffer_size", "learning_starts", "gradient_steps", "policy_delay", "n_steps", "image_shift"),
    *("n_target_critics", "n_bc_episodes", "q_init_steps", "pretrain_steps", "pretrain_batch_size", "warmup_steps"),
    "n_action_samples",
)


def whole_numbers(model: OfflineToOnlineSAC) -> None:
    """
    As YAML and the command line write them, 1e4 is a float.

    :raises ValueError: a number that is not whole
    """
    for name in _WHOLE:
        value = getattr(model, name, None)
        if value is None or isinstance(value, int | np.integer):
            continue
        if not isinstance(value, float) or not value.is_integer():
            raise ValueError(f"`{name}` is {value!r}; expected a whole number.")
        setattr(model, name, int(value))


def numbers(model: OfflineToOnlineSAC) -> None:
    """:raises ValueError: one that no learning could use"""
    for name, least in (("batch_size", 1), ("buffer_size", 1), ("image_shift", 0), ("learning_starts", 0)):
        if getattr(model, name) < least:
            raise ValueError(f"`{name}` is {getattr(model, name)}; expected {least} or more.")
    for name in ("gamma", "tau"):
        if not 0 <= getattr(model, name) <= 1:
            raise ValueError(f"`{name}` is {getattr(model, name)}; expected a number from 0 to 1.")
    for name in ("learning_rate", "actor_learning_rate"):
        rate = getattr(model, name)
        if isinstance(rate, int | float) and not 0 <= rate < np.inf:
            raise ValueError(f"`{name}` is {rate}; expected a finite number, 0 or more.")


def update_schedule(model: OfflineToOnlineSAC) -> None:
    """:raises ValueError: batch, gradient steps and policy delay do not divide"""
    delay = model.policy_delay
    if delay < 1 or model.batch_size % delay != 0:
        raise ValueError(
            f"`policy_delay`={delay} must be at least 1 and divide `batch_size`={model.batch_size}: "
            "the batch is cut in `policy_delay` minibatches, one for each critic step."
        )
    steps = model.gradient_steps
    if steps == 0:
        raise ValueError(
            "`gradient_steps`=0 would never learn. Use a positive number, or -1 for one per environment step."
        )
    if steps < 0 and delay > 1:
        freq = model.train_freq
        n_steps, unit = freq if isinstance(freq, tuple | TrainFreq) else (freq, "step")
        if unit in ("episode", TrainFrequencyUnit.EPISODE):
            raise ValueError(
                "`gradient_steps=-1` with `train_freq` in episodes gives a varying number of steps, which "
                f"`policy_delay`={delay} cannot divide. "
                "Use `train_freq` in steps, a fixed `gradient_steps`, or `policy_delay=1`."
            )
        steps = n_steps * model.n_envs
    if steps > 0 and steps % delay != 0:
        raise ValueError(
            f"`policy_delay`={delay} must divide the gradient steps of one call of train(), which are {steps}. "
            f"Use e.g. `gradient_steps={delay * max(1, steps // delay)}`."
        )


def n_target_critics(model: OfflineToOnlineSAC) -> None:
    """:raises ValueError: a number of target critics that there are not"""
    wanted, there_are = model.n_target_critics, model.critic.n_critics
    if wanted is not None and not 1 <= wanted <= there_are:
        raise ValueError(
            f"`n_target_critics`={wanted}: the TD target takes 1 to {there_are} of the {there_are} critics, or all "
            "with None. How many there are is said by `policy_kwargs=dict(n_critics=...)`."
        )


def room_for_bc_episodes(model: OfflineToOnlineSAC) -> None:
    """:raises ValueError: the replay buffer is full, and the BC policy's episodes are not all in it"""
    buffer = model.replay_buffer
    if buffer.full and buffer.buffer_size == buffer.max_rows:
        n_finished = len(buffer.bc_episodes())
        raise ValueError(
            f"`buffer_size`={model.buffer_size} is too small for the estimate: it is full, and holds {n_finished} "
            "whole episodes of the BC policy. Raise it to what `n_bc_episodes` episodes take, or lower `n_bc_episodes`."
        )


def bc_episodes_to_come(model: OfflineToOnlineSAC, n_bc_episodes: int) -> str:
    """
    :param model: That still waits for episodes of the BC policy
    :param n_bc_episodes: How many it wants
    :return: How many there are
    :raises RuntimeError: none
    """
    n_finished = model.replay_buffer.n_bc_episodes
    if n_finished == 0:
        raise RuntimeError(
            f"Not one episode of the BC policy ended within {model.num_timesteps} steps, and {n_bc_episodes} have to "
            "come first. Raise `total_timesteps`, or lower `n_bc_episodes`. An environment without a time limit needs "
            "one (gymnasium's TimeLimit)."
        )
    return (
        f"{n_finished} of {n_bc_episodes} BC episodes finished, and the model acts as the BC policy so far. Lower "
        "`n_bc_episodes`?"
    )


def normalized_alike(before: VecNormalize | None, now: VecNormalize | None) -> None:
    """
    :param before: What the model has learnt under
    :param now: What the environment that it is given is wrapped in
    :raises ValueError: the observations would be of another scale
    """
    if before is not None and now is None:
        raise ValueError(
            "The model learnt from observations that VecNormalize had scaled, but `env` is not wrapped in it: the same "
            "number would mean something else. Wrap it with the saved statistics: VecNormalize.load(path, env)."
        )


def replay_buffer_fits(model: OfflineToOnlineSAC, buffer: Any) -> None:
    """
    :param buffer: That was loaded
    :raises ValueError: it is of another algorithm, environment, or kind of return than the model's own
    """
    own = model.replay_buffer
    if not isinstance(buffer, type(own)):
        raise ValueError(
            f"The replay buffer in the file is a {type(buffer).__name__}, but {type(model).__name__} learns from a "
            f"{type(own).__name__}. Load the one that was saved with this model."
        )
    if model.env is not None and buffer.n_envs != own.n_envs:
        raise ValueError(
            f"`env` has {own.n_envs} environments, but the replay buffer was filled by {buffer.n_envs}. "
            "Make the environment as for the first start."
        )
    for name in ("obs_shape", "action_dim"):
        theirs, ours = getattr(buffer, name), getattr(own, name)
        if theirs != ours:
            raise ValueError(
                f"The replay buffer in the file has the {name.replace('_', ' ')} {theirs}, but the model's environment "
                f"has {ours}. Is it of another task?"
            )
    for name in ("gamma", "n_steps", "truncation_tail"):
        theirs, ours = getattr(buffer, name), getattr(own, name)
        if theirs != ours:
            raise ValueError(
                f"The replay buffer in the file holds returns with `{name}`={theirs}, but the model has {ours}. "
                f"Load the model with {name}={theirs!r}, or start with an empty buffer."
            )


def buffer_options(model: OfflineToOnlineSAC) -> None:
    """:raises ValueError: options of SAC that make no sense, or would be ignored"""
    if model.n_steps < 1:
        raise ValueError(f"`n_steps`={model.n_steps}: a TD target sums at least 1 reward before it bootstraps.")
    buffer = model.replay_buffer_class
    if model.n_steps > 1 and buffer is not None and issubclass(buffer, HerReplayBuffer):
        raise ValueError(
            f"`n_steps`={model.n_steps} with a `replay_buffer_class` that relabels goals in hindsight: the rewards of "
            "several steps would have to be computed again for the new goal. Use `n_steps=1`, or no HER."
        )
    if model.optimize_memory_usage:
        raise ValueError(
            "`optimize_memory_usage=True` cannot tell time limits from terminal states, and the value estimate needs "
            "that. Leave it False; our buffer grows as it fills, so `buffer_size` costs no memory by itself."
        )


def buffer_class(replay_buffer_class: type) -> None:
    """:raises ValueError: a buffer without the BC columns"""
    if not issubclass(replay_buffer_class, _BCColumns):
        raise ValueError(
            f"`replay_buffer_class`={replay_buffer_class.__name__} does not store the BC policy's actions. Leave it "
            "out, use HerReplayBuffer, or "
            "derive yours from sb3_q2rl.common.buffers.BCReplayBuffer or BCDictReplayBuffer."
        )


def memory_suffices(model: OfflineToOnlineSAC) -> None:
    """Warn of a replay buffer that grows beyond this machine's memory, hours before it happens."""
    if not hasattr(os, "sysconf"):  # Windows
        return
    needed = model.replay_buffer.bytes_when_full()
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        fits = int(model.buffer_size * 0.8 * there / needed)
        warnings.warn(
            f"`buffer_size`={model.buffer_size} would take {needed / 1e9:.0f} GB as it fills, but this machine has "
            f"{there / 1e9:.0f} GB. If the run is long enough to fill it, use `buffer_size={fits // 1000 * 1000}`.",
            stacklevel=2,
        )


def no_reward_normalization(normalizer: VecNormalize | None) -> None:
    """:raises ValueError: rewards are rescaled while learning"""
    if normalizer is not None and normalizer.norm_reward:
        raise ValueError(
            "VecNormalize(norm_reward=True) changes the scale of the rewards while learning, but values that were "
            "estimated once must stay comparable. Use VecNormalize(env, norm_reward=False); in rl-zoo3: "
            "normalize: \"{'norm_obs': True, 'norm_reward': False}\"."
        )


def bc_policy_fits(bc: BCPolicy, policy: BasePolicy) -> None:
    """
    Ask the BC policy about two sample observations. A policy that knows the bounds which its -1 and 1 stand for says so
    in an attribute ``action_space``.

    :raises ValueError: it cannot read them, or answers with another action shape, or with NaN, or its bounds are others
    """
    space = policy.observation_space
    samples = [space.sample() for _ in range(2)]
    batch: Any = (
        np.stack(samples)
        if not isinstance(space, spaces.Dict)
        else {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
    )
    obs, _ = policy.obs_to_tensor(batch)
    try:
        with th.no_grad():
            step = bc.step(obs, None, np.ones(2, dtype=bool), deterministic=True)
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"`bc_policy` cannot act on this environment's observations ({space}): {error}") from error
    expected = (2, get_action_dim(policy.action_space))
    if tuple(step.actions.shape) != expected:
        raise ValueError(
            f"`bc_policy` gives actions of shape {tuple(step.actions.shape)[1:]}, but the environment's action space "
            f"{policy.action_space} wants {expected[1:]}. Is it the policy of another robot or task?"
        )
    scores = {"log_prob": step.log_prob, "entropy": step.entropy}
    given = {name: tuple(score.shape) for name, score in scores.items() if score is not None}
    if given and given != {"log_prob": (2,), "entropy": (2,)}:
        raise ValueError(
            f"`bc_policy` gives, for 2 observations, {given}; expected (2,) for both `log_prob` and `entropy`, joint "
            "over the action's dimensions, or neither. Is a torch.distributions.Independent(distribution, 1) missing?"
        )
    own, ours = getattr(bc, "action_space", None), policy.action_space
    assert isinstance(ours, spaces.Box)
    if own is not None and not (np.allclose(own.low, ours.low) and np.allclose(own.high, ours.high)):
        raise ValueError(
            f"`bc_policy` was trained for actions in {own}, but the environment's action space is {ours}: the same "
            "number would be another movement. Use the environment of its training, or wrap yours with "
            "gymnasium.wrappers.RescaleAction(env, low, high) so that both agree."
        )
    step_checks.bc_step_is_sound(step)


def demonstrations_fit(model: OfflineToOnlineSAC) -> None:
    """:raises ValueError: other observations or actions than the environment's, or a buffer that cannot hold them"""
    demonstrations, observation_space, action_space = model.demonstrations, model.observation_space, model.action_space
    assert isinstance(demonstrations, Demonstrations)
    if isinstance(model.replay_buffer, HerReplayBuffer):
        raise ValueError(
            "`demonstrations` cannot be put in a `replay_buffer_class` that relabels goals in hindsight: it must see "
            "every episode step by step. Leave one of the two out."
        )
    model.replay_buffer.check_room_for(demonstrations)

    def shapes(observations: Any) -> Any:
        if isinstance(observations, dict):
            return {key: value.shape[1:] for key, value in sorted(observations.items())}
        return observations.shape[1:]

    if isinstance(observation_space, spaces.Dict):
        expected: Any = {key: space.shape for key, space in sorted(observation_space.spaces.items())}
    else:
        expected = observation_space.shape
    came = shapes(demonstrations.observations)
    if came != expected:
        raise ValueError(
            f"`demonstrations` have observations of shape {came}, but the environment's are {expected}. "
            "Are they of another task?"
        )
    for name in ("observations", "next_observations"):
        shown = getattr(demonstrations, name)
        for key in image_keys(observation_space):
            where, images = (f"{name}[{key!r}]", shown[key]) if isinstance(shown, dict) else (name, shown)
            if images.dtype != np.uint8:  # the buffer would cut .9 to 0
                raise ValueError(
                    f"`demonstrations` have images of {images.dtype} in `{where}`, but the environment's are uint8, "
                    "from 0 to 255. Multiply by 255 and cast to uint8 those from 0 to 1; others are only cast."
                )
    if demonstrations.action_dim != get_action_dim(action_space):
        raise ValueError(
            f"`demonstrations` have {demonstrations.action_dim}-dimensional actions, but the environment's action "
            f"space is {action_space}. Are they of another robot?"
        )
