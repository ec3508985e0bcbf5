"""rl_zoo3's tables after registration, our configuration files, and the search spaces."""

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch as th
import yaml

pytest.importorskip("rl_zoo3", reason="needs the extra `zoo`")
optuna = pytest.importorskip("optuna")

from rl_zoo3 import exp_manager, hyperparams_opt, utils

from sb3_q2rl.bc import BCPolicyAdapter
from sb3_q2rl.common.keywords import own_keywords
from sb3_q2rl.zoo.registration import ALGORITHMS, config_path, register
from sb3_q2rl.zoo_configs import CONFIGS

# Keys of a configuration that rl_zoo3 itself consumes
ZOO_KEYS = {"n_timesteps", "n_envs", "env_wrapper", "vec_env_wrapper", "callback", "normalize", "frame_stack"}


def test_register_fills_the_tables_once() -> None:
    register()
    constructor = exp_manager.ExperimentManager.__init__
    register()
    assert exp_manager.ExperimentManager.__init__ is constructor, "wrapped twice"
    for name, row in ALGORITHMS.items():
        assert utils.ALGOS[name] is row.algorithm
        assert hyperparams_opt.HYPERPARAMS_SAMPLER[name] is row.sample
        assert hyperparams_opt.HYPERPARAMS_CONVERTER[name] is row.convert
    assert utils.ALGOS["sac"].__name__ == "SAC", "the zoo's own algorithms stay"


def test_stock_algorithms_keep_their_configuration() -> None:
    register()
    arguments: dict[str, Any] = {"args": Namespace(), "env_id": "Pendulum-v1", "log_folder": "unused"}
    stock = exp_manager.ExperimentManager(algo="sac", **arguments).config
    assert stock == str(Path(exp_manager.__file__).parent / "hyperparams" / "sac.yml")
    assert exp_manager.ExperimentManager(algo="qgated_sac", **arguments).config == str(CONFIGS / "qgated_sac.yml")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (None, str(CONFIGS / "qgated_sac.yml")),
        ("paper", str(CONFIGS / "qgated_sac_paper.yml")),
        ("mine.yml", "mine.yml"),
        ("my_package.configs", "my_package.configs"),
    ],
)
def test_config_path(given: str | None, used: str) -> None:
    assert config_path("qgated_sac", given) == used


def test_a_preset_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"`--conf-file` paper is no preset of ibrl; it has none.*YAML"):
        config_path("ibrl", "paper")
    with pytest.raises(ValueError, match=r"papr is no preset of qgated_sac; it has paper\."):
        config_path("qgated_sac", "papr")
    assert config_path("ibrl", "sb3_q2rl") == "sb3_q2rl", "a module, as rl_zoo3 takes one"


def test_our_schedules_may_fall_linearly() -> None:
    register()
    falling = {"learning_rate": "lin_3e-4", "actor_learning_rate": "lin_1e-4", "bc_loss_weight": "lin_0.3"}
    made = exp_manager.ExperimentManager._preprocess_schedules(falling)
    assert [made[name](0.5) for name in falling] == pytest.approx([1.5e-4, 0.5e-4, 0.15])
    constant = {"actor_learning_rate": 1e-4, "bc_loss_weight": 0.3}
    assert exp_manager.ExperimentManager._preprocess_schedules(dict(constant)) == constant
    assert exp_manager.ExperimentManager._preprocess_schedules({"bc_loss_weight": "lin_.3"})["bc_loss_weight"](1) == 0.3
    for word in ("cos_0.3", "lin_0.3.1", "lin_."):
        with pytest.raises(ValueError, match=rf"`bc_loss_weight` is '{re.escape(word)}'; expected a number, or lin_"):
            exp_manager.ExperimentManager._preprocess_schedules({"bc_loss_weight": word})


def configurations() -> list[Any]:
    return [
        pytest.param(path, name, id=f"{path.stem}-{name}")
        for path in sorted(CONFIGS.glob("*.yml"))
        for name in yaml.safe_load(path.read_text())
    ]


@pytest.mark.parametrize(("path", "name"), configurations())
def test_configurations_build_the_algorithm(path: Path, name: str) -> None:
    """Every entry names a registered environment, and the constructor takes it, BC policy and networks included."""
    config = yaml.safe_load(path.read_text())[name]
    algorithm = next(row.algorithm for key, row in ALGORITHMS.items() if path.stem.startswith(key))
    kwargs = {key: value for key, value in config.items() if key not in ZOO_KEYS}
    assert config["n_timesteps"] > 0
    assert not kwargs.keys() - own_keywords(algorithm)
    if name == "default":
        assert "bc_policy" not in kwargs, "no BC policy fits every environment"
        return
    pytest.importorskip("gymnasium_robotics", reason="needs the extra `d4rl`")
    wrapper = utils.get_wrapper_class(config)
    env = gym.make(name) if wrapper is None else wrapper(gym.make(name))
    if name.endswith("Image-v0") and "bc_policy" not in kwargs:
        n_actions = env.action_space.shape[0]
        kwargs["bc_policy"] = BCPolicyAdapter.from_callable(
            lambda obs: th.zeros(len(next(iter(obs.values()))), n_actions), "fixed"
        )
    model = algorithm(env=env, **kwargs)
    assert model.action_space.shape == env.action_space.shape
    env.close()


BUDGET = ["n_timesteps", "batch_size", "train_freq", "gradient_steps", "policy_delay", "buffer_size", "gamma"]
BENCHMARKED = ["AdroitHandDoorBinary-v0", "AdroitHandPenBinary-v0", "RobomimicLift-v0"]


@pytest.mark.parametrize("env_id", BENCHMARKED)
@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_rivals_are_on_equal_terms(name: str, env_id: str) -> None:
    """The same steps, updates, learning rates and layers as Q2RL; as many critics, where two are not the method."""
    ours, theirs = (yaml.safe_load((CONFIGS / f"{algo}.yml").read_text())[env_id] for algo in ("qgated_sac", name))
    for key in [*BUDGET, "learning_rate", "actor_learning_rate"]:
        assert theirs[key] == ours[key], key
    assert theirs["policy_kwargs"]["net_arch"] == ours["policy_kwargs"]["net_arch"]
    n_critics = 2 if name in ("cql", "cal_ql") else ours["policy_kwargs"]["n_critics"]
    assert theirs["policy_kwargs"]["n_critics"] == n_critics
    assert "demonstrations" in theirs or name.startswith("qgated")


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_search_space_gives_constructor_arguments(name: str) -> None:
    row = ALGORITHMS[name]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    accepted = own_keywords(row.algorithm)
    for _ in range(20):
        trial = study.ask()
        kwargs = row.sample(trial, n_actions=28, n_envs=1, additional_args={"using_her_replay_buffer": False})
        assert not kwargs.keys() - accepted
        assert row.convert(trial.params) == kwargs, "--trial-id must rebuild what was tried"
        assert kwargs["batch_size"] % kwargs["gradient_steps"] == 0, "the batch is split among the critic steps"
        assert 0.9 < kwargs["gamma"] < 1


def test_converted_networks_are_not_shared() -> None:
    """SB3 may change `policy_kwargs` in place; the next trial must not see it."""
    row = ALGORITHMS["qgated_sac"]
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    first = row.sample(trial, n_actions=1, n_envs=1, additional_args={})
    expected = list(first["policy_kwargs"]["net_arch"])
    first["policy_kwargs"]["net_arch"].append(7)
    assert row.convert(trial.params)["policy_kwargs"]["net_arch"] == expected
