"""Any function from observations to actions, or to chunks of actions, as a BC policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import nn

from sb3_q2rl.bc.density import Density, gaussian_scores, kernel_scores
from sb3_q2rl.bc.distributions import step_from
from sb3_q2rl.bc.policy import BCObs, BCStep


class Plan(NamedTuple):
    """
    What was decided for n environments, T steps ahead, and how far each has come.

    :param actions: (n, T, action_dim)
    :param log_prob: (n, T) or ``None``
    :param entropy: (n, T) or ``None``
    :param position: (n,) steps already executed
    """

    actions: th.Tensor
    log_prob: th.Tensor | None
    entropy: th.Tensor | None
    position: th.Tensor


class CallableBCPolicy(nn.Module):
    """
    A policy that is known by its actions alone.

    :param act: takes observations, (n, *obs_shape) or a dict of those, as float tensors on the policy's device; gives
        actions in [-1, 1]: (n, action_dim), or chunks (n, T, action_dim). A ``torch.nn.Module`` moves with the policy
    :param density: how to score its actions, see :class:`Density`
    :param action_steps: for chunks: how many of the T actions to execute before asking again; every environment keeps
        its own chunk
    :raises ValueError: ``action_steps`` below 1
    """

    has_density = False  # of its own

    def __init__(self, act: Callable[[Any], th.Tensor], density: Density, action_steps: int | None = None):
        super().__init__()
        if action_steps is not None and action_steps < 1:
            raise ValueError(f"`action_steps` is {action_steps}; at least one action of a chunk must be executed.")
        self.act = act  # a Module becomes a sub-module
        self.eval()  # dropout or batch statistics of training would make another policy of it
        self.density = density
        self.action_steps = action_steps
        self.is_recurrent = action_steps is not None

    @th.no_grad()
    def step(
        self, obs: BCObs, state: Plan | None, episode_start: np.ndarray | th.Tensor, deterministic: bool = False
    ) -> BCStep:
        """
        :param obs: (n, *obs_shape) or a dict
        :param state: the chunks under way
        :param episode_start: (n,) bool; a new episode begins with a new chunk
        :param deterministic: ``"fixed"``: act at the mean; sampled densities: the drawn action of highest density
        :raises ValueError: actions of another shape, or samples that are all alike
        """
        if self.action_steps is None:
            plan = self._plan(obs, deterministic)
            return _at(plan, th.zeros_like(plan.position))._replace(state=None)
        first = next(iter(obs.values())) if isinstance(obs, dict) else obs
        if state is None:
            plan = self._plan(obs, deterministic)
        else:
            new = th.as_tensor(episode_start, device=first.device) | (state.position >= self.action_steps)
            plan = self._renewed(state, obs, new, deterministic) if bool(new.any()) else state
        return _at(plan, plan.position)._replace(state=plan._replace(position=plan.position + 1))

    def _renewed(self, plan: Plan, obs: BCObs, new: th.Tensor, deterministic: bool) -> Plan:
        """Ask again where a chunk is used up; the other rows go on with theirs."""
        rows = {key: value[new] for key, value in obs.items()} if isinstance(obs, dict) else obs[new]

        def replaced(old: th.Tensor | None, fresh: th.Tensor | None) -> th.Tensor | None:
            if old is None or fresh is None:
                return None
            old = old.clone()  # the caller may still hold the previous state
            old[new] = fresh
            return old

        return Plan(*(replaced(*pair) for pair in zip(plan, self._plan(rows, deterministic), strict=True)))  # type: ignore[arg-type]

    def _plan(self, obs: BCObs, deterministic: bool) -> Plan:
        kind = self.density.kind
        if self.density.is_sampled:
            return self._best_or_first(self._samples(obs), deterministic)
        actions = self._chunks(obs)
        n, length, _ = actions.shape
        position = th.zeros(n, dtype=th.long, device=actions.device)
        if kind == "none":
            return Plan(actions.clamp(-1.0, 1.0), None, None, position)
        flat = actions.flatten(end_dim=1)
        gaussian = th.distributions.Independent(th.distributions.Normal(flat, self.density.scale), 1)
        step = step_from(gaussian, deterministic)
        assert step.log_prob is not None
        assert step.entropy is not None
        return Plan(
            step.actions.view_as(actions), step.log_prob.view(n, length), step.entropy.view(n, length), position
        )

    def _samples(self, obs: BCObs) -> th.Tensor:
        """(n, K, T, action_dim)"""
        n_samples = self.density.n_samples
        repeated: Any = (
            {key: value.repeat_interleave(n_samples, dim=0) for key, value in obs.items()}
            if isinstance(obs, dict)
            else obs.repeat_interleave(n_samples, dim=0)
        )
        samples = self._chunks(repeated).unflatten(0, (-1, n_samples))
        if bool((samples == samples[:, :1]).all()):
            raise ValueError(
                f"`density={self.density.kind!r}` draws {n_samples} actions in each state, but this policy gave the "
                "same one every time: it is deterministic. Use `density='fixed'` or `density='none'`."
            )
        return samples

    def _best_or_first(self, samples: th.Tensor, deterministic: bool) -> Plan:
        n, n_samples, length, dim = samples.shape
        per_step = samples.transpose(1, 2).reshape(n * length, n_samples, dim)
        score = gaussian_scores if self.density.kind == "gaussian" else kernel_scores
        log_density, entropy = score(per_step, self.density.scale)
        log_density = log_density.view(n, length, n_samples)
        rows = th.arange(n, device=samples.device)
        # One whole chunk is executed: steps of different samples do not belong together
        chosen = log_density.sum(dim=1).argmax(dim=1) if deterministic else th.zeros_like(rows)
        return Plan(
            samples[rows, chosen].clamp(-1.0, 1.0), log_density[rows, :, chosen], entropy.view(n, length), rows * 0
        )

    def _chunks(self, obs: BCObs) -> th.Tensor:
        """(n, T, action_dim), T = 1 for a policy without chunks."""
        first = next(iter(obs.values())) if isinstance(obs, dict) else obs
        actions = th.as_tensor(self.act(obs), dtype=th.float32, device=first.device)  # numpy answers lie on the CPU
        n = len(first)
        expected = "(n, action_dim)" if self.action_steps is None else f"(n, T >= {self.action_steps}, action_dim)"
        chunked = actions.ndim == 3 and self.action_steps is not None and actions.shape[1] >= self.action_steps
        if len(actions) != n or not (chunked or (actions.ndim == 2 and self.action_steps is None)):
            raise ValueError(
                f"The policy gave actions of shape {tuple(actions.shape)} for {n} observations; expected {expected}. "
                "A policy that gives chunks of actions needs `action_steps`: how many of them to execute."
            )
        return actions if chunked else actions.unsqueeze(1)


def _at(plan: Plan, position: th.Tensor) -> BCStep:
    rows = th.arange(len(position), device=position.device)
    return BCStep(
        plan.actions[rows, position],
        None if plan.log_prob is None else plan.log_prob[rows, position],
        None if plan.entropy is None else plan.entropy[rows, position],
    )
