"""No command leaves the limits: a hundred thousand random ones, from poses inside and outside."""

from dataclasses import replace

import numpy as np
import pytest

from sb3_q2rl.envs.franka.robot import Command, RobotState
from sb3_q2rl.envs.franka.rotations import (
    TOOL_DOWN_XYZW,
    angle_between,
    from_rotation_vector,
    from_tilt_and_yaw,
    product,
    to_rotation_vector,
    to_tilt_and_yaw,
)
from sb3_q2rl.envs.franka.safety import Limits, fault_of, limit_command, outside

N = 100_000
LIMITS = Limits((0.3, -0.2, 0.02), (0.6, 0.2, 0.3), max_tilt_rad=0.3, max_yaw_rad=0.8)
HOME = np.array(TOOL_DOWN_XYZW)
TOLERANCE = 1e-9


def state_at(position, quaternion=HOME, **changes) -> RobotState:
    still = np.zeros(7)
    state = RobotState(0.0, np.asarray(position, float), np.asarray(quaternion, float), 0.04, np.zeros(6), still, still)
    return replace(state, **changes)


def random_quaternions(rng: np.random.Generator, n: int) -> np.ndarray:
    """Uniform over all rotations, both signs."""
    quaternions = rng.normal(size=(n, 4))
    return quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)


def random_cases(seed: int, spread: float) -> tuple[RobotState, Command, Command]:
    """Arms and last targets that lie in the box if ``spread`` is 1, else up to so many times further out."""
    rng = np.random.default_rng(seed)
    centre, half = (np.array(LIMITS.high_m) + LIMITS.low_m) / 2, (np.array(LIMITS.high_m) - LIMITS.low_m) / 2
    tilt = rng.normal(size=(N, 2))
    tilt *= (spread * LIMITS.max_tilt_rad * rng.uniform(size=N) / np.linalg.norm(tilt, axis=1))[:, None]
    yaw = spread * LIMITS.max_yaw_rad * rng.uniform(-1, 1, N)
    quaternion = from_tilt_and_yaw(np.column_stack([tilt, yaw]), HOME) * rng.choice([-1.0, 1.0], (N, 1))
    position = centre + spread * half * rng.uniform(-1, 1, (N, 3))
    state = state_at(position, quaternion)
    last = Command(
        position + rng.uniform(-0.1, 0.1, (N, 3)),
        product(from_rotation_vector(rng.uniform(-0.3, 0.3, (N, 3))), quaternion),
        rng.uniform(0, 0.085, N),
    )
    if spread == 1:
        last = Command(np.clip(last.position_m, LIMITS.low_m, LIMITS.high_m), last.quaternion_xyzw, 0.0)
        last = replace(last, quaternion_xyzw=random_inside(rng))
    far = rng.choice([0.01, 0.1, 10.0, 1e200], (N, 1))
    wanted = Command(position + far * rng.normal(size=(N, 3)), random_quaternions(rng, N), rng.normal(size=N))
    return state, last, wanted


def random_inside(rng: np.random.Generator) -> np.ndarray:
    tilt = rng.uniform(-0.21, 0.21, (N, 2))
    return from_tilt_and_yaw(np.column_stack([tilt, rng.uniform(-0.8, 0.8, N)]), HOME)


def tool_tilt(quaternion: np.ndarray) -> np.ndarray:
    """The angle between the tool's z and straight down, from the rotation matrix's last entry."""
    x, y = quaternion[..., 0], quaternion[..., 1]
    return np.arccos(np.clip(-(1 - 2 * (x**2 + y**2)), -1, 1))


@pytest.mark.parametrize("spread", [1.0, 1.2, 4.0])
def test_no_command_leaves_the_limits(spread):
    state, last, wanted = random_cases(seed=int(spread * 10), spread=spread)
    sent = limit_command(state, last, wanted, LIMITS)
    assert (sent.position_m >= np.array(LIMITS.low_m)).all()
    assert (sent.position_m <= np.array(LIMITS.high_m)).all()
    np.testing.assert_allclose(np.linalg.norm(sent.quaternion_xyzw, axis=1), 1, atol=TOLERANCE)
    # arccos is coarse near 0: a cosine of 1 - 1e-16 is 1.5e-8 rad
    assert tool_tilt(sent.quaternion_xyzw).max() <= LIMITS.max_tilt_rad + 1e-7
    assert np.abs(to_tilt_and_yaw(sent.quaternion_xyzw, HOME)[:, 2]).max() <= LIMITS.max_yaw_rad + TOLERANCE
    assert ((sent.gripper_width_m >= 0) & (sent.gripper_width_m <= LIMITS.max_gripper_width_m)).all()
    # never further ahead of the arm than the spring may be drawn, from the nearest place inside
    inside = np.clip(state.position_m, LIMITS.low_m, LIMITS.high_m)
    assert np.linalg.norm(sent.position_m - inside, axis=1).max() <= LIMITS.max_lead_m + TOLERANCE
    again = limit_command(state, last, sent, LIMITS)
    np.testing.assert_allclose(again.position_m, sent.position_m, atol=TOLERANCE)
    assert angle_between(again.quaternion_xyzw, sent.quaternion_xyzw).max() < 1e-7


