"""What no command may exceed, and what a measurement may not show. Pure functions: the guard calls them, always."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from sb3_q2rl.envs.franka.robot import Command, RobotState
from sb3_q2rl.envs.franka.rotations import TOOL_DOWN_XYZW, from_tilt_and_yaw, length, to_tilt_and_yaw

Point = tuple[float, float, float]
# Far enough from pi, where orientations have no neighbours in tilt and yaw
MAX_TILT_RAD, MAX_YAW_RAD = 2.5, 3.0
Norm = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Limits:
    """
    Positions are those of the tool centre point in the base's frame.

    :param low_m: (3,) corner of the box that the target may not leave
    :param high_m: (3,) the opposite one
    :param max_tilt_rad: between the tool's z and straight down
    :param max_yaw_rad: about the vertical, to either side of ``home_xyzw``
    :param home_xyzw: a tool that points straight down, from which yaw counts
    :param max_step_m: from one target to the next
    :param max_step_rad: the same for the orientation: change of tilt plus change of yaw
    :param max_lead_m: the target may be so far ahead of the measured position. Times the stiffness it is the force that
        the arm can build up against an obstacle
    :param max_lead_rad: the same for the orientation
    :param max_outside_m: a measured position so far out of the box is led back inside; one further off is a fault
    :param max_outside_rad: the same for tilt plus yaw
    :param max_force_n: external force that stops the arm
    :param max_torque_nm: external torque that stops it
    :param max_joint_speed_rad_s: joint speed that stops it
    :param max_gripper_width_m: widest opening that may be asked for
    :param max_state_age_s: an older measurement stops the arm
    :param travel_height_m: z at which a reset crosses the box; None: its top
    :param travel_speed_m_s: of resets
    :param travel_speed_rad_s: of resets
    :param watchdog_s: so long without a command within an episode stops the arm
    :param call_limit_s: a call to the robot that takes so much longer than it should counts as hung
    :param max_approach_m: a reset may begin so far out of the box, e.g. from the arm's home, and leads straight into it
    :param max_recoveries: automatic recoveries within ``recovery_window_s``; then a person is asked
    :param recovery_window_s: see there
    :raises ValueError: not finite, negative, a reset that stands still, or a box that is empty
    """

    low_m: Point
    high_m: Point
    max_tilt_rad: float = 0.25
    max_yaw_rad: float = 0.6
    home_xyzw: tuple[float, float, float, float] = TOOL_DOWN_XYZW
    max_step_m: float = 0.03
    max_step_rad: float = 0.25
    max_lead_m: float = 0.03
    max_lead_rad: float = 0.25
    max_outside_m: float = 0.05
    max_outside_rad: float = 0.3
    max_force_n: float = 60.0
    max_torque_nm: float = 10.0
    max_joint_speed_rad_s: float = 2.0
    max_gripper_width_m: float = 0.085
    max_state_age_s: float = 0.2
    travel_height_m: float | None = None
    travel_speed_m_s: float = 0.1
    travel_speed_rad_s: float = 0.5
    watchdog_s: float = 0.5
    call_limit_s: float = 1.0
    max_approach_m: float = 0.5
    max_recoveries: int = 5
    recovery_window_s: float = 600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            numbers = np.asarray(value, dtype=np.float64)
            lengths = {"low_m": 3, "high_m": 3, "home_xyzw": 4}
            shape = (lengths[field.name],) if field.name in lengths else ()
            if numbers.shape != shape or not np.isfinite(numbers).all():
                expected = f"{shape[0]} finite numbers" if shape else "a finite number"
                raise ValueError(f"`{field.name}` is {value!r}: expected {expected}.")
            if not shape and field.name != "travel_height_m" and numbers < 0:
                raise ValueError(f"`{field.name}` is {value}: a limit is 0 or above.")
            if field.name.startswith("travel_speed") and numbers == 0:
                raise ValueError(f"`{field.name}` is {value}: expected more than 0, or no reset would ever arrive.")
        for axis, low, high in zip("xyz", self.low_m, self.high_m, strict=True):
            if low > high:
                raise ValueError(f"`low_m` is above `high_m` in {axis}: {low} > {high}. Swap them, or mend the box.")
        if self.max_tilt_rad > MAX_TILT_RAD or self.max_yaw_rad > MAX_YAW_RAD:
            raise ValueError(
                f"`max_tilt_rad` is {self.max_tilt_rad} and `max_yaw_rad` {self.max_yaw_rad}: expected at most "
                f"{MAX_TILT_RAD} and {MAX_YAW_RAD}. Near pi a tool points up and has no yaw, and yaw jumps to -pi."
            )
        if abs(np.linalg.norm(self.home_xyzw) - 1) > 1e-6 or np.hypot(*self.home_xyzw[2:]) > 1e-6:
            raise ValueError(
                f"`home_xyzw` is {self.home_xyzw}: expected a quaternion (x, y, z, w) of unit length whose tool points "
                "straight down, so z = w = 0, e.g. (1, 0, 0, 0)."
            )

    @property
    def crossing_height_m(self) -> float:
        """:return: z at which a reset crosses the box"""
        wanted = self.high_m[2] if self.travel_height_m is None else self.travel_height_m
        return float(np.clip(wanted, self.low_m[2], self.high_m[2]))


def limit_command(state: RobotState, last: Command, wanted: Command, limits: Limits) -> Command:
    """
    The nearest allowed target, wherever the arm is and whatever is asked. It always lies in the box and within tilt and
    yaw; it is ahead of the arm by ``max_lead`` at most (of an arm out of the box: ahead of the nearest place inside);
    and no step is longer than ``max_step``. A last target that the arm was pushed away from is first drawn after it,
    which only slackens the spring between them. Limiting a limited command changes nothing.

    :param state: measured; its arrays may have leading batch dimensions, as the commands' may
    :param last: the target before
    :param wanted: anything. What is not finite there stays as it was
    :param limits: the limits
    :return: what may be sent
    """
    # Measured, last and wanted side by side: three times the speed of one after the other
    positions = np.stack(np.broadcast_arrays(state.position_m, last.position_m, wanted.position_m))
    positions[2] = np.where(np.isfinite(positions[2]).all(axis=-1, keepdims=True), positions[2], positions[1])
    anchor, start, goal = np.clip(positions, np.array(limits.low_m), np.array(limits.high_m))
    start, goal = _within(anchor, np.stack([start, goal]), limits.max_lead_m, length)
    position = np.clip(_within(start, goal, limits.max_step_m, length), limits.low_m, limits.high_m)

    home = np.array(limits.home_xyzw)
    wanted_xyzw = _usable(wanted.quaternion_xyzw, last.quaternion_xyzw)
    quaternions = np.stack(np.broadcast_arrays(state.quaternion_xyzw, last.quaternion_xyzw, wanted_xyzw))
    anchor, start, goal = _limit_tilt_and_yaw(to_tilt_and_yaw(quaternions, home), limits)
    start, goal = _within(anchor, np.stack([start, goal]), limits.max_lead_rad, _turn)
    tilt_and_yaw = _within(start, goal, limits.max_step_rad, _turn)

    width = np.where(np.isfinite(wanted.gripper_width_m), wanted.gripper_width_m, last.gripper_width_m)
    width = np.clip(width, 0.0, limits.max_gripper_width_m)
    return Command(position, from_tilt_and_yaw(tilt_and_yaw, home), float(width) if width.ndim == 0 else width)


def fault_of(state: RobotState, now_s: float | None, limits: Limits) -> str | None:
    """
    :param state: measured
    :param now_s: on the clock of ``state.time_s``; None: a simulator, whose data cannot be old
    :param limits: the limits
    :return: why the arm must stop, and what to do; None: it need not
    """
    readings = {field.name: np.asarray(getattr(state, field.name)) for field in fields(state)}
    broken = [name for name, values in readings.items() if not np.isfinite(values).all()]
    if broken:
        return f"the robot measured numbers that are not finite ({', '.join(broken)}). Check its connection and model."
    if abs(np.linalg.norm(state.quaternion_xyzw) - 1.0) > 1e-3:
        return f"the robot measured the quaternion {state.quaternion_xyzw}, which has not unit length."
    if now_s is not None and now_s - state.time_s > limits.max_state_age_s:
        return (
            f"the robot's last measurement is {now_s - state.time_s:.2f} s old (`max_state_age_s` is "
            f"{limits.max_state_age_s}). Check the network, and the load of this computer."
        )
    force, torque = np.linalg.norm(state.wrench[:3]), np.linalg.norm(state.wrench[3:])
    if force > limits.max_force_n or torque > limits.max_torque_nm:
        return (
            f"the external force was {force:.1f} N and {torque:.1f} N m (`max_force_n` is {limits.max_force_n}, "
            f"`max_torque_nm` {limits.max_torque_nm}). See what the arm touches."
        )
    fastest = np.abs(state.joint_velocities_rad_s).max()
    if fastest > limits.max_joint_speed_rad_s:
        return (
            f"a joint moved at {fastest:.2f} rad/s (`max_joint_speed_rad_s` is {limits.max_joint_speed_rad_s}). "
            "Was the arm pushed, or is it near a singularity?"
        )
    return None


def nearest_inside(
    position_m: np.ndarray, quaternion_xyzw: np.ndarray, limits: Limits
) -> tuple[np.ndarray, np.ndarray]:
    """
    :param position_m: (3,)
    :param quaternion_xyzw: (4,)
    :param limits: the limits
    :return: both, within box, tilt and yaw
    """
    home = np.array(limits.home_xyzw)
    tilt_and_yaw = _limit_tilt_and_yaw(to_tilt_and_yaw(quaternion_xyzw, home), limits)
    return np.clip(position_m, limits.low_m, limits.high_m), from_tilt_and_yaw(tilt_and_yaw, home)


def outside(state: RobotState, limits: Limits) -> tuple[float, float]:
    """
    :param state: measured
    :param limits: the limits
    :return: how far the tool is out of the box in m, and out of tilt and yaw in rad; 0 inside
    """
    tilt_and_yaw = to_tilt_and_yaw(state.quaternion_xyzw, np.array(limits.home_xyzw))
    off_m = length(state.position_m - np.clip(state.position_m, limits.low_m, limits.high_m))
    return float(off_m[0]), float(_turn(tilt_and_yaw - _limit_tilt_and_yaw(tilt_and_yaw, limits))[0])


def _limit_tilt_and_yaw(tilt_and_yaw: np.ndarray, limits: Limits) -> np.ndarray:
    tilt, yaw = tilt_and_yaw[..., :2], tilt_and_yaw[..., 2:]
    tilt = _within(np.zeros(2), tilt, limits.max_tilt_rad, length)
    return np.concatenate([tilt, np.clip(yaw, -limits.max_yaw_rad, limits.max_yaw_rad)], axis=-1)


def _within(centre: np.ndarray, point: np.ndarray, radius: float, norm: Norm) -> np.ndarray:
    """The point, drawn straight towards the centre until it is no further off than the radius."""
    away = point - centre
    distance = norm(away)
    return np.where(distance > radius, centre + away * (radius / np.maximum(distance, 1e-12)), point)


def _turn(tilt_and_yaw: np.ndarray) -> np.ndarray:
    """At least the angle of the rotation between two orientations that differ by so much, see to_tilt_and_yaw."""
    return length(tilt_and_yaw[..., :2]) + np.abs(tilt_and_yaw[..., 2:])


def _usable(wanted: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Of unit length; the last one where what is wanted is no orientation."""
    largest = np.abs(wanted).max(axis=-1, keepdims=True)
    sound = np.isfinite(largest) & (largest > 1e-9)
    scaled = np.where(sound, wanted / np.where(sound, largest, 1.0), last)
    return scaled / length(scaled)
