"""How a Franka is driven over FCI: stiffness, collision behaviour, tool, rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

_POSITIVE = (
    "control_hz",
    "translational_stiffness",
    "rotational_stiffness",
    "position_error_clip_m",
    "max_torque_nm",
    "max_force_n",
    "arrival_tolerance_m",
    "arrival_timeout_s",
)


@dataclass(frozen=True)
class FCIConfig:
    """
    :param realtime: "enforce": refuse to run on a kernel without PREEMPT_RT; "ignore": run, and accept that the arm
        stops with ``communication_constraints_violation`` when this computer is late
    :param control_hz: of ``command``
    :param deciding_s: so long before its period ends ``command`` returns. A next one that is decided within that time
        begins on the period's end, however long its decision took; a later one begins when it comes, and has what is
        left of its period, if that is half of it, else a whole one
    :param translational_stiffness: N/m; damping is critical. The defaults are those of the simulation
    :param rotational_stiffness: N m/rad
    :param position_error_clip_m: of each axis; with the stiffness it bounds the force that the controller can build up
    :param max_torque_nm: external, of any joint; the control box stops the arm beyond (collision behaviour)
    :param max_force_n: external, along any axis of the tool; likewise
    :param tool_position_m: (3,) of the tool centre point in the flange's frame: between the fingertips. The default is
        a 2F-85 on its standard coupling; measure yours
    :param tool_quaternion_xyzw: (4,) of the tool in the flange's frame; the fingers open along the tool's y. The
        default is how Franka's own hand sits
    :param arrival_tolerance_m: ``move`` ends this close to its goal. An arm on springs never comes all the way
    :param arrival_timeout_s: how long ``move`` waits for that beyond its duration
    :raises ValueError: a value that makes no sense; says which
    """

    realtime: Literal["enforce", "ignore"] = "enforce"
    control_hz: float = 10.0
    deciding_s: float = 0.02
    translational_stiffness: float = 1000.0
    rotational_stiffness: float = 60.0
    position_error_clip_m: float = 0.04
    max_torque_nm: float = 40.0
    max_force_n: float = 60.0
    tool_position_m: tuple[float, float, float] = (0.0, 0.0, 0.172)
    tool_quaternion_xyzw: tuple[float, float, float, float] = field(
        default=(0.0, 0.0, -float(np.sin(np.pi / 8)), float(np.cos(np.pi / 8)))
    )
    arrival_tolerance_m: float = 0.02
    arrival_timeout_s: float = 3.0

    def __post_init__(self) -> None:
        if self.realtime not in ("enforce", "ignore"):
            raise ValueError(f"`realtime` is {self.realtime!r}; it must be 'enforce' or 'ignore'")
        for name in _POSITIVE:
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` is {value!r}; it must be a finite number above 0")
        period_s = 1 / self.control_hz
        if not 0 <= self.deciding_s < period_s:
            raise ValueError(f"`deciding_s` is {self.deciding_s}; it is a part of a period, of {period_s} s")
        if np.shape(self.tool_position_m) != (3,) or not np.isfinite(self.tool_position_m).all():
            raise ValueError(f"`tool_position_m` is {self.tool_position_m!r}; it must be 3 finite numbers")
        quaternion_xyzw = self.tool_quaternion_xyzw
        if np.shape(quaternion_xyzw) != (4,) or not abs(np.linalg.norm(quaternion_xyzw) - 1) < 1e-3:
            raise ValueError(
                f"`tool_quaternion_xyzw` is {quaternion_xyzw!r}; it must be 4 numbers, (x, y, z, w), of unit length"
            )
