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


def hyperparameters(algo: str, env_id: str, preset: str | None = None) -> dict[str, Any]:
    """
    :param algo: e.g. ``"qgated_sac"``
    :param env_id: Environment; one without an entry gets ``default``
    :param preset: e.g. ``"paper"``; ``None``: the defaults
    :return: Constructor keywords; ``n_timesteps`` is rl_zoo3's own business
    """
    import yaml

    entries = yaml.safe_load(config_path(algo, preset).read_text())
    entry = entries.get(env_id, entries["default"])
    return {key: value for key, value in entry.items() if key != "n_timesteps"}
