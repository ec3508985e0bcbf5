"""Inverse kinematics: against MuJoCo's own Jacobian, and against what least squares promises."""

import numpy as np
import pytest

from sb3_q2rl.demos.ik import damped_least_squares, look_along, shortened, site_jacobian, within_limits

RNG = np.random.default_rng(0)
ARM = """
<mujoco>
  <worldbody>
    <body pos="0.1 0 0.3"> <joint axis="0 0 1"/> <geom size="0.05"/>
      <body pos="0 0.4 0"> <joint axis="1 0 0"/> <geom size="0.05"/>
        <body pos="0.1 0.3 0.1" euler="20 30 40"> <joint axis="0 1 1"/> <geom size="0.05"/>
          <site name="hand" pos="0.1 0.2 0.05"/>
        </body>
      </body>
    </body>
    <body> <freejoint/> <geom size="0.05"/> </body>
  </worldbody>
</mujoco>
"""


def test_jacobian_is_mujocos() -> None:
    mujoco = pytest.importorskip("mujoco", reason="needs the extra `d4rl`")
    model = mujoco.MjModel.from_xml_string(ARM)
    data = mujoco.MjData(model)
    data.qpos[:3] = 0.4, -0.7, 1.1
    mujoco.mj_forward(model, data)
    position, rotation = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, position, rotation, 0)
    expected = np.concatenate([position, rotation])[:, :3]
    np.testing.assert_allclose(site_jacobian(data, 0, n_joints=3), expected, atol=1e-12)


def test_without_damping_the_error_goes_and_the_posture_moves_only_the_rest() -> None:
    jacobian, error = RNG.normal(size=(6, 7)), RNG.normal(size=6)
    weights = np.array([1.0, 1.0, 1.0, 0.3, 0.3, 0.3])
    least = damped_least_squares(jacobian, error, 0.0, weights, posture=np.zeros(7))
    np.testing.assert_allclose(least, np.linalg.pinv(jacobian) @ error, atol=1e-9)
    posture = RNG.normal(size=7)
    displacement = damped_least_squares(jacobian, error, 0.0, weights, posture)
    np.testing.assert_allclose(jacobian @ displacement, error, atol=1e-9)
    null_space = np.eye(7) - np.linalg.pinv(jacobian) @ jacobian
    np.testing.assert_allclose(displacement - least, null_space @ posture, atol=1e-9)


def test_damped_solution_minimises_the_damped_error() -> None:
    jacobian, error, weights, damping = RNG.normal(size=(6, 4)), RNG.normal(size=6), np.arange(1.0, 7.0), 0.7
    displacement = damped_least_squares(jacobian, error, damping, weights, posture=np.zeros(4))
    stacked = np.concatenate([weights[:, None] * jacobian, damping * np.eye(4)])
    expected = np.linalg.lstsq(stacked, np.concatenate([weights * error, np.zeros(4)]), rcond=None)[0]
    np.testing.assert_allclose(displacement, expected, atol=1e-9)


def test_damping_bounds_the_displacement_where_the_arm_is_singular() -> None:
    jacobian = np.diag([1.0, 1e-9])
    displacement = damped_least_squares(jacobian, np.ones(2), 0.05, np.ones(2), np.zeros(2))
    assert np.abs(displacement).max() < 1.0


def test_a_joint_at_its_limit_is_held_and_the_others_do_its_work() -> None:
    jacobian, error = np.array([[1.0, 1.0, 1.0]]), np.array([0.3])

    def solve(free: np.ndarray) -> np.ndarray:
        return damped_least_squares(jacobian * free, error, 1e-6, np.ones(1), np.zeros(3))

    positions, lowest, highest = np.array([0.95, 0.0, 1.2]), np.full(3, -1.0), np.full(3, 1.0)
    displacement = within_limits(solve, positions, lowest, highest)
    np.testing.assert_allclose(displacement, [0.0, 0.3, 0.0], atol=1e-6)
    # back from beyond a limit is allowed
    np.testing.assert_allclose(within_limits(lambda free: -solve(free), positions, lowest, highest), -0.1, atol=1e-6)


def test_with_every_joint_at_its_limit_nothing_moves() -> None:
    displacement = within_limits(lambda free: np.where(free, 1.0, 0.0), np.ones(3), np.zeros(3), np.ones(3))
    assert displacement.tolist() == [0.0, 0.0, 0.0]


def test_looking_along_is_a_rotation() -> None:
    rotation = look_along(np.array([0.0, 2.0, -1.0]), np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation[:, 2], np.array([0.0, 2.0, -1.0]) / np.sqrt(5))
    assert rotation[:, 1] @ [1.0, 1.0, 0.0] > 0


def test_shortened_keeps_the_direction() -> None:
    assert shortened(np.array([3.0, 4.0]), 1.0).tolist() == pytest.approx([0.6, 0.8])
    assert shortened(np.array([0.3, 0.4]), 1.0).tolist() == [0.3, 0.4]
    assert shortened(np.zeros(2), 1.0).tolist() == [0.0, 0.0]
