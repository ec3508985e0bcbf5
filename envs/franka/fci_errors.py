"""What libfranka's errors mean to the person beside the robot."""

from __future__ import annotations

import re

from sb3_q2rl.envs.franka.robot import RobotError

# (what libfranka says, what to do, whether an automatic recovery may try again); the first that fits is taken
_ADVICE: tuple[tuple[str, str, bool], ...] = (
    (
        r"did not arrive",
        "Something holds the arm, or the goal is out of its reach. Clear the way; `recover()`, then try again.",
        True,
    ),
    (r"stopped by `stop\(\)`", "Nothing is wrong with the arm; the next move starts it again.", True),
    (
        r"realtime capabilities",
        "Boot a kernel with PREEMPT_RT, or pass `realtime='ignore'` (`--realtime ignore`) and accept that the arm "
        "stops when this computer is late.",
        False,
    ),
    (
        r"(?i)incompatible",
        "The robot's system version and libfranka do not fit: see Franka's compatibility table, then install the "
        "franky-control built for it.",
        False,
    ),
    (
        r"(?i)user stop|emergency",
        "Somebody pressed the stop button. Look at the arm, release the button, unlock the joints and activate FCI in "
        "Desk.",
        False,
    ),
    (
        r"communication_constraints_violation",
        "This computer was late: use a PREEMPT_RT kernel, a direct cable, the performance governor, and no other load.",
        True,
    ),
    (
        r"(?i)reflex|_violation|collision",
        "The arm stopped itself: it touched something, or a limit. Look, clear the way, then go on; if nothing is in "
        "the way, compare `max_force_n` and `max_torque_nm` with the task.",
        True,
    ),
    (
        r"(?i)current mode|not possible|rejected",
        "Unlock the joints and activate FCI in Desk; only one program may control the arm; end the others.",
        False,
    ),
    (
        r"(?i)refused|no route|unreachable|unknown host|not known|host not found",
        "Check `host`, the cable, this computer's address, and that FCI is activated in Desk.",
        True,
    ),
    (
        r"(?i)timeout|udp|tcp|net exception|connection",
        "The control box fell silent. Check the cable and that the control box runs; `recover()` connects anew.",
        True,
    ),
)


def robot_error(doing: str, kind: str, text: str) -> RobotError:
    """
    :param doing: what was tried, e.g. "command"
    :param kind: the exception's class name
    :param text: its message
    :return: to be raised
    """
    said = " ".join(text.removeprefix("libfranka: ").split()).rstrip(".") or kind
    for pattern, advice, recoverable in _ADVICE:
        if re.search(pattern, f"{kind} {text}"):
            return RobotError(f"The arm failed in `{doing}`: {said}. {advice}", recoverable)
    return RobotError(
        f"The arm failed in `{doing}`: {kind}: {said}. Look at the arm and at Desk; `recover()` tries again.", True
    )
