"""Behaviour cloning by maximum likelihood, with held-out episodes and, where possible, rollouts to choose by."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from tqdm import tqdm

from sb3_q2rl.bc.evaluate import evaluate_bc
from sb3_q2rl.bc.gaussian import GaussianBCPolicy
from sb3_q2rl.bc.images import random_shift
from sb3_q2rl.data.demonstrations import Demonstrations

# Pixels by which images are shifted at random: without it the policy learns single pixels by heart (DrQ)
_IMAGE_SHIFT = 4


class _Steps(NamedTuple):
    """
    Demonstrated steps as a policy is trained on them.

    :param vectors: (n, obs_dim)
    :param images: key -> (n, channels, height, width) uint8
    :param actions: (n, action_dim)
    """

    vectors: th.Tensor
    images: dict[str, th.Tensor]
    actions: th.Tensor

    def at(self, rows: th.Tensor) -> _Steps:
        """:return: these rows"""
        return _Steps(self.vectors[rows], {key: image[rows] for key, image in self.images.items()}, self.actions[rows])

    def log_prob(self, policy: GaussianBCPolicy) -> th.Tensor:
        """:return: (n,) log pi(a|s)"""
        return policy.distribution_of(self.vectors, policy.see(self.images)).log_prob(self.actions)


def train_bc(
    demonstrations: Demonstrations,
    *,
    env: gym.Env | str | None = None,
    net_arch: Sequence[int] = (256, 256),
    n_components: int = 1,
    sigma_min: float = 0.05,
    obs_keys: Sequence[str] | None = None,
    n_epochs: int = 100,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    obs_noise: float = 0.0,
    validation_fraction: float = 0.15,
    eval_interval: int = 10,
    n_eval_episodes: int = 50,
    seed: int = 0,
    device: str | th.device = "cpu",
    progress_bar: bool = True,
) -> GaussianBCPolicy:
    """
    Fit ``max_theta sum log pi_theta(a|s)`` and return the best checkpoint: the one with the highest likelihood of the
    held-out episodes or, given an environment, with the highest success by mode, ties decided by that likelihood.

    :param demonstrations: what to imitate
    :param env: environment (or its id) that reports ``info["is_success"]``
    :param net_arch: hidden layers
    :param n_components: 1 for a diagonal Gaussian, more for a mixture
    :param sigma_min: floor of the policy's scales
    :param obs_keys: keys of Dict observations to use, in this order; by default all of them, sorted. Those that hold
        images (uint8) are seen by a convolutional encoder each
    :param n_epochs: passes over the training episodes
    :param batch_size: minibatch
    :param learning_rate: of Adam, decayed to zero by a cosine
    :param weight_decay: of AdamW
    :param obs_noise: standard deviation of Gaussian noise on the normalised training observations
    :param validation_fraction: share of the episodes held out
    :param eval_interval: epochs between two evaluations
    :param n_eval_episodes: rollouts of each evaluation
    :param seed: of split, initialisation, minibatches and rollouts
    :param device: where to train
    :param progress_bar: show one
    :return: the policy, frozen, on the CPU; ``policy.training_record`` tells how it was made
    :raises ValueError: too few episodes, observations that are images alone or lack ``obs_keys``, or no evaluation
        within ``n_epochs``
    """
    if min(n_eval_episodes, batch_size) < 1:
        raise ValueError(f"`n_eval_episodes`={n_eval_episodes} and `batch_size`={batch_size} must be at least 1.")
    if not 1 <= eval_interval <= n_epochs:
        raise ValueError(f"`eval_interval`={eval_interval} must lie in 1..`n_epochs`={n_epochs}, or nothing is chosen.")
    training, held_out = demonstrations.split(validation_fraction, seed)
    with th.random.fork_rng(devices=[]), _environment(env) as eval_env:
        th.manual_seed(seed)
        obs_keys = _obs_keys(demonstrations, obs_keys)
        steps, held_out_steps = (_steps(part, obs_keys, device) for part in (training, held_out))
        policy = GaussianBCPolicy(
            steps.vectors.shape[1],
            demonstrations.action_dim,
            net_arch=net_arch,
            n_components=n_components,
            sigma_min=sigma_min,
            obs_keys=None if obs_keys is None else [key for key in obs_keys if key not in steps.images],
            image_shapes={key: image.shape[1:] for key, image in steps.images.items()},
        )
        policy.set_obs_statistics(steps.vectors.mean(dim=0).cpu().numpy(), steps.vectors.std(dim=0).cpu().numpy())
        policy.to(device)
        optimizer = th.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=weight_decay)
        schedule = th.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_epochs)

        history: list[dict[str, float]] = []
        best: dict[str, Any] = {}
        best_score = (-np.inf, -np.inf)
        epochs = tqdm(range(1, n_epochs + 1), desc="behaviour cloning", disable=not progress_bar)
        for epoch in epochs:
            log_likelihood = _train_epoch(policy, optimizer, steps, batch_size, obs_noise)
            schedule.step()
            if epoch % eval_interval and epoch != n_epochs:
                continue
            with th.no_grad():
                rows = th.arange(len(held_out)).split(batch_size)
                held_out_ll = th.cat([held_out_steps.at(part).log_prob(policy) for part in rows]).mean().item()
            entry = {"epoch": epoch, "log_likelihood": log_likelihood, "held_out_log_likelihood": held_out_ll}
            if eval_env is not None:
                entry["success"] = evaluate_bc(policy, eval_env, n_episodes=n_eval_episodes, seed=seed).rate
            history.append(entry)
            epochs.set_postfix({name: f"{value:.3g}" for name, value in entry.items() if name != "epoch"})
            score = (entry.get("success", 0.0), held_out_ll)
            if score > best_score:
                best_score, best = score, {"entry": entry, "checkpoint": policy.to_checkpoint()}

    chosen = GaussianBCPolicy.from_checkpoint(best["checkpoint"])
    chosen.training_record = {
        "source": demonstrations.source,
        "n_training_episodes": training.n_episodes,
        "n_held_out_episodes": held_out.n_episodes,
        "n_steps": len(training),
        "seed": seed,
        "selected_by": "log-likelihood of held-out episodes" if eval_env is None else "success by mode",
        "selected": best["entry"],
        "history": history,
    }
    return chosen


def _train_epoch(
    policy: GaussianBCPolicy,
    optimizer: th.optim.Optimizer,
    steps: _Steps,
    batch_size: int,
    obs_noise: float,
) -> float:
    total = th.zeros((), device=steps.actions.device)
    for rows in th.randperm(len(steps.actions)).split(batch_size):
        batch = steps.at(rows)
        if obs_noise > 0:
            noise = obs_noise * policy.obs_std * th.randn_like(batch.vectors)
            batch = batch._replace(vectors=batch.vectors + noise)
        if batch.images:
            batch = batch._replace(images={key: random_shift(x, _IMAGE_SHIFT) for key, x in batch.images.items()})
        loss = -batch.log_prob(policy).mean()
        optimizer.zero_grad()
        loss.backward()
        th.nn.utils.clip_grad_norm_(policy.parameters(), max_norm=10.0)
        optimizer.step()
        total -= loss.detach() * len(rows)
    return (total / len(steps.actions)).item()


def _obs_keys(demonstrations: Demonstrations, obs_keys: Sequence[str] | None) -> tuple[str, ...] | None:
    observations = demonstrations.observations
    if obs_keys is not None and not (isinstance(observations, dict) and observations.keys() >= set(obs_keys)):
        has = list(observations) if isinstance(observations, dict) else f"one array of {observations.shape[1:]}"
        raise ValueError(f"`obs_keys` is {list(obs_keys)}, but the demonstrations' observations are {has}.")
    if not isinstance(observations, dict):
        return None
    return tuple(sorted(observations)) if obs_keys is None else tuple(obs_keys)


def _steps(demonstrations: Demonstrations, obs_keys: tuple[str, ...] | None, device: str | th.device) -> _Steps:
    observations, images = demonstrations.observations, {}
    if isinstance(observations, dict):
        chosen = {key: observations[key] for key in obs_keys or ()}
        images = {key: values for key, values in chosen.items() if values.dtype == np.uint8 and values.ndim == 4}
        parts = [values.reshape(len(values), -1) for key, values in chosen.items() if key not in images]
        if not parts:
            raise ValueError(
                f"`demonstrations` show only images ({', '.join(images)}), but the policy reads a vector beside them. "
                "Add the robot's own state, e.g. robot0_eef_pos, to `obs_keys`."
            )
        observations = np.concatenate(parts, axis=1)
    return _Steps(
        th.as_tensor(observations, dtype=th.float32, device=device),
        {key: _pictures(values, device) for key, values in images.items()},
        th.as_tensor(demonstrations.actions, device=device),
    )


def _pictures(images: np.ndarray, device: str | th.device) -> th.Tensor:
    """:return: (n, channels, height, width); files keep the channels last, and cameras have at most four"""
    tensor = th.as_tensor(images, device=device)
    return tensor.movedim(-1, 1).contiguous() if tensor.shape[-1] <= 4 else tensor


@contextlib.contextmanager
def _environment(env: gym.Env | str | None) -> Iterator[gym.Env | None]:
    if not isinstance(env, str):
        yield env
        return
    made = gym.make(env)
    try:
        yield made
    finally:
        made.close()
