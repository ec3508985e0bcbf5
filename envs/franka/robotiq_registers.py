"""What a Robotiq 2F-85's Modbus registers mean (Robotiq's manual, "Control", has the same tables)."""

from __future__ import annotations

from dataclasses import dataclass

from sb3_q2rl.envs.franka.robot import RobotError

OPEN_WIDTH_M = 0.085
# Positions that the gripper reports when it is open and closed; a request for 255 presses harder than one for 230
OPEN_POSITION, CLOSED_POSITION, PRESS_POSITION = 3, 230, 255
SPEED_RANGE_M_S = (0.020, 0.150)
FORCE_RANGE_N = (20.0, 235.0)

DEVICE_ID, BAUD_RATE = 9, 115200
OUTPUT_REGISTER, INPUT_REGISTER = 1000, 2000
ACTIVATE, GO = 0x01, 0x08
ACTIVATED, MOVING, HOLDING = 3, 0, (1, 2)

# Fault codes of the manual: meaning, what to do
FAULTS = {
    0x05: ("the action was delayed until the activation is complete", "call `recover()`"),
    0x07: ("it is not activated", "call `recover()`"),
    0x08: ("it is too hot", "let it cool down"),
    0x09: ("it got no message for a second, or is still starting", "check the cable, then call `recover()`"),
    0x0A: ("its voltage is too low", "check the 24 V supply, then call `recover()`"),
    0x0B: ("the automatic release is in progress", "wait until the fingers are open, then call `recover()`"),
    0x0C: ("it has an internal fault", "switch it off and on; if the fault stays, ask Robotiq"),
    0x0D: ("the activation failed", "take everything out of the fingers' way, then call `recover()`"),
    0x0E: ("its current was too high", "look what blocks the fingers, then call `recover()`"),
    0x0F: ("the automatic release is complete", "call `recover()`"),
}
_NEED_A_PERSON = (0x08, 0x0C)


@dataclass(frozen=True)
class GripperStatus:
    """
    :param time_s: when it was read (``time.monotonic``)
    :param is_active: the activation is complete
    :param motion: 0 moving, 1 stopped by an object while opening, 2 while closing, 3 at the requested position
    :param fault: 0 or one of ``FAULTS``
    :param position: 0 to 255
    """

    time_s: float
    is_active: bool
    motion: int
    fault: int
    position: int


def parse_status(registers: list[int], time_s: float) -> GripperStatus:
    """
    :param registers: the three input registers
    :param time_s: when they were read
    """
    status = registers[0] >> 8
    return GripperStatus(
        time_s=time_s,
        is_active=(status >> 4) & 3 == ACTIVATED,
        motion=(status >> 6) & 3,
        fault=(registers[1] >> 8) & 0x0F,
        position=registers[2] >> 8,
    )


def position_of(width_m: float) -> int:
    """
    :param width_m: between the fingertips
    :return: what to request; 0 m is pressed shut, so that thin things are held
    """
    if width_m <= 0:
        return PRESS_POSITION
    fraction_closed = 1 - min(width_m, OPEN_WIDTH_M) / OPEN_WIDTH_M
    return round(OPEN_POSITION + fraction_closed * (CLOSED_POSITION - OPEN_POSITION))


def width_of(position: int) -> float:
    """
    :param position: as the gripper reports it
    :return: m between the fingertips
    """
    fraction_closed = (position - OPEN_POSITION) / (CLOSED_POSITION - OPEN_POSITION)
    return OPEN_WIDTH_M * (1 - min(max(fraction_closed, 0.0), 1.0))


def byte_of(name: str, value: float, low: float, high: float) -> int:
    """
    :param name: of the parameter, for the message
    :param value: speed or force
    :param low: what the byte 0 stands for
    :param high: what 255 stands for
    :raises ValueError: out of this range
    """
    if not low <= value <= high:
        raise ValueError(f"`{name}` is {value}; a 2F-85 can do {low} to {high}")
    return round(255 * (value - low) / (high - low))


def fault_error(fault: int) -> RobotError:
    """
    :param fault: code
    :return: with its meaning, to be raised
    """
    meaning, advice = FAULTS.get(fault, (f"it reports fault {fault:#04x}", "see Robotiq's manual"))
    return RobotError(
        f"The gripper stopped: {meaning} (fault {fault:#04x}). What to do: {advice}.", fault not in _NEED_A_PERSON
    )
