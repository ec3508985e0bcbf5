"""Where the networks start from: inputs and values on the scale of what is known before the first update."""

from __future__ import annotations

import numpy as np
import torch as th

from sb3_q2rl.common.buffers import BCDictReplayBuffer, BCHerReplayBuffer, BCReplayBuffer
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

# So many transitions give a good mean and standard deviation
N_FOR_STATISTICS = 5_000


def start_on_the_scale_of(
    model: OfflineToOnlineSAC, buffer: BCReplayBuffer | BCDictReplayBuffer | BCHerReplayBuffer
) -> None:
    """
    Standardise observations and let the critics' outputs of about [-1, 1] stand for the returns, as Q2RL does, so that
    a comparison tells about the methods and not about the units of an environment. No paper of a baseline has it.

    :param model: Has made no update yet
    :param buffer: Finished episodes; without any, nothing is changed
    """
    rows, columns = np.nonzero(~np.isnan(buffer.mc_returns[: buffer.size()]))
    some = np.random.permutation(len(rows))[:N_FOR_STATISTICS]
    if len(some) == 0:
        return
    rows, columns = rows[some], columns[some]
    returns = th.as_tensor(buffer.mc_returns[rows, columns], device=model.device)
    # Returns that are all alike have no spread: their size is the unit then
    mean, spread = returns.mean(), th.maximum(returns.std(correction=0), 0.01 * returns.mean().abs())
    for critic in (model.critic, model.critic_target):
        critic.set_scale(mean, th.where(spread > 0, spread, th.ones_like(spread)))
        if model.get_vec_normalize_env() is None:
            critic.features_extractor.set_statistics(buffer.observations_at(rows, columns))
