"""Data sets that come with the package, found by name."""

from __future__ import annotations

from collections.abc import Callable

from sb3_q2rl.assets import ASSETS
from sb3_q2rl.data.demonstrations import Demonstrations
from sb3_q2rl.data.npz import load_npz

DOOR_HINGE_OBS_INDEX = 28
DOOR_OPEN_RAD = 1.35


def adroit_door_human() -> Demonstrations:
    """
    25 human demonstrations of the Adroit door (DAPG, Apache-2.0), under the sparse reward of
    ``AdroitHandDoorBinary-v0``: -5 a step, +5 and terminated once the door stands at 1.35 rad. The people stopped
    early, so only some episodes reach it. 5.6 % of their actions exceed the actuator range and are clipped, as the
    environment itself does. The recorded (dense) reward is in the file.
    """
    recorded = load_npz(ASSETS / "adroit_door_human.npz", clip_actions=True, source="human")
    assert isinstance(recorded.next_observations, type(recorded.actions))
    hinge_rad = recorded.next_observations[:, DOOR_HINGE_OBS_INDEX]
    return recorded.with_success_rewards(hinge_rad >= DOOR_OPEN_RAD, step_reward=-5.0, success_reward=5.0)


def adroit_pen_dapg() -> Demonstrations:
    """
    50 episodes in which the DAPG expert solved the Adroit pen, under the reward of ``AdroitHandPenBinary-v0``: -5 a
    step, +5 and terminated on success. The BC policy of this name was cloned from them.
    """
    return load_npz(ASSETS / "adroit_pen_dapg.npz")


def robomimic_lift_scripted() -> Demonstrations:
    """
    16 episodes of the scripted expert, with action noise 0.1, under the reward of ``RobomimicLift-v0``: -1 a step, 4
    and terminated on success. The BC policy ``robomimic-lift`` was cloned from them.
    """
    return load_npz(ASSETS / "robomimic_lift_scripted.npz")


SHIPPED_DEMONSTRATIONS: dict[str, Callable[[], Demonstrations]] = {
    "adroit-door-human": adroit_door_human,
    "adroit-pen-dapg": adroit_pen_dapg,
    "robomimic-lift-scripted": robomimic_lift_scripted,
}
