"""The way of a reset: up, over, down."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sb3_q2rl.envs.franka.robot import Command, RobotState
from sb3_q2rl.envs.franka.rotations import angle_between, from_rotation_vector, inverse, product, to_rotation_vector
from sb3_q2rl.envs.franka.safety import Limits, nearest_inside

# So little to the side, and so little turned, is a straight way up or down
ASIDE_M, TURNED_RAD = 0.002, 0.02


class Waypoint(NamedTuple):
    """
    :param position_m: (3,)
    :param quaternion_xyzw: (4,)
    """

    position_m: np.ndarray
    quaternion_xyzw: np.ndarray


def reset_path(state: RobotState, goal: Command, limits: Limits) -> list[Waypoint]:
    """
    Lift, cross the box at ``crossing_height_m`` (or higher, if the arm is), turn on the way, and come down. All of it
    lies in the box: the box is convex, and so are tilt and yaw.

    :param state: where the arm is
    :param goal: where it shall go
    :param limits: the limits
    :return: the corners of the way, without its beginning
    """
    here = nearest_inside(state.position_m, state.quaternion_xyzw, limits)
    there = Waypoint(*nearest_inside(goal.position_m, goal.quaternion_xyzw, limits))
    aside_m = np.linalg.norm((there.position_m - here[0])[:2])
    if aside_m < ASIDE_M and angle_between(there.quaternion_xyzw, here[1]) < TURNED_RAD:
        return [there]
    height = max(limits.crossing_height_m, here[0][2])
    above_here = Waypoint(np.array([*here[0][:2], height]), here[1])
    above_there = Waypoint(np.array([*there.position_m[:2], height]), there.quaternion_xyzw)
    return [above_here, above_there, there]


def travel_s(a: Waypoint, b: Waypoint, limits: Limits) -> float:
    """
    :param a: from
    :param b: to
    :param limits: the speeds of resets
    :return: how long the way takes
    """
    way_m = np.linalg.norm(b.position_m - a.position_m)
    turn_rad = angle_between(b.quaternion_xyzw, a.quaternion_xyzw)
    return float(max(way_m / limits.travel_speed_m_s, turn_rad / limits.travel_speed_rad_s))


def towards(a: Waypoint, b: Waypoint, period_s: float, limits: Limits) -> Waypoint:
    """
    :param a: from
    :param b: to
    :param period_s: how long to go
    :param limits: the speeds of resets
    :return: where that leads, b at most
    """
    return _between(a, b, min(1.0, period_s / max(travel_s(a, b, limits), 1e-9)))


def led_by(state: RobotState, place: Waypoint, limits: Limits) -> Waypoint:
    """
    :param state: where the arm is
    :param place: where the target shall be
    :param limits: how far ahead of the arm it may be
    :return: the place, or as much of the way from the arm to it as ``max_lead_m`` and ``max_lead_rad`` allow
    """
    here = Waypoint(state.position_m, state.quaternion_xyzw)
    way_m = float(np.linalg.norm(place.position_m - here.position_m))
    turn_rad = float(angle_between(place.quaternion_xyzw, here.quaternion_xyzw))
    part = min(1.0, limits.max_lead_m / max(way_m, 1e-9), limits.max_lead_rad / max(turn_rad, 1e-9))
    return _between(here, place, part)


def _between(a: Waypoint, b: Waypoint, part: float) -> Waypoint:
    turn = to_rotation_vector(product(b.quaternion_xyzw, inverse(a.quaternion_xyzw)))
    quaternion = product(from_rotation_vector(part * turn), a.quaternion_xyzw)
    return Waypoint(a.position_m + part * (b.position_m - a.position_m), quaternion)
