"""What the BC policy proposes where nobody asked it: where TD targets bootstrap, and along demonstrations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th

from sb3_q2rl.common.buffers import BCSamples
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC
from sb3_q2rl.data import Demonstrations


class ProposalSAC(OfflineToOnlineSAC):
    """For algorithms whose TD targets need the BC policy's next action, too. They have ``bc_deterministic``."""

    bc_deterministic: bool

    def _choose_replay_buffer(self) -> None:
        super()._choose_replay_buffer()
        self.replay_buffer_kwargs = {**self.replay_buffer_kwargs, "with_next_bc_actions": True}

    def _next_bc_actions(self, batch: BCSamples) -> th.Tensor:
        """
        What the BC policy does next: what it was seen to do. Where it was not asked (at a time limit, at the newest
        step, about a hindsight goal), a memoryless one is asked now. A recurrent one would need its state: NaN there.
        """
        assert self._bc is not None
        actions = batch.next_bc_actions
        if actions is None:
            actions = th.full_like(batch.actions, th.nan)
        unknown = actions.isnan().any(dim=1)
        if self._bc.is_recurrent or not unknown.any():
            return actions

        def rows(obs: Any) -> Any:
            return {key: value[unknown] for key, value in obs.items()} if isinstance(obs, dict) else obs[unknown]

        raw_obs = self._unnormalized(rows(batch.next_observations))
        starts = np.ones(int(unknown.sum()), dtype=bool)
        actions[unknown] = self._bc.step(raw_obs, None, starts, self.bc_deterministic).actions
        return actions

    @th.no_grad()
    def _bc_actions_along(self, demonstrations: Demonstrations) -> np.ndarray:
        """
        What the BC policy would have done at every demonstrated step, its memory running along the episode: the actor
        must learn what to do about its proposals, not about the demonstrated actions.

        :return: (n, action_dim)
        """
        assert self._bc is not None
        lengths = demonstrations.episode_lengths
        starts = demonstrations.episode_ends - lengths
        observations = demonstrations.observations
        actions = np.empty_like(demonstrations.actions)
        state = None
        for t in range(lengths.max()):
            rows = starts + np.minimum(t, lengths - 1)  # all episodes side by side; one that is over repeats its end
            shown = (
                {k: v[rows] for k, v in observations.items()} if isinstance(observations, dict) else observations[rows]
            )
            obs, _ = self.policy.obs_to_tensor(shown)
            step = self._bc.step(obs, state, np.full(len(rows), t == 0), self.bc_deterministic)
            state = step.state
            goes_on = t < lengths
            actions[rows[goes_on]] = step.actions.cpu().numpy()[goes_on]
        return actions
