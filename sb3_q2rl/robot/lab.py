"""The lab file: one YAML with what differs from lab to lab. Everything in it is checked before anything moves."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from sb3_q2rl.envs.franka.config import task_limits
from sb3_q2rl.envs.franka.fci import FCIConfig
from sb3_q2rl.envs.franka.safety import Limits
from sb3_q2rl.envs.franka.tasks import Task

Section = TypeVar("Section")


@dataclass(frozen=True)
class GripperSettings:
    """See :class:`~sb3_q2rl.envs.franka.robotiq.Robotiq2F85`."""

    address: str
    speed_m_s: float = 0.1
    force_n: float = 40.0


@dataclass(frozen=True)
class CameraSettings:
    """See :class:`~sb3_q2rl.envs.franka.realsense.RealSenseCameras`."""

    workspace_serial: str
    wrist_serial: str


@dataclass(frozen=True)
class RemoteSettings:
    """See :class:`~sb3_q2rl.envs.franka.remote.RemoteRobot`; ``key`` is a file."""

    key: str
    host: str = "127.0.0.1"
    port: int = 5588


@dataclass(frozen=True)
class Goal:
    """
    Success that the robot can tell by itself: the tool is there. Without it a person says when the task is done.

    :param position_m: (3,) of the tool centre point in the base's frame
    :param tolerance_m: along each axis
    :raises ValueError: a tolerance that nothing keeps
    """

    position_m: tuple[float, float, float]
    tolerance_m: float = 0.01

    def __post_init__(self) -> None:
        if not self.tolerance_m > 0:
            raise ValueError(f"`tolerance_m` is {self.tolerance_m}; it must be above 0, or nothing is at the goal")


@dataclass(frozen=True)
class Lab:
    """
    :param host: of the control box
    :param gripper: None: there is none
    :param cameras: None: there are none
    :param remote: the machine that serves the robot
    :param fci: stiffness, collision behaviour, tool
    :param limits: what differs from the task's limits, by the names of :class:`~sb3_q2rl.envs.franka.safety.Limits`
    :param goal: None: a person says when the task is done
    """

    host: str | None = None
    gripper: GripperSettings | None = None
    cameras: CameraSettings | None = None
    remote: RemoteSettings | None = None
    fci: FCIConfig = field(default_factory=FCIConfig)
    limits: dict[str, Any] = field(default_factory=dict)
    goal: Goal | None = None

    def limits_of(self, task: Task) -> Limits:
        """
        :param task: what is done
        :return: its limits with the lab's changes
        :raises ValueError: the two do not go together
        """
        return task_limits(task, **self.limits)


SECTIONS: dict[str, type] = {
    "gripper": GripperSettings,
    "cameras": CameraSettings,
    "remote": RemoteSettings,
    "fci": FCIConfig,
    "goal": Goal,
}


def load_lab(path: str | Path) -> Lab:
    """
    :param path: YAML file
    :return: what it says
    :raises ValueError: a name that does not exist, a value of the wrong kind, something missing; says where
    :raises FileNotFoundError: no such file
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"`lab` {path} is no YAML: {error}") from error
    values = {} if values is None else values
    _check_names(path, "", values, [*SECTIONS, "host", "limits"])
    lab: dict[str, Any] = {
        name: _section(path, name, SECTIONS[name], values[name]) for name in SECTIONS if name in values
    }
    if "host" in values:
        lab["host"] = _checked(path, "host", values["host"], str)
    if "limits" in values:
        lab["limits"] = _limits(path, values["limits"])
    return Lab(**lab)


def _limits(path: str | Path, values: Any) -> dict[str, Any]:
    hints = get_type_hints(Limits)
    _check_names(path, "limits", values, list(hints))
    return {name: _checked(path, f"limits.{name}", value, hints[name]) for name, value in values.items()}


def _section(path: str | Path, section: str, kind: type[Section], values: Any) -> Section:
    hints = get_type_hints(kind)
    _check_names(path, section, values, list(hints))
    needed = [item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]  # type: ignore[arg-type]
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"`lab` {path}: `{section}` needs {', '.join(map(repr, missing))}")
    checked = {name: _checked(path, f"{section}.{name}", value, hints[name]) for name, value in values.items()}
    try:
        return kind(**checked)
    except ValueError as error:  # which value makes no sense is known to its class
        raise ValueError(f"`lab` {path}: in `{section}`, {error}") from error


def _check_names(path: str | Path, section: str, values: Any, names: list[str]) -> None:
    where = f"`{section}`" if section else "the file"
    if not isinstance(values, dict):
        raise ValueError(f"`lab` {path}: {where} is {values!r}; it must be a list of `name: value`")
    if unknown := [name for name in values if name not in names]:
        raise ValueError(f"`lab` {path}: {where} has {', '.join(map(repr, unknown))}; it knows {', '.join(names)}")


def _checked(path: str | Path, name: str, value: Any, kind: Any) -> Any:
    """The value, if it is of this kind; a list becomes the tuple that was asked for."""
    kinds = getattr(kind, "__args__", ())
    if kind is float or (float in kinds and type(None) in kinds):
        fits, expected = _is_number(value) or (value is None and type(None) in kinds), "a finite number"
    elif kind is int:
        fits, expected = _is_number(value) and value == int(value), "a whole number"
    elif getattr(kind, "__origin__", None) is tuple:
        fits = isinstance(value, list) and len(value) == len(kinds) and all(map(_is_number, value))
        value, expected = tuple(map(float, value)) if fits else value, f"a list of {len(kinds)} finite numbers"
    else:  # texts, also those of which only some are allowed: their class says which
        fits, expected = isinstance(value, str), "a text; numbers of devices need quotes"
    if not fits:
        raise ValueError(f"`lab` {path}: `{name}` is {value!r}; it must be {expected}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
