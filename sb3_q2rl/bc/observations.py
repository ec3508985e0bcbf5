"""From what an environment gives to the flat vector that a BC network reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch as th

from sb3_q2rl.bc.policy import BCObs


def flat_observation(obs: BCObs, dim: int, keys: Sequence[str] | None = None) -> th.Tensor:
    """
    :param obs: (n, dim), or a dict that has ``keys``
    :param dim: size of the vector that the policy was trained on
    :param keys: for Dict observations: what to flatten and concatenate, in this order
    :return: (n, dim), float32
    :raises ValueError: wrong shape, missing key, or a dict where an array is expected
    """
    if isinstance(obs, dict):
        if keys is None:
            raise ValueError(
                f"The BC policy takes one array of ({dim},), but a dict of {list(obs)} came. Name what to concatenate, "
                "in the order of its training: `BCPolicyAdapter.from_checkpoint(path, observation_keys=[...])`."
            )
        missing = [key for key in keys if key not in obs]
        if missing:
            raise ValueError(
                f"The BC policy reads the keys {missing}, which the observation lacks; it has {list(obs)}."
            )
        obs = th.cat([obs[key].reshape(len(obs[key]), -1).float() for key in keys], dim=1)
    if obs.ndim != 2 or obs.shape[1] != dim:
        raise ValueError(
            f"The BC policy was trained on observations of shape ({dim},), but a batch of shape "
            f"{tuple(obs.shape)} came, not (n, {dim}). Use it with the task that it was trained on."
        )
    return obs.float()
