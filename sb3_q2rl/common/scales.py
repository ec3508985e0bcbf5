"""Where the networks start from: inputs and values on the scale of what is known before the first update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th

from sb3_q2rl.common.buffers import BCDictReplayBuffer, BCHerReplayBuffer, BCReplayBuffer

if TYPE_CHECKING:
    from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

# Enough for a mean and a standard deviation, few enough for images
N_FOR_STATISTICS = 5_000

# Returns that differ by less than this share of their size are alike
LEAST_SPREAD = 1e-3


def scale_of(returns: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    What a network's outputs of -1 and 1 should stand for: mean ± spread. Returns that are all alike (say, no episode
    succeeded) tell no spread: their size is the unit then, since values of success lie about so far away; and 1 if
    they are zero.

    :param returns: (n,)
    :return: two scalars; the second is positive
    """
    mean, spread = returns.mean(), returns.std(correction=0)
    size = mean.abs()
    unit = th.where(size > 0, size, th.ones_like(size))
    return mean, th.where(spread > LEAST_SPREAD * size, spread, unit)


def start_on_scale(model: OfflineToOnlineSAC, mean: th.Tensor, std: th.Tensor, obs: Any) -> None:
    """
    Let the critics' outputs of about [-1, 1] stand for mean ± std, and standardise the observations.

    :param model: Has made no update yet
    :param mean: A scalar, see :func:`scale_of`
    :param std: A scalar
    :param obs: (n, *obs_shape), or a dict of those, as the critics will see them; ``None``: leave them
    """
    for critic in (model.critic, model.critic_target):
        critic.set_scale(mean, std)
        if obs is not None:
            critic.features_extractor.set_statistics(obs)


def start_on_the_scale_of(
    model: OfflineToOnlineSAC, buffer: BCReplayBuffer | BCDictReplayBuffer | BCHerReplayBuffer
) -> None:
    """
    As Q2RL starts, so that a comparison tells about the methods and not about the units of an environment. No paper of
    a baseline has it.

    :param model: Has made no update yet
    :param buffer: Finished episodes; without any, nothing is changed
    """
    rows, columns = np.nonzero(~np.isnan(buffer.mc_returns[: buffer.size()]))
    some = np.random.permutation(len(rows))[:N_FOR_STATISTICS]
    if len(some) == 0:
        return
    rows, columns = rows[some], columns[some]
    returns = th.as_tensor(buffer.mc_returns[rows, columns], device=model.device)
    # A normaliser of observations may have seen nothing yet, and then will change them
    obs = buffer.observations_at(rows, columns) if model.get_vec_normalize_env() is None else None
    start_on_scale(model, *scale_of(returns), obs)
