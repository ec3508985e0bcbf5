"""Hyperparameters that were tried, keyed by environment: what rl_zoo3 reads, and the demo and the benchmarks too."""

from __future__ import annotations

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


def hyperparameters(algo: str, env_id: str, preset: str | None = None) -> dict[str, Any]:
    """
    :param algo: e.g. ``"qgated_sac"``
    :param env_id: Environment; one without an entry gets ``default``
    :param preset: e.g. ``"paper"``; ``None``: the defaults
    :return: Constructor keywords
    """
    return {key: value for key, value in _entry(algo, env_id, preset).items() if key not in ZOO_ONLY}


def env_wrapper(algo: str, env_id: str, preset: str | None = None) -> Any:
    """
    :return: What rl_zoo3 would wrap around the environment, as it stands in the file; ``None``: nothing
    """
    return _entry(algo, env_id, preset).get("env_wrapper")


def _entry(algo: str, env_id: str, preset: str | None) -> dict[str, Any]:
    import yaml

    entries = yaml.safe_load(config_path(algo, preset).read_text())
    return entries.get(env_id, entries["default"])
