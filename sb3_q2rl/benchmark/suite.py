"""A suite: tasks x algorithms x seeds, read from one YAML file. Each combination is a cell, and stands on its own."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym

import sb3_q2rl.envs  # noqa: F401  registers the environments
from sb3_q2rl.benchmark.algorithms import ALGORITHMS, BC, hyperparameter_names, starts_from_bc
from sb3_q2rl.benchmark.records import check_keys, check_values, record
from sb3_q2rl.zoo_configs import config_path

NAME = re.compile(r"[\w.=+-]+")  # of tasks and labels: they become names of files


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """
    How often, and on what.

    :param every: environment steps between two evaluations
    :param episodes: of each evaluation
    :param n_envs: environments side by side; another number means other starts
    :param seed: of the starts, the same for every evaluation of every cell
    :param deterministic: the RL action is the actor's mode; else a sample, as while learning: the paper on robots
    """

    every: int = 10_000
    episodes: int = 50
    n_envs: int = 10
    seed: int = 12345
    deterministic: bool = True


@dataclasses.dataclass(frozen=True)
class Task:
    """
    :param env: id of the environment
    :param steps: environment steps of a run, estimation and warm-up included
    :param bc_policy: a checkpoint, or the name of a shipped policy
    :param demonstrations: a file, or the name of a shipped data set
    :param env_kwargs: for the environment
    """

    env: str
    steps: int
    bc_policy: str | None = None
    demonstrations: str | None = None
    env_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Entry:
    """
    One line of every table of the report.

    :param algorithm: as rl-zoo3 knows it, or ``"bc"``, ``"sac"``, ``"qgated_sac_no_gate"``
    :param demonstrations: does it get the task's demonstrations? By default those that have no BC policy do
    :param preset: of ``zoo_configs``, such as ``"paper"``
    :param hyperparameters: what to change
    """

    algorithm: str
    demonstrations: bool | None = None
    preset: str | None = None
    hyperparameters: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def uses_demonstrations(self) -> bool:
        return not starts_from_bc(self.algorithm) if self.demonstrations is None else self.demonstrations


@dataclasses.dataclass(frozen=True)
class Cell:
    """
    One run: all that a process needs to know.

    :param task: name of the task in its suite
    :param label: name of the entry in its suite
    :param seed: of everything that is random while learning
    :param to: where and how long
    :param by: the algorithm
    :param evaluation: how often, and on what
    :param networks: ``policy_kwargs`` of all algorithms
    :param files: see :class:`Suite`
    """

    task: str
    label: str
    seed: int
    to: Task
    by: Entry
    evaluation: Evaluation
    networks: dict[str, Any]
    files: dict[str, str]

    @property
    def key(self) -> str:
        """``task/label_seed0``, also where its files are."""
        return f"{self.task}/{self.label}_seed{self.seed}"

    @property
    def bc_policy(self) -> str | None:
        """The task's, unless the entry names another."""
        return (
            self.by.hyperparameters.get("bc_policy", self.to.bc_policy) if starts_from_bc(self.by.algorithm) else None
        )

    @property
    def demonstrations(self) -> str | None:
        """The task's, if the entry uses them."""
        return self.to.demonstrations if self.by.uses_demonstrations else None

    @property
    def steps(self) -> int:
        """The step at which it is finished."""
        return 0 if self.by.algorithm == BC else self.to.steps

    @property
    def settings(self) -> dict[str, Any]:
        """What a run must share with another to be the same one: all but its name and the number of its steps."""
        content = json.loads(json.dumps(self.as_dict()))
        for name in ("task", "label"):
            del content[name]
        del content["to"]["steps"]
        content["files"] = {
            name: how for name, how in self.files.items() if name in (self.bc_policy, self.demonstrations)
        }
        return content

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Cell:
        return cls(
            **{
                **content,
                "to": Task(**content["to"]),
                "by": Entry(**content["by"]),
                "evaluation": Evaluation(**content["evaluation"]),
            }
        )