def test_steps_from_a_target_near_the_arm_are_short():
    """In the sense of the shortest rotation, whatever the signs of the quaternions."""
    state, last, wanted = random_cases(seed=1, spread=1.0)
    last = limit_command(state, last, last, LIMITS)  # the lead is kept, so there is nothing to slacken
    sent = limit_command(state, last, wanted, LIMITS)
    steps = np.linalg.norm(sent.position_m - last.position_m, axis=1)
    turns = angle_between(sent.quaternion_xyzw, last.quaternion_xyzw)
    assert steps.max() <= LIMITS.max_step_m + TOLERANCE
    assert turns.max() <= LIMITS.max_step_rad + 1e-7
    assert steps.max() > 0.99 * LIMITS.max_step_m
    assert turns.max() > 0.99 * LIMITS.max_step_rad
    # ahead of the arm by the spring's limit at most, with the shortest rotation, too
    assert angle_between(sent.quaternion_xyzw, state.quaternion_xyzw).max() <= LIMITS.max_lead_rad + 1e-7


def test_what_is_allowed_is_left_alone():
    state, last, _ = random_cases(seed=2, spread=1.0)
    last = limit_command(state, last, last, LIMITS)
    rng = np.random.default_rng(2)
    near = Command(
        last.position_m + rng.uniform(-0.001, 0.001, (N, 3)),
        product(from_rotation_vector(rng.uniform(-0.01, 0.01, (N, 3))), last.quaternion_xyzw),
        last.gripper_width_m,
    )
    sent = limit_command(state, last, near, LIMITS)
    in_box = ((near.position_m >= LIMITS.low_m) & (near.position_m <= LIMITS.high_m)).all(axis=1)
    close = np.linalg.norm(near.position_m - state.position_m, axis=1) <= LIMITS.max_lead_m
    kept = np.linalg.norm(sent.position_m - near.position_m, axis=1) < TOLERANCE
    np.testing.assert_array_equal(kept, in_box & close)
    tilt_and_yaw, measured = (to_tilt_and_yaw(x.quaternion_xyzw, HOME) for x in (near, state))
    upright = np.linalg.norm(tilt_and_yaw[:, :2], axis=1) <= LIMITS.max_tilt_rad
    upright &= np.abs(tilt_and_yaw[:, 2]) <= LIMITS.max_yaw_rad
    ahead = tilt_and_yaw - measured
    close = np.linalg.norm(ahead[:, :2], axis=1) + np.abs(ahead[:, 2]) <= LIMITS.max_lead_rad
    turned = angle_between(sent.quaternion_xyzw, near.quaternion_xyzw) < 1e-7
    assert turned[upright & close].all()
    assert 0.1 < (upright & close).mean() < 0.9
    assert 0.1 < kept.mean() < 0.9


def test_an_arm_outside_is_led_inwards_only():
    state, last, wanted = random_cases(seed=3, spread=2.0)
    sent = limit_command(state, last, wanted, LIMITS)
    inside = np.clip(state.position_m, LIMITS.low_m, LIMITS.high_m)
    out = np.linalg.norm(state.position_m - inside, axis=1)
    # the way to the target, where the arm is outside in a coordinate, leads towards the box in it
    outward = (sent.position_m - state.position_m) * np.sign(state.position_m - inside)
    assert (out > 0).sum() > N / 2
    assert outward.max() <= 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_as_it_was(bad):
    last = Command(np.array([0.4, 0.0, 0.2]), HOME, 0.03)
    sent = limit_command(state_at([0.4, 0, 0.2]), last, Command(np.full(3, bad), np.full(4, bad), bad), LIMITS)
    np.testing.assert_allclose(sent.position_m, last.position_m)
    assert angle_between(sent.quaternion_xyzw, HOME) < 1e-9
    assert sent.gripper_width_m == last.gripper_width_m
    null = limit_command(state_at([0.4, 0, 0.2]), last, replace(last, quaternion_xyzw=np.zeros(4)), LIMITS)
    assert angle_between(null.quaternion_xyzw, HOME) < 1e-9


