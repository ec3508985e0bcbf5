"""Register our algorithms, their default hyperparameters, search spaces and environments in rl_zoo3."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.base_class import BaseAlgorithm

import sb3_q2rl.envs  # noqa: F401  registers the environment ids
from sb3_q2rl.baselines import CQL, IBRL, RLPD, WSRL, CalQL
from sb3_q2rl.q2rl import QGatedResidualSAC, QGatedSAC, QGatedTQC
from sb3_q2rl.zoo import search_spaces
from sb3_q2rl.zoo_configs import SCHEDULES, with_schedules
from sb3_q2rl.zoo_configs import config_path as shipped_config


class ZooAlgorithm(NamedTuple):
    """
    What rl_zoo3 needs to know of an algorithm, beside the file ``zoo_configs/<name>.yml``.

    :param algorithm: the class
    :param sample: Optuna trial -> constructor keywords, called as ``sample(trial, n_actions, n_envs, additional_args)``
    :param convert: a finished trial's parameters -> constructor keywords (for ``--trial-id``)
    """

    algorithm: type[BaseAlgorithm]
    sample: Callable[..., dict[str, Any]]
    convert: Callable[[dict[str, Any]], dict[str, Any]] = search_spaces.convert


ALGORITHMS = {
    "qgated_sac": ZooAlgorithm(QGatedSAC, search_spaces.sample_qgated_sac),
    "qgated_residual": ZooAlgorithm(QGatedResidualSAC, search_spaces.sample_qgated_residual),
    "qgated_tqc": ZooAlgorithm(QGatedTQC, search_spaces.sample_qgated_tqc),
    "ibrl": ZooAlgorithm(IBRL, search_spaces.sample_ibrl),
    "rlpd": ZooAlgorithm(RLPD, search_spaces.sample_rlpd),
    "cql": ZooAlgorithm(CQL, search_spaces.sample_cql),
    "cal_ql": ZooAlgorithm(CalQL, search_spaces.sample_cql),
    "wsrl": ZooAlgorithm(WSRL, search_spaces.sample_wsrl),
}


def config_path(algo: str, config: str | None) -> str | None:
    """
    :param algo: name of one of our algorithms
    :param config: what the user gave as ``--conf-file``
    :return: the algorithm's default file without a ``--conf-file``, a preset's file for the preset's bare name
        (``paper``), and anything else unchanged
    :raises ValueError: a bare name that is neither a preset nor a module
    """
    if config is None:
        return str(shipped_config(algo))
    preset = shipped_config(algo, config)
    if preset.is_file():
        return str(preset)
    if config.isidentifier() and not Path(config).exists() and importlib.util.find_spec(config) is None:
        known = [path.stem.removeprefix(f"{algo}_") for path in preset.parent.glob(f"{algo}_*.yml")]
        raise ValueError(
            f"`--conf-file` {config} is no preset of {algo}; it has {', '.join(known) or 'none'}. Leave it out for the "
            "defaults, or name a YAML file."
        )
    return config


def register() -> None:
    """Add our algorithms to rl_zoo3's tables. Calling it again changes nothing."""
    from rl_zoo3 import exp_manager, hyperparams_opt, utils

    if ALGORITHMS.keys() <= utils.ALGOS.keys():
        return
    converters: dict[str, Any] = hyperparams_opt.HYPERPARAMS_CONVERTER
    for name, row in ALGORITHMS.items():
        # rl_zoo3's modules share these dicts, so changing them in place reaches train, enjoy and the optimiser
        utils.ALGOS[name] = row.algorithm
        hyperparams_opt.HYPERPARAMS_SAMPLER[name] = row.sample
        converters[name] = row.convert

    # The default file is looked for inside rl_zoo3's own package; there is no table to add ours to.
    manager: Any = exp_manager.ExperimentManager
    original = manager.__init__

    @functools.wraps(original)
    def init_with_our_configs(self: Any, args: Any, algo: str, *rest: Any, **kwargs: Any) -> None:
        if algo in ALGORITHMS:
            kwargs["config"] = config_path(algo, kwargs.get("config"))
        original(self, args, algo, *rest, **kwargs)

    manager.__init__ = init_with_our_configs

    # "lin_3e-4" is understood for `learning_rate` alone
    schedules = manager._preprocess_schedules

    def with_ours(hyperparams: dict[str, Any]) -> dict[str, Any]:
        hyperparams.update(with_schedules(hyperparams, SCHEDULES[1:]))  # in place, as rl_zoo3's
        return schedules(hyperparams)

    manager._preprocess_schedules = staticmethod(with_ours)
