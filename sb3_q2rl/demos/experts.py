"""Which environment has an expert."""

from __future__ import annotations

from sb3_q2rl.demos.can import can
from sb3_q2rl.demos.expert import Expert
from sb3_q2rl.demos.lift import lift
from sb3_q2rl.demos.square import square

EXPERTS: dict[str, Expert] = {
    "RobomimicLift-v0": lift,
    "RobomimicLiftImage-v0": lift,
    "RobomimicCan-v0": can,
    "RobomimicCanImage-v0": can,
    "RobomimicSquare-v0": square,
    "RobomimicSquareImage-v0": square,
}


def find_expert(env_id: str) -> Expert:
    """
    :param env_id: environment id, e.g. ``"RobomimicLift-v0"``
    :return: its expert
    :raises ValueError: nobody has written one
    """
    if env_id not in EXPERTS:
        raise ValueError(f"`env` {env_id!r} has no scripted expert. Environments that have one: {', '.join(EXPERTS)}")
    return EXPERTS[env_id]