@dataclasses.dataclass(frozen=True)
class Suite:
    """
    :param name: of the folder with its results
    :param tasks: by name
    :param algorithms: by label
    :param seeds: of the runs
    :param evaluation: how often, and on what
    :param networks: ``policy_kwargs`` of all algorithms, such as ``net_arch``
    :param files: demonstrations and BC policies that are made where they are missing: path -> arguments of ``python``
    :param reference: label that the others are compared with, for ablations
    """

    name: str
    tasks: dict[str, Task]
    algorithms: dict[str, Entry]
    seeds: tuple[int, ...]
    evaluation: Evaluation
    networks: dict[str, Any]
    files: dict[str, str]
    reference: str | None = None

    def cells(self, only: Mapping[str, Sequence[str]] | None = None) -> list[Cell]:
        """
        The first seed of everything comes first. An algorithm is left out of a task that lacks what it starts from.

        :param only: of these tasks, algorithms and seeds: ``{"task": ["door"], "seed": ["0"]}``
        :raises ValueError: a filter that fits nothing
        """
        chosen = [
            Cell(name, label, seed, task, entry, self.evaluation, self.networks, self.files)
            for seed in self.seeds
            for name, task in self.tasks.items()
            for label, entry in self.algorithms.items()
            if _has_what_it_needs(task, entry) and not (entry.algorithm == BC and seed != self.seeds[0])
        ]
        for key, values in (only or {}).items():
            known = list(dict.fromkeys(_field(cell, key) for cell in chosen))
            unknown = [value for value in values if value not in known]
            if unknown:
                raise ValueError(f"`--only` {key}={','.join(unknown)} fits no cell. There are: {', '.join(known)}.")
            chosen = [cell for cell in chosen if _field(cell, key) in values]
        return chosen


def _field(cell: Cell, key: str) -> str:
    fields = {"task": cell.task, "algorithm": cell.label, "seed": str(cell.seed)}
    if key not in fields:
        raise ValueError(f"`--only` {key}=... is unknown; choose among {', '.join(f'{name}=...' for name in fields)}.")
    return fields[key]


def _has_what_it_needs(task: Task, entry: Entry) -> bool:
    if starts_from_bc(entry.algorithm) and not (task.bc_policy or "bc_policy" in entry.hyperparameters):
        return False
    return task.demonstrations is not None or not entry.uses_demonstrations


def load_suite(path: str | Path) -> Suite:
    """
    :param path: a YAML file
    :raises FileNotFoundError: there is none
    :raises ValueError: it says something that no suite says
    """
    path = Path(path)
    content = _read(path)
    try:
        return _suite({"name": path.stem, "seeds": [0], "evaluation": {}, "networks": {}, "files": {}, **content})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        raise FileNotFoundError(f"There is no suite {path}. Expected a YAML file such as benchmarks/adroit.yml.")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, expected the keys tasks, algorithms and seeds.")
    return content


def _suite(content: dict[str, Any]) -> Suite:
    check_keys("the suite", content, Suite)
    check_values("", {name: content[name] for name in ("name", "networks", "files")}, Suite)
    for name in ("tasks", "algorithms"):
        if not isinstance(content[name], dict):
            raise ValueError(f"`{name}` is {content[name]!r}, expected names and what they stand for.")
    seeds = content["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError(f"`seeds` is {seeds!r}, expected a list of whole numbers such as [0, 1, 2].")
    tasks = {name: record(f"tasks.{name}", task, Task) for name, task in content["tasks"].items()}
    entries = {label: record(f"algorithms.{label}", entry, Entry) for label, entry in content["algorithms"].items()}
    for name in (*tasks, *entries):
        if not NAME.fullmatch(str(name)):
            raise ValueError(f"{name!r} cannot name a file; use letters, digits and . = + - _ only.")
    for name, task in tasks.items():
        _check_env(name, task)
    for label, entry in entries.items():
        _check_algorithm(label, entry)
    if content.get("reference") not in (None, *entries):
        raise ValueError(f"`reference` is {content['reference']!r}, which is none of {', '.join(entries)}.")
    evaluation = record("evaluation", content["evaluation"], Evaluation)
    return Suite(**{**content, "tasks": tasks, "algorithms": entries, "seeds": tuple(seeds), "evaluation": evaluation})


def _check_env(name: str, task: Task) -> None:
    if ":" in task.env:  # module:Name-v0, registered when the module is imported
        return
    try:
        gym.spec(task.env)
    except gym.error.Error as error:
        raise ValueError(f"`tasks.{name}.env` is {task.env!r}: {error}") from error


def _check_algorithm(label: str, entry: Entry) -> None:
    known = (*ALGORITHMS, BC)
    if entry.algorithm not in known:
        raise ValueError(f"`algorithm` of {label} is {entry.algorithm!r}; choose among {', '.join(known)}.")
    if entry.preset is not None and entry.algorithm != BC:
        config = ALGORITHMS[entry.algorithm].config
        if not config_path(config, entry.preset).is_file():
            raise ValueError(
                f"`preset` of {label} is {entry.preset!r}: zoo_configs has no {config}_{entry.preset}.yml."
            )
    names = hyperparameter_names(entry.algorithm)
    unknown = sorted(map(str, entry.hyperparameters.keys() - names))
    if unknown:
        raise ValueError(
            f"`algorithms.{label}.hyperparameters` has the unknown {', '.join(unknown)}; {entry.algorithm} takes "
            f"{', '.join(sorted(names))}."
        )
