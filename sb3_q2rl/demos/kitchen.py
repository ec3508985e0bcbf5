"""
A scripted expert for FrankaKitchenComplete: opens the microwave, pushes the kettle to the back, turns the light on and
slides the cabinet open, one generator a sub-task. It reads the simulator's state, not the noisy observations.

World axes: x to the right, y away from the robot, z up. Distances in m, angles in rad, speeds in m a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sb3_q2rl.demos.expert import Actions, Operator, rotation_vector
from sb3_q2rl.demos.ik import damped_least_squares, look_along, shortened, site_jacobian, within_limits
from sb3_q2rl.envs.d4rl import FrankaKitchenCompleteEnv

RIGHT, AWAY, UP = np.eye(3)
OPEN, CLOSE = 1.0, -1.0

N_ARM_JOINTS = 7
# Joints are commanded by drives that are damped springs: about this share of a displacement happens within the step.
FOLLOWED_SHARE = 0.55
# The most that the hand, and any joint, is asked to move in a step of the fastest operator.
FULL_STEP_M, FULL_STEP_RAD = 0.045, 0.15
LONGEST_DISPLACEMENT_RAD = 0.09
LIMIT_MARGIN_RAD = 0.03
# Where the hand is counts more than where it points to.
TASK_WEIGHTS = np.array([1.0, 1.0, 1.0, 0.3, 0.3, 0.3])
DAMPING = 0.05


@dataclass(frozen=True)
class Grip:
    """
    How the hand is held during a movement.

    :param rotation: (3, 3) columns: up to a turn the hand's back, from finger to finger, and where the fingers point to
    :param posture: (7,) joints of the arm to stay near to, rad: there no joint is near a limit during the sub-task
    """

    rotation: np.ndarray
    posture: np.ndarray


def pointing(yaw: float, pitch: float) -> np.ndarray:
    """:return: (3,) where the fingers point to: away from the robot, turned to the right by yaw, downward by pitch"""
    return np.array([np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), -np.sin(pitch)])


class Things:
    """
    What is moved.

    :param env: FrankaKitchenComplete-v0
    """

    def __init__(self, env: FrankaKitchenCompleteEnv) -> None:
        self._data = env.simulator.data

    @property
    def kettle(self) -> np.ndarray:
        """:return: (3,) the middle of its bottom"""
        return self._data.joint("kettle").qpos[:3].copy()

    def site(self, name: str) -> np.ndarray:
        """:return: (3,) e.g. of ``"slide_site"``"""
        return self._data.site(name).xpos.copy()

    def joint(self, name: str) -> float:
        """:return: m or rad, e.g. of ``"microwave"``: 0 is closed, or off"""
        return float(self._data.joint(name).qpos[0])

    def microwave_handle(self, angle: float) -> np.ndarray:
        """:return: (3,) where the handle is when the door has turned by ``angle`` from where it is now"""
        hinge = self._data.joint("microwave").xanchor
        x, y, z = self.site("microhandle_site") - hinge
        cosine, sine = np.cos(angle), np.sin(angle)
        return hinge + np.array([cosine * x - sine * y, sine * x + cosine * y, z])


class Hand:
    """
    The gripper at the end of an arm under joint velocity control, moved by inverse kinematics.

    :param env: FrankaKitchenComplete-v0, which is read and not stepped
    :param operator: how to move
    """

    def __init__(self, env: FrankaKitchenCompleteEnv, operator: Operator) -> None:
        robot = env.simulator.robot_env
        model = robot.model
        self._data, self._operator = robot.data, operator
        self._site = model.site("end_effector").id
        self._full_displacement_rad = robot.act_rng[:N_ARM_JOINTS] * robot.dt
        self._stiffness = model.actuator_gainprm[:N_ARM_JOINTS, 0]
        # The model limits the joints, and the robot of the environment limits what they are told
        limits = np.stack([model.jnt_range[:N_ARM_JOINTS], robot.robot_pos_bound[:N_ARM_JOINTS]])
        self._lowest = limits[..., 0].max(axis=0) + LIMIT_MARGIN_RAD
        self._highest = limits[..., 1].min(axis=0) - LIMIT_MARGIN_RAD

    @property
    def position(self) -> np.ndarray:
        """:return: (3,) between the fingers, 5 cm before their tips"""
        return self._data.site_xpos[self._site].copy()

    @property
    def grip(self) -> Grip:
        """:return: as it is held now"""
        return Grip(self._data.site_xmat[self._site].reshape(3, 3).copy(), self._data.qpos[:N_ARM_JOINTS].copy())

    def move(
        self,
        target: Callable[[], np.ndarray],
        grip: Grip,
        fingers: float,
        until: Callable[[], bool] | None = None,
        tolerance: float = 0.02,
        max_steps: int = 40,
    ) -> Actions:
        """
        Go there.

        :param target: place of the hand, asked before each action, because it may depend on where a thing is by now
        :param grip: how the hand is held
        :param fingers: ``OPEN`` or ``CLOSE``
        :param until: when it ends; by default when the hand is within the tolerance
        :param tolerance: see ``until``
        :param max_steps: when it ends, even if something is in the way
        """
        for _ in range(max_steps):
            way = target() - self.position
            if until() if until else np.linalg.norm(way) < tolerance:
                break
            yield self._action(way, grip, fingers)

    def wait(self, grip: Grip, fingers: float, n_steps: int) -> Actions:
        """
        :param grip: how the hand is held
        :param fingers: ``OPEN`` or ``CLOSE``
        :param n_steps: how long; fingers take about three to close
        """
        place = self.position
        for _ in range(n_steps):
            yield self._action(place - self.position, grip, fingers)

    def pause(self, grip: Grip, fingers: float) -> Actions:
        """Wait for as long as this operator does between two movements."""
        yield from self.wait(grip, fingers, int(self._operator.rng.integers(0, self._operator.pause_steps + 1)))

    def _action(self, way: np.ndarray, grip: Grip, fingers: float) -> np.ndarray:
        speed, held = self._operator.speed, self.grip
        turn = rotation_vector(grip.rotation @ held.rotation.T)
        error = np.concatenate([shortened(way, speed * FULL_STEP_M), shortened(turn, speed * FULL_STEP_RAD)])
        posture = np.clip(0.2 * (grip.posture - held.posture), -0.05, 0.05)
        jacobian = site_jacobian(self._data, self._site, N_ARM_JOINTS)

        def solve(free: np.ndarray) -> np.ndarray:
            return damped_least_squares(jacobian * free, error, DAMPING, TASK_WEIGHTS, posture * free)

        displacement = within_limits(solve, held.posture, self._lowest, self._highest)
        displacement *= min(1.0, speed * LONGEST_DISPLACEMENT_RAD / max(np.abs(displacement).max(), 1e-9))
        # The springs give way to the arm's weight, by so much
        sag = self._data.qfrc_bias[:N_ARM_JOINTS] / self._stiffness
        arm = (displacement / FOLLOWED_SHARE + sag) / self._full_displacement_rad
        return np.clip(np.concatenate([arm, [fingers, fingers]]), -1.0, 1.0).astype(np.float32)


def kitchen(env: FrankaKitchenCompleteEnv, operator: Operator) -> Actions:
    """
    :param env: FrankaKitchenComplete-v0
    :param operator: who moves
    :return: the actions
    """
    hand, things = Hand(env, operator), Things(env)
    for subtask in (open_microwave, push_kettle, turn_light_on, slide_cabinet):
        yield from subtask(hand, things, operator)
    while True:
        yield from hand.wait(hand.grip, CLOSE, n_steps=1)


def open_microwave(hand: Hand, things: Things, operator: Operator) -> Actions:
    """Take the upright handle between the fingers and pull it along its arc."""
    wide_open = -operator.rng.uniform(0.6, 0.72)
    approach = pointing(yaw=-0.3, pitch=operator.rng.uniform(0.4, 0.6))
    grip = Grip(look_along(approach, RIGHT), np.array([-1.3, -1.35, 2.2, -1.35, 0.2, 1.0, 1.4]))
    height = operator.near(0.03 * UP, 0.02) * UP

    def handle(angle: float = 0.0, distance: float = 0.005) -> np.ndarray:
        return things.microwave_handle(angle) + height - distance * approach

    def is_open() -> bool:
        return things.joint("microwave") < wide_open

    def let_go() -> bool:
        return is_open() or bool(np.linalg.norm(hand.position - handle()) > 0.05)

    while not is_open():
        yield from hand.move(lambda: handle(distance=0.1 + operator.hover_m), grip, OPEN, tolerance=0.04)
        yield from hand.move(lambda: handle(), grip, OPEN, tolerance=0.015, max_steps=20)
        yield from hand.wait(grip, CLOSE, 3)
        yield from hand.move(lambda: handle(-0.12), grip, CLOSE, until=let_go)
    yield from hand.wait(grip, OPEN, 2)
    yield from hand.move(lambda: handle(distance=0.15), grip, OPEN, tolerance=0.05, max_steps=10)
    yield from hand.pause(grip, OPEN)


def push_kettle(hand: Hand, things: Things, operator: Operator) -> Actions:
    """Push the kettle's body from the front burner to the back, both fingers at it so that it can't turn."""
    far_enough = operator.rng.uniform(0.58, 0.64)
    approach = pointing(yaw=0.5, pitch=operator.rng.uniform(0.65, 0.85))
    grip = Grip(look_along(approach, np.cross(approach, AWAY)), np.array([-0.9, -1.3, 2.3, -2.3, 0.6, 1.3, 1.6]))
    aside = operator.near(np.zeros(3), 0.01) * RIGHT

    def before(distance: float) -> np.ndarray:
        return things.kettle + aside - (0.13 + distance) * AWAY + 0.09 * UP - 0.05 * approach

    def is_at_the_back() -> bool:
        return things.kettle[1] > far_enough

    while not is_at_the_back():
        yield from hand.move(lambda: before(0.08) + 0.1 * UP, grip, OPEN, tolerance=0.05)
        yield from hand.move(lambda: before(0.04), grip, OPEN, tolerance=0.025)
        yield from hand.move(lambda: before(-0.05), grip, OPEN, until=is_at_the_back)
    yield from hand.move(lambda: before(0.1) + 0.1 * UP, grip, CLOSE, tolerance=0.06, max_steps=10)
    yield from hand.pause(grip, CLOSE)


def turn_light_on(hand: Hand, things: Things, operator: Operator) -> Actions:
    """Push the lever to the left with the closed fingers."""
    far_enough = -operator.rng.uniform(0.48, 0.6)
    grip = Grip(look_along(AWAY, RIGHT), np.array([-1.02, -1.25, 1.35, -2.3, -0.05, 1.8, 1.2]))

    def beside(distance: float) -> np.ndarray:
        return things.site("light_site") - 0.06 * AWAY + distance * RIGHT

    def is_on() -> bool:
        return things.joint("light_switch") < far_enough

    def passed() -> bool:
        return is_on() or hand.position[0] < beside(0.0)[0]

    while not is_on():
        yield from hand.move(lambda: beside(0.1) - (0.06 + operator.hover_m) * AWAY, grip, CLOSE, tolerance=0.05)
        yield from hand.move(lambda: beside(0.07), grip, CLOSE, max_steps=20)
        yield from hand.move(lambda: beside(-0.03), grip, CLOSE, until=passed, max_steps=30)
    yield from hand.move(lambda: beside(0.05) - 0.12 * AWAY, grip, CLOSE, tolerance=0.06, max_steps=10)
    yield from hand.pause(grip, CLOSE)


def slide_cabinet(hand: Hand, things: Things, operator: Operator) -> Actions:
    """Push the door's upright handle to the right with the closed fingers."""
    far_enough = operator.rng.uniform(0.25, 0.35)
    approach = pointing(yaw=0.5, pitch=0.0)
    grip = Grip(look_along(approach, RIGHT), np.array([-1.08, -0.6, 0.8, -2.0, -0.36, 1.5, 0.8]))
    height = operator.near(-0.06 * UP, 0.02) * UP

    def beside(distance: float) -> np.ndarray:
        return things.site("slide_site") + height - 0.05 * approach - distance * RIGHT

    def is_open() -> bool:
        return things.joint("slide_cabinet") > far_enough

    def passed() -> bool:
        return is_open() or hand.position[0] > beside(0.0)[0]

    while not is_open():
        yield from hand.move(lambda: beside(0.1) - (0.06 + operator.hover_m) * AWAY, grip, CLOSE, tolerance=0.05)
        yield from hand.move(lambda: beside(0.08), grip, CLOSE, max_steps=20)
        yield from hand.move(lambda: beside(-0.05), grip, CLOSE, until=passed, max_steps=30)
    yield from hand.move(lambda: beside(0.08) - 0.12 * AWAY, grip, CLOSE, tolerance=0.06, max_steps=10)
