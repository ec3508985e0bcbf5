"""Q-estimation: what the BC policy's own likelihoods and a few of its episodes tell about its Q-function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_q2rl.bc.policy import BCStep
from sb3_q2rl.common.critics import EnsembleMLP
from sb3_q2rl.common.extractors import StandardizedExtractor
from sb3_q2rl.common.scales import N_FOR_STATISTICS, scale_of

# Early stopping: the least relative improvement that counts, and a share of unexplained variance not worth a step
MIN_IMPROVEMENT = 0.01
NEGLIGIBLE = 1e-3

# (index arrays of the wanted transitions) -> their raw observations and Monte-Carlo returns
Transitions = Callable[[np.ndarray], tuple[PyTorchObs, th.Tensor]]


class ValueFit(NamedTuple):
    """
    How well V_BC was learnt.

    :param r2: Share of the returns' variance that is explained in episodes that were held out; NaN if all are alike
    :param rmse: Root mean squared error there, in units of return
    :param n_steps: Gradient steps until the best held-out error
    """

    r2: float
    rmse: float
    n_steps: int


class QEstimate(BaseModel):
    """
    The BC policy's Q-function, read off its likelihoods (Q2RL, eq. Q-estimation), with pi_BC(a|s) ∝ exp(Q_BC/alpha):

        Q̂_BC(s, a) = V_BC(s) + alpha (log pi_BC(a|s) + H[pi_BC(.|s)])

    V_BC is the value of what the BC policy does, so the second term must vanish on average over its own actions. Over
    samples it does. Acting at the mode it is a constant, D/2 alpha for a Gaussian, by which every BC action would seem
    better than its episodes were: its mean over the BC episodes is subtracted.

    V_BC is an ensemble, fitted to the returns of BC episodes until episodes that were held out tell it to stop, then
    frozen. It reads observations as the environment gave them, so that it does not change when running statistics do.

    :param observation_space: Observation space
    :param action_space: Action space
    :param features_extractor: Turns observations into vectors
    :param bc_temperature: alpha, in units of return per nat
    :param net_arch: Hidden layers of each member
    :param n_members: Ensemble size
    :param normalize_images: Divide uint8 images by 255
    """

    features_extractor: StandardizedExtractor
    return_mean: th.Tensor
    return_std: th.Tensor
    return_range: th.Tensor
    mean_nats: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        features_extractor: StandardizedExtractor,
        bc_temperature: float = 1.0,
        net_arch: Sequence[int] = (256, 256),
        n_members: int = 5,
        normalize_images: bool = True,
    ) -> None:
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.bc_temperature = bc_temperature
        self.is_fitted = False
        self.members = EnsembleMLP(n_members, features_extractor.features_dim, net_arch, layer_norm=False)
        self.register_buffer("return_mean", th.zeros(()))
        self.register_buffer("return_std", th.ones(()))
        self.register_buffer("return_range", th.tensor([-th.inf, th.inf]))
        self.register_buffer("mean_nats", th.zeros(()))
        self.requires_grad_(False)

    def get_extra_state(self) -> dict[str, Any]:
        return {"is_fitted": self.is_fitted}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.is_fitted = state["is_fitted"]

    @property
    def _shares_encoder(self) -> bool:
        """Do the members read features that are learnt, too? Vectors pass as they are."""
        return any(True for _ in self.features_extractor.parameters())

    def _normalised_values(self, raw_obs: PyTorchObs) -> th.Tensor:
        return self.members(self.extract_features(raw_obs, self.features_extractor))

    def value(self, raw_obs: PyTorchObs) -> th.Tensor:
        """
        V_BC(s), the ensemble's mean, and never beyond the returns that were seen: where the BC episodes have not been
        a network promises more than any success is worth, and the gate would leave the wheel to a lost BC policy.

        :param raw_obs: (n, *obs_shape), or a dict of those, as the environment gave them
        :return: (n,)
        """
        values = self._normalised_values(raw_obs).mean(dim=0) * self.return_std + self.return_mean
        return values.clamp(*self.return_range)

    def centre(self, nats: th.Tensor) -> None:
        """
        :param nats: (n,) log pi + H of the actions of the BC episodes
        """
        self.mean_nats.copy_(nats.mean())

    def advantage(self, log_prob: th.Tensor | None, entropy: th.Tensor | None) -> th.Tensor | float:
        """alpha (log pi + H - its mean), in units of return; 0 without a density: Q̂_BC is then V_BC."""
        return (
            0.0 if log_prob is None or entropy is None else self.bc_temperature * (log_prob + entropy - self.mean_nats)
        )

    def forward(self, raw_obs: PyTorchObs, bc: BCStep) -> th.Tensor:
        """
        Q̂_BC(s, a_BC).

        :param raw_obs: (n, *obs_shape), or a dict of those, as the environment gave them
        :param bc: The BC policy's step in these observations
        :return: (n,)
        """
        return self.value(raw_obs) + self.advantage(bc.log_prob, bc.entropy)

    def fit(
        self,
        transitions: Transitions,
        episode_lengths: Sequence[int],
        batch_size: int = 256,
        max_steps: int = 5_000,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-3,
        patience: int = 20,
        check_every: int = 25,
    ) -> ValueFit:
        """
        Regress V_BC on Monte-Carlo returns. Every member holds out other episodes (cross-validation), so all episodes
        teach and all judge; the ensemble is frozen where the error on what was held out was least. Members that share
        an encoder of images all hold out the same: what one of them teaches it all know.

        :param transitions: Looks up observations and returns of the transitions 0 .. sum(episode_lengths) - 1
        :param episode_lengths: Whole episodes are held out: the steps of one are too alike to judge each other
        :param batch_size: Transitions a gradient step
        :param max_steps: Gradient steps at most
        :param learning_rate: AdamW's
        :param weight_decay: AdamW's
        :param patience: Checks without improvement before stopping
        :param check_every: Gradient steps between two checks; where success is a matter of luck, 100 learn it by heart
        :return: The error on held-out episodes
        """
        n_members = self.members.n_members
        n_transitions = sum(episode_lengths)
        # Those who hold out the same hold out a fifth, and learn from folds that nobody judges
        n_judges = 1 if self._shares_encoder else n_members
        fold_of_episode = np.random.permutation(len(episode_lengths)) % (n_judges if n_judges > 1 else 5)
        fold_of_member = np.arange(n_members)[:, None] % n_judges
        is_held_out = fold_of_member == np.repeat(fold_of_episode, episode_lengths)  # (n_members, n_transitions)
        judged = np.random.permutation(np.flatnonzero(is_held_out.any(axis=0)))[:N_FOR_STATISTICS]
        held_out = th.as_tensor(is_held_out, device=self.return_mean.device)
        taught = ~held_out if len(episode_lengths) > 1 else th.ones_like(held_out)
        self._set_scales(transitions, np.random.permutation(n_transitions)[:N_FOR_STATISTICS])
        self.requires_grad_(True)
        self.set_training_mode(True)
        optimizer = th.optim.AdamW(self.parameters(), lr=learning_rate, weight_decay=weight_decay)
        best, best_error, best_step = copy.deepcopy(self.state_dict()), float("inf"), 0
        for step in range(1, max_steps + 1):
            drawn = np.random.randint(n_transitions, size=batch_size)
            obs, returns = transitions(drawn)
            targets = (returns - self.return_mean) / self.return_std
            learns = taught[:, drawn]
            loss = ((self._normalised_values(obs) - targets).square() * learns).sum() / learns.sum().clamp(min=1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % check_every == 0:
                error, _ = self._held_out_error(transitions, judged, held_out)
                if error < (1 - MIN_IMPROVEMENT) * best_error:
                    best, best_error, best_step = copy.deepcopy(self.state_dict()), error, step
                elif step - best_step >= patience * check_every:
                    break
                if error < NEGLIGIBLE * float(self.return_std) ** 2:
                    break
        self.load_state_dict(best)
        self.requires_grad_(False)
        self.set_training_mode(False)
        error, variance = self._held_out_error(transitions, judged, held_out)
        returns_differ = variance > 1e-6 * float(self.return_std) ** 2
        return ValueFit(r2=1 - error / variance if returns_differ else float("nan"), rmse=error**0.5, n_steps=best_step)

    @th.no_grad()
    def _set_scales(self, transitions: Transitions, indices: np.ndarray) -> None:
        obs, returns = transitions(indices)
        self.features_extractor.set_statistics(obs)
        mean, std = scale_of(returns)
        self.return_mean.copy_(mean)
        self.return_std.copy_(std)
        self.return_range.copy_(th.stack([returns.min(), returns.max()]))

    @th.no_grad()
    def _held_out_error(
        self, transitions: Transitions, indices: np.ndarray, held_out: th.Tensor, chunk: int = 512
    ) -> tuple[float, float]:
        """
        :return: mean squared error, each transition judged by those who held it out, and the returns' variance
        """
        errors, targets = [], []
        for start in range(0, len(indices), chunk):
            some = indices[start : start + chunk]
            obs, returns = transitions(some)
            judges = held_out[:, some]
            values = (self._normalised_values(obs) * judges).sum(dim=0) / judges.sum(dim=0)
            errors.append(values * self.return_std + self.return_mean - returns)
            targets.append(returns)
        return float(th.cat(errors).square().mean()), float(th.cat(targets).var(correction=0))
