"""Behaviour cloning by maximum likelihood, with held-out episodes and, where possible, rollouts to choose by."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from tqdm import tqdm

from sb3_q2rl.bc.evaluate import evaluate_bc
from sb3_q2rl.bc.gaussian import GaussianBCPolicy
from sb3_q2rl.data.demonstrations import Demonstrations


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
    :param obs_keys: keys of Dict observations to use, in this order; by default all of them, sorted
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
    :raises ValueError: too few episodes, or no evaluation within ``n_epochs``
    """
    if not 1 <= eval_interval <= n_epochs:
        raise ValueError(f"`eval_interval`={eval_interval} must lie in 1..`n_epochs`={n_epochs}, or nothing is chosen.")
    training, held_out = demonstrations.split(validation_fraction, seed)
    with th.random.fork_rng(devices=[]), _environment(env) as eval_env:
        th.manual_seed(seed)
        obs_keys = _obs_keys(demonstrations, obs_keys)
        obs, actions = _tensors(training, obs_keys, device)
        held_out_obs, held_out_actions = _tensors(held_out, obs_keys, device)
        policy = GaussianBCPolicy(
            obs.shape[1],
            actions.shape[1],
            net_arch=net_arch,
            n_components=n_components,
            sigma_min=sigma_min,
            obs_keys=obs_keys,
        )
        policy.set_obs_statistics(obs.mean(dim=0).cpu().numpy(), obs.std(dim=0).cpu().numpy())
        policy.to(device)
        optimizer = th.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=weight_decay)
        schedule = th.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_epochs)

        history: list[dict[str, float]] = []
        best: dict[str, Any] = {}
        best_score = (-np.inf, -np.inf)
        epochs = tqdm(range(1, n_epochs + 1), desc="behaviour cloning", disable=not progress_bar)
        for epoch in epochs:
            log_likelihood = _train_epoch(policy, optimizer, obs, actions, batch_size, obs_noise)
            schedule.step()
            if epoch % eval_interval and epoch != n_epochs:
                continue
            with th.no_grad():
                held_out_ll = policy.distribution(held_out_obs).log_prob(held_out_actions).mean().item()
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
    obs: th.Tensor,
    actions: th.Tensor,
    batch_size: int,
    obs_noise: float,
) -> float:
    total = th.zeros((), device=obs.device)
    for rows in th.randperm(len(obs)).split(batch_size):
        batch = obs[rows]
        if obs_noise > 0:
            batch = batch + obs_noise * policy.obs_std * th.randn_like(batch)
        loss = -policy.distribution(batch).log_prob(actions[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        th.nn.utils.clip_grad_norm_(policy.parameters(), max_norm=10.0)
        optimizer.step()
        total -= loss.detach() * len(rows)
    return (total / len(obs)).item()


def _obs_keys(demonstrations: Demonstrations, obs_keys: Sequence[str] | None) -> tuple[str, ...] | None:
    if not isinstance(demonstrations.observations, dict):
        return None
    return tuple(sorted(demonstrations.observations)) if obs_keys is None else tuple(obs_keys)


def _tensors(
    demonstrations: Demonstrations, obs_keys: tuple[str, ...] | None, device: str | th.device
) -> tuple[th.Tensor, th.Tensor]:
    observations = demonstrations.observations
    if isinstance(observations, dict):
        parts = [observations[key].reshape(len(demonstrations), -1) for key in obs_keys or ()]
        observations = np.concatenate(parts, axis=1)
    return (
        th.as_tensor(observations, dtype=th.float32, device=device),
        th.as_tensor(demonstrations.actions, device=device),
    )


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
