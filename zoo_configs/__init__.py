"""Hyperparameters that were tried, keyed by environment: what rl_zoo3 reads, and the demo and the benchmarks too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parent


def config_path(algo: str, preset: str | None = None) -> Path:
    """
    :param algo: e.g. ``"qgated_sac"``
    :param preset: e.g. ``"paper"``; ``None``: the defaults
    """
    return CONFIGS / (f"{algo}.yml" if preset is None else f"{algo}_{preset}.yml")


# Keys that are for rl_zoo3, not for a constructor
ZOO_ONLY = ("n_timesteps", "env_wrapper")
# Hyperparameters that may be schedules; rl_zoo3 itself knows of the first
SCHEDULES = ("learning_rate", "actor_learning_rate", "bc_loss_weight")


def hyperparameters(algo: str, env_id: str, preset: str | None = None) -> dict[str, Any]:
    """
    :param algo: e.g. ``"qgated_sac"``
    :param env_id: Environment; one without an entry gets ``default``
    :param preset: e.g. ``"paper"``; ``None``: the defaults
    :return: Constructor keywords
    """
    return with_schedules({key: value for key, value in _entry(algo, env_id, preset).items() if key not in ZOO_ONLY})


def with_schedules(keywords: dict[str, Any], names: Sequence[str] = SCHEDULES) -> dict[str, Any]:
    """
    :param keywords: Constructor keywords, as YAML and the command line write them
    :param names: Of those that may fall
    :return: the same with ``"lin_3e-4"``, rl_zoo3's word for what falls to 0 by the end of the run, as a schedule
    :raises ValueError: another word
    """
    from stable_baselines3.common.utils import LinearSchedule

    falling = {}
    for name, word in keywords.items():
        if name in names and isinstance(word, str):
            match = re.fullmatch(r"lin_((\d+\.?\d*|\.\d+)(e-?\d+)?)", word)
            if match is None:
                raise ValueError(f"`{name}` is {word!r}; expected a number, or lin_... with one, which falls to 0.")
            falling[name] = LinearSchedule(float(match[1]), 0.0, 1.0)
    return keywords | falling


def env_wrapper(algo: str, env_id: str, preset: str | None = None) -> Any:
    """
    :return: What rl_zoo3 would wrap around the environment, as it stands in the file; ``None``: nothing
    """
    return _entry(algo, env_id, preset).get("env_wrapper")


def _entry(algo: str, env_id: str, preset: str | None) -> dict[str, Any]:
    import yaml

    entries = yaml.safe_load(config_path(algo, preset).read_text())
    return entries.get(env_id, entries["default"])
