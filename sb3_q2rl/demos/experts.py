"""Which environment has an expert."""

from __future__ import annotations

from sb3_q2rl.demos.can import can
from sb3_q2rl.demos.expert import Expert
from sb3_q2rl.demos.franka_kitting import franka_kitting
from sb3_q2rl.demos.franka_peg import franka_peg
from sb3_q2rl.demos.franka_pipe import franka_pipe
from sb3_q2rl.demos.kitchen import N_ARM_JOINTS, kitchen
from sb3_q2rl.demos.lift import lift
from sb3_q2rl.demos.square import square

# A change of position and one of orientation
POSE_DIM = 6

EXPERTS: dict[str, Expert] = {
    "RobomimicLift-v0": Expert(lift, POSE_DIM),
    "RobomimicLiftImage-v0": Expert(lift, POSE_DIM),
    "RobomimicCan-v0": Expert(can, POSE_DIM),
    "RobomimicCanImage-v0": Expert(can, POSE_DIM),
    "RobomimicSquare-v0": Expert(square, POSE_DIM),
    "RobomimicSquareImage-v0": Expert(square, POSE_DIM),
    "FrankaKitchenComplete-v0": Expert(kitchen, N_ARM_JOINTS),
    "FrankaPegInsertion-v0": Expert(franka_peg, POSE_DIM),
    "FrankaPegInsertionImage-v0": Expert(franka_peg, POSE_DIM),
    "FrankaPipeAssembly-v0": Expert(franka_pipe, POSE_DIM),
    "FrankaPipeAssemblyImage-v0": Expert(franka_pipe, POSE_DIM),
    "FrankaKitting-v0": Expert(franka_kitting, POSE_DIM),
    "FrankaKittingImage-v0": Expert(franka_kitting, POSE_DIM),
    "FrankaKittingModified-v0": Expert(franka_kitting, POSE_DIM),
    "FrankaKittingModifiedImage-v0": Expert(franka_kitting, POSE_DIM),
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
