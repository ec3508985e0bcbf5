"""What can be compared: the algorithms that rl-zoo3 knows from us, and plain references beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th

from sb3_q2rl import zoo_configs
from sb3_q2rl.baselines import CQL, IBRL, RLPD, WSRL, CalQL
from sb3_q2rl.common.acting import Decision
from sb3_q2rl.common.keywords import own_keywords
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC
from sb3_q2rl.common.scales import start_on_the_scale_of
from sb3_q2rl.data import Demonstrations
from sb3_q2rl.q2rl import QGatedResidualSAC, QGatedSAC, QGatedTQC

if TYPE_CHECKING:
    from sb3_q2rl.benchmark.suite import Cell


class SACWithDemonstrations(OfflineToOnlineSAC):
    """SAC from scratch. Demonstrations, if given, lie in the replay buffer from the beginning, like own experience."""

    def _setup_model(self) -> None:
        super()._setup_model()
        if isinstance(self.demonstrations, Demonstrations):
            self.replay_buffer.add_demonstrations(self.demonstrations)
            start_on_the_scale_of(self, self.replay_buffer)


class QGatedSACNoGate(QGatedSAC):
    """Q2RL without its gate: once Q̂_BC is estimated and the networks are initialised, the RL action is executed."""

    def _act(
        self,
        obs: Any,
        raw_obs: Any,
        bc_state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
        noise: th.Tensor | None = None,
    ) -> Decision:
        decision = super()._act(obs, raw_obs, bc_state, episode_start, deterministic, noise)
        if decision.rl is None:
            return decision
        return decision._replace(actions=decision.rl, rl_acts=th.ones(len(decision.rl), dtype=th.bool))


class Row(NamedTuple):
    """
    :param algorithm: the class
    :param starts_from_bc: is it given the task's BC policy?
    :param config: the file in ``zoo_configs`` that its hyperparameters come from
    :param without: keywords in there that the class does not know
    """

    algorithm: type[OfflineToOnlineSAC]
    starts_from_bc: bool
    config: str
    without: tuple[str, ...] = ()


ALGORITHMS = {
    "qgated_sac": Row(QGatedSAC, True, "qgated_sac"),
    "qgated_residual": Row(QGatedResidualSAC, True, "qgated_residual"),
    "qgated_tqc": Row(QGatedTQC, True, "qgated_tqc"),
    "ibrl": Row(IBRL, True, "ibrl"),
    "rlpd": Row(RLPD, False, "rlpd"),
    "cql": Row(CQL, False, "cql"),
    "cal_ql": Row(CalQL, False, "cal_ql"),
    "wsrl": Row(WSRL, False, "wsrl"),
    # Plain SAC, entropy in its TD targets, on RLPD's schedule and networks
    "sac": Row(SACWithDemonstrations, False, "rlpd", without=("entropy_backup",)),
    "qgated_sac_no_gate": Row(QGatedSACNoGate, True, "qgated_sac"),
}
BC = "bc"  # the BC policy alone; not in the table, it learns nothing


def starts_from_bc(algorithm: str) -> bool:
    """
    :param algorithm: a name of the table, or ``"bc"``
    """
    return algorithm == BC or ALGORITHMS[algorithm].starts_from_bc


def hyperparameter_names(algorithm: str) -> set[str]:
    """
    :param algorithm: a name of the table, or ``"bc"``
    :return: what a suite may change: the keywords of its constructor, and ``env_wrapper``
    """
    if algorithm == BC:
        return {"bc_policy", "bc_deterministic", "env_wrapper"}
    return own_keywords(ALGORITHMS[algorithm].algorithm) | {"env_wrapper"}


def constructor_keywords(cell: Cell) -> dict[str, Any]:
    """
    The configuration of rl-zoo3 for this environment, then what the suite says of all networks, then what it says of
    this algorithm. BC policy and demonstrations are the task's.

    :param cell: of an algorithm in the table
    """
    row = ALGORITHMS[cell.by.algorithm]
    kwargs = zoo_configs.hyperparameters(row.config, cell.to.env, cell.by.preset)
    for name in (*row.without, "bc_policy", "demonstrations"):
        kwargs.pop(name, None)
    changes = dict(cell.by.hyperparameters)
    changes.pop("env_wrapper", None)
    kwargs["policy_kwargs"] = {
        **kwargs.get("policy_kwargs", {}),
        **cell.networks,
        **changes.pop("policy_kwargs", {}),
    }
    if row.starts_from_bc:
        kwargs["bc_policy"] = cell.bc_policy
    if cell.demonstrations is not None:
        kwargs["demonstrations"] = cell.demonstrations
    return {"device": "cpu", "seed": cell.seed, "verbose": 1, **kwargs, **zoo_configs.with_schedules(changes)}


def env_wrapper(cell: Cell) -> Callable[[gym.Env], gym.Env] | None:
    """What the configuration, or the suite, wraps around the environment: rl-zoo3's ``env_wrapper``."""
    from rl_zoo3.utils import get_wrapper_class

    config = "qgated_sac" if cell.by.algorithm == BC else ALGORITHMS[cell.by.algorithm].config
    configured = zoo_configs.env_wrapper(config, cell.to.env, cell.by.preset)
    return get_wrapper_class({"env_wrapper": configured} | cell.by.hyperparameters)