def test_signs_and_antipodes():
    state, last = state_at([0.4, 0, 0.2]), Command(np.array([0.4, 0.0, 0.2]), HOME, 0.0)
    turned = product(from_rotation_vector(np.array([0.05, 0.1, 0.1])), HOME)
    both = [limit_command(state, last, replace(last, quaternion_xyzw=sign * turned), LIMITS) for sign in (1, -1)]
    np.testing.assert_allclose(*[abs(command.quaternion_xyzw) for command in both], atol=1e-12)
    assert angle_between(both[0].quaternion_xyzw, turned) < 1e-7
    negative = limit_command(state, replace(last, quaternion_xyzw=-HOME), replace(last, quaternion_xyzw=HOME), LIMITS)
    assert angle_between(negative.quaternion_xyzw, HOME) < 1e-7
    # upside down, and half a turn of yaw either way: the longest rotations there are
    for vector in ([np.pi, 0, 0], [0, np.pi, 0], [0, 0, np.pi], [0, 0, -np.pi]):
        opposite = product(from_rotation_vector(np.array(vector)), HOME)
        sent = limit_command(state, last, replace(last, quaternion_xyzw=opposite), LIMITS)
        assert angle_between(sent.quaternion_xyzw, HOME) <= LIMITS.max_step_rad + 1e-7
        assert tool_tilt(sent.quaternion_xyzw) <= LIMITS.max_tilt_rad + 1e-7


def test_rotations_agree_with_scipy():
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    rng = np.random.default_rng(4)
    a, b = random_quaternions(rng, 1000), random_quaternions(rng, 1000)
    theirs = rotation.from_quat(a) * rotation.from_quat(b)
    assert (theirs.inv() * rotation.from_quat(product(a, b))).magnitude().max() < 1e-12
    np.testing.assert_allclose(to_rotation_vector(a), rotation.from_quat(a).as_rotvec(), atol=1e-12)
    np.testing.assert_allclose(
        angle_between(a, b), (rotation.from_quat(a) * rotation.from_quat(b).inv()).magnitude(), atol=1e-7
    )
    tilt_and_yaw = to_tilt_and_yaw(a, HOME)
    assert angle_between(from_tilt_and_yaw(tilt_and_yaw, HOME), a).max() < 1e-7
    z = rotation.from_quat(a).apply([0, 0, 1])
    np.testing.assert_allclose(np.linalg.norm(tilt_and_yaw[:, :2], axis=1), np.arccos(-z[:, 2]), atol=1e-7)


def test_tilt_and_yaw_bound_the_rotation():
    rng = np.random.default_rng(5)
    ends = [np.column_stack([rng.uniform(-1, 1, (N, 2)), rng.uniform(-3, 3, N)]) for _ in range(2)]
    turns = angle_between(*[from_tilt_and_yaw(end, HOME) for end in ends])
    change = ends[0] - ends[1]
    assert (turns <= np.linalg.norm(change[:, :2], axis=1) + np.abs(change[:, 2]) + 1e-7).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position_m": np.array([0.4, np.nan, 0.2])}, "position_m"),
        ({"quaternion_xyzw": np.array([0.5, 0.0, 0.0, 0.0])}, "unit length"),
        ({"wrench": np.array([0.0, 60.0, 30.0, 0.0, 0.0, 0.0])}, "67.1 N"),
        ({"wrench": np.array([0.0, 0.0, 0.0, 0.0, 0.0, -11.0])}, "11.0 N m"),
        ({"joint_velocities_rad_s": np.array([0, 0, 0, -2.1, 0, 0, 0])}, "2.10 rad/s"),
        ({"time_s": 99.7}, "0.30 s old"),
    ],
)
def test_faults(changes, words):
    assert fault_of(state_at([0.4, 0, 0.2], time_s=99.9), 100.0, LIMITS) is None
    fault = fault_of(state_at([0.4, 0, 0.2], **{"time_s": 99.9, **changes}), 100.0, LIMITS)
    assert fault is not None
    assert words in fault


def test_a_simulators_data_are_never_old():
    assert fault_of(state_at([0.4, 0, 0.2]), None, LIMITS) is None


def test_how_far_outside():
    turned = from_tilt_and_yaw(np.array([0.0, 0.4, 1.0]), HOME)
    off_m, off_rad = outside(state_at([0.25, 0.0, 0.3], turned), LIMITS)
    assert off_m == pytest.approx(0.05)
    assert off_rad == pytest.approx(0.1 + 0.2)
    assert outside(state_at([0.4, 0.0, 0.3]), LIMITS) == (0.0, pytest.approx(0.0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"low_m": (0.7, 0, 0)}, "`low_m` is above `high_m` in x"),
        ({"low_m": (0.0, 0.0)}, "expected 3 finite numbers"),
        ({"max_step_m": -0.1}, "a limit is 0 or above"),
        ({"travel_speed_m_s": 0}, "`travel_speed_m_s` is 0: expected more than 0"),
        ({"travel_speed_rad_s": 0.0}, "`travel_speed_rad_s` is 0.0: expected more than 0"),
        ({"max_force_n": float("nan")}, "expected a finite number"),
        ({"max_yaw_rad": 3.1}, "yaw jumps to -pi"),
        ({"home_xyzw": (0.0, 0.0, 0.0, 1.0)}, "points straight down"),
    ],
)
def test_limits_that_make_no_sense(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(LIMITS, **changes)
