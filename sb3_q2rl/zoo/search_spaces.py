"""Optuna search spaces for ``python -m rl_zoo3.train -optimize``: what a practitioner would tune, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

NET_ARCHS = {"small": [128, 128], "medium": [256, 256], "big": [512, 512], "deep": [512, 512, 512]}


def sample_qgated_sac(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    :param trial: asked for one value of every parameter
    :param n_actions: unused, part of rl_zoo3's interface, as in all samplers
    :param n_envs: unused
    :param additional_args: unused
    :return: keyword arguments of ``QGatedSAC``
    """
    return convert(
        {
            **_shared(trial),
            # The method's own: how far to trust BC, on which scale, from how many of its episodes
            "bc_loss_weight": trial.suggest_float("bc_loss_weight", 0.05, 0.95),
            "bc_temperature": trial.suggest_float("bc_temperature", 0.1, 10.0, log=True),
            "n_bc_episodes": trial.suggest_categorical("n_bc_episodes", [25, 50, 100]),
            "keep_bc_episodes": trial.suggest_categorical("keep_bc_episodes", [True, False]),
            "rl_deterministic": trial.suggest_categorical("rl_deterministic", [True, None]),
        }
    )


def sample_qgated_residual(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    :return: keyword arguments of ``QGatedResidualSAC``
    """
    kwargs = sample_qgated_sac(trial, n_actions, n_envs, additional_args)
    kwargs["policy_kwargs"]["residual_std"] = trial.suggest_float("residual_std", 0.03, 0.3, log=True)
    return kwargs


def sample_qgated_tqc(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    :return: keyword arguments of ``QGatedTQC``
    """
    kwargs = sample_qgated_sac(trial, n_actions, n_envs, additional_args)
    return kwargs | {"top_quantiles_to_drop_per_net": trial.suggest_int("top_quantiles_to_drop_per_net", 0, 5)}


def sample_rlpd(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    :return: keyword arguments of ``RLPD``
    """
    entropy_backup = trial.suggest_categorical("entropy_backup", [True, False])
    return convert({"entropy_backup": entropy_backup, **_shared(trial)})


def sample_ibrl(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    :return: keyword arguments of ``IBRL``
    """
    return convert(
        {
            **_shared(trial),
            "n_bc_episodes": trial.suggest_categorical("n_bc_episodes", [25, 50, 100]),
            "n_steps": trial.suggest_categorical("n_steps", [1, 3, 5]),
            "exploration_std": trial.suggest_float("exploration_std", 0.05, 0.3),
            # Per unit of return: the soft variant's 10 is for returns in [0, 1]
            "softmax_beta": trial.suggest_categorical("softmax_beta", [None, 0.1, 1.0, 10.0]),
            "actor_dropout": trial.suggest_categorical("actor_dropout", [0.0, 0.2, 0.5]),
        }
    )


def sample_cql(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    :return: keyword arguments of ``CQL`` and ``CalQL``
    """
    offline_ratio = trial.suggest_categorical("offline_ratio", [0.25, 0.5])
    return convert({"offline_ratio": offline_ratio, **_shared(trial), **_conservative(trial)})


def sample_wsrl(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    :return: keyword arguments of ``WSRL``
    """
    own = {
        "warmup_steps": trial.suggest_categorical("warmup_steps", [2_000, 5_000, 10_000]),
        "offline_loss": trial.suggest_categorical("offline_loss", ["cal_ql", "cql", "td", "bc"]),
    }
    return convert({**own, **_shared(trial), **_conservative(trial)})


def _shared(trial: optuna.Trial) -> dict[str, Any]:
    """What every algorithm has: the same ranges for all, or a comparison of tuned ones would not be fair."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-3, log=True),
        "actor_learning_rate": trial.suggest_float("actor_learning_rate", 3e-5, 1e-3, log=True),
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 0.003, 0.03, log=True),
        "tau": trial.suggest_float("tau", 0.002, 0.02, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [128, 256, 512]),
        "updates_per_step": trial.suggest_categorical("updates_per_step", [1, 2, 4]),
        "net_arch": trial.suggest_categorical("net_arch", list(NET_ARCHS)),
        "n_critics": trial.suggest_categorical("n_critics", [2, 5, 10]),
    }


def _conservative(trial: optuna.Trial) -> dict[str, Any]:
    """What the algorithms with an offline phase have."""
    return {
        "cql_alpha": trial.suggest_float("cql_alpha", 0.1, 10.0, log=True),
        "pretrain_steps": trial.suggest_categorical("pretrain_steps", [10_000, 20_000, 50_000]),
    }


def convert(sampled: dict[str, Any]) -> dict[str, Any]:
    """
    :param sampled: a trial's parameters
    :return: keyword arguments of the algorithm
    """
    kwargs = dict(sampled)
    kwargs["gamma"] = 1.0 - kwargs.pop("one_minus_gamma")
    # The critics learn several times an environment step, the actor once
    kwargs["gradient_steps"] = kwargs["policy_delay"] = kwargs.pop("updates_per_step")
    net_arch = list(NET_ARCHS[kwargs.pop("net_arch")])
    of_networks = {name: kwargs.pop(name) for name in ("n_critics", "residual_std", "actor_dropout") if name in kwargs}
    kwargs["policy_kwargs"] = {"net_arch": net_arch, **of_networks}
    return kwargs
