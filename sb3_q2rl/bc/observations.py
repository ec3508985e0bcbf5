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
    :raises ValueError: wrong shape, missing key, a dict where an array is expected, or an array where several keys are
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
    elif keys is not None and len(keys) > 1:  # of one alone there is no order to get wrong
        raise ValueError(
            f"The BC policy reads the keys {list(keys)}, in this order, but an array of {tuple(obs.shape)} came, which "
            "may have them in another. Use it where observations are a Dict with these keys. If you named the keys "
            "yourself (`observation_keys`), for a policy that was trained on such arrays, leave them out."
        )
    if obs.ndim != 2 or obs.shape[1] != dim:
        raise ValueError(
            f"The BC policy was trained on observations of shape ({dim},), but a batch of shape "
            f"{tuple(obs.shape)} came, not (n, {dim}). Use it with the task that it was trained on."
        )
    return obs.float()
