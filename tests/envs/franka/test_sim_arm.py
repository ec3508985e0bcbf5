"""The simulated arm and hand, compared with the laws that they should follow."""

import importlib.util

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("the simulated Franka needs the extra `robosuite`", allow_module_level=True)

import mujoco

from sb3_q2rl.envs.franka import impedance
from sb3_q2rl.envs.franka.arm_model import HAND, JOINT_TORQUES_NM, PADS
from sb3_q2rl.envs.franka.robot import Command
from sb3_q2rl.envs.franka.rotations import TOOL_DOWN_XYZW, from_rotation_vector, product, to_rotation_vector
from sb3_q2rl.envs.franka.simulator import Simulator
from sb3_q2rl.envs.franka.tasks import PEG_INSERTION

HERE = Command(np.array([0.5, 0.0, 0.3]), np.array(TOOL_DOWN_XYZW), 0.05)


class Nothing:
    """A scene without things."""

    def build(self, spec):
        pass


@pytest.fixture(scope="module")
def simulator():
    return Simulator(Nothing())


@pytest.fixture
def arm(simulator):
    simulator.restart()
    simulator.teleport(HERE)
    return simulator


def hold(arm, command, n_steps):
    for _ in range(n_steps):
        arm.step(command)


@pytest.mark.parametrize(
    ("position_m", "rotation_vector"),
    [((0.4, 0.1, 0.05), (0, 0, 0)), ((0.6, -0.15, 0.25), (0.2, -0.1, 0.5)), ((0.54, 0.05, 0.2), (-1.5, 0, 0))],
)
def test_teleport_goes_there(arm, position_m, rotation_vector):
    quaternion = product(from_rotation_vector(np.array(rotation_vector)), np.array(TOOL_DOWN_XYZW))
    arm.teleport(Command(np.array(position_m), quaternion, 0.03))
    assert np.allclose(arm.tool.position_m, position_m, atol=1e-5)
    assert np.allclose(abs(arm.tool_xyzw @ quaternion), 1.0, atol=1e-9)
    assert arm.width_m == pytest.approx(0.03, abs=2e-4)


def test_teleport_out_of_reach_is_refused(arm):
    with pytest.raises(ValueError, match="does not reach"):
        arm.teleport(Command(np.array([1.5, 0.0, 0.3]), np.array(TOOL_DOWN_XYZW), 0.05))


def test_gravity_is_carried(arm):
    hold(arm, HERE, 20)
    assert np.allclose(arm.tool.position_m, HERE.position_m, atol=1e-5)


@pytest.mark.parametrize("axis", range(3))
def test_force_moves_it_by_force_over_stiffness(arm, axis):
    force = np.zeros(6)
    force[axis] = 12.0
    # a force at the hand's origin, and the torque that makes it act at the tool's
    offset = arm.tool.position_m - arm.data.xipos[arm.model.body(HAND).id]
    force[3:] = np.cross(offset, force[:3])
    arm.data.xfrc_applied[arm.model.body(HAND).id] = force
    hold(arm, HERE, 40)
    moved_m = arm.tool.position_m - HERE.position_m
    expected_m = force[:3] / impedance.STIFFNESS_N_M
    assert np.allclose(moved_m, expected_m, atol=5e-4)


@pytest.mark.parametrize("axis", range(3))
def test_torque_turns_it_by_torque_over_stiffness(arm, axis):
    torque = np.zeros(3)
    torque[axis] = 6.0
    arm.data.xfrc_applied[arm.model.body(HAND).id] = np.concatenate([np.zeros(3), torque])
    hold(arm, HERE, 40)
    turned = arm.tool_xyzw * np.sign(arm.tool_xyzw @ HERE.quaternion_xyzw)
    home = np.array(TOOL_DOWN_XYZW) * np.array([-1, -1, -1, 1])
    assert np.allclose(to_rotation_vector(product(turned, home)), torque / impedance.STIFFNESS_NM_RAD, atol=3e-3)


def test_step_of_the_target_is_followed_without_ringing(arm):
    goal = Command(HERE.position_m + np.array([0.0, 0.015, 0.0]), HERE.quaternion_xyzw, 0.05)
    way_m = []
    for _ in range(15):
        arm.step(goal)
        way_m.append(arm.tool.position_m[1])
    assert way_m[3] > 0.8 * 0.015
    assert max(way_m) < 1.1 * 0.015
    assert way_m[-1] == pytest.approx(0.015, abs=3e-4)


def test_elbow_moves_without_the_tool(arm):
    """What pushes along the null space alone meets its spring, and the tool stays."""
    jacobian = np.zeros((6, arm.model.nv))
    mujoco.mj_jacSite(arm.model, arm.data, jacobian[:3], jacobian[3:], arm.model.site("tool").id)
    null = np.linalg.svd(jacobian[:, :7])[2][-1]
    start_rad = arm.joint_positions_rad
    arm.data.qfrc_applied[:7] = 1.5 * null
    hold(arm, HERE, 40)
    moved_rad = arm.joint_positions_rad - start_rad
    assert moved_rad @ null == pytest.approx(1.5 / impedance.NULL_STIFFNESS_NM_RAD, rel=0.1)
    assert np.allclose(arm.tool.position_m, HERE.position_m, atol=5e-4)


def test_motors_keep_their_limits(arm):
    far = Command(HERE.position_m + np.array([0.5, 0.5, 0.5]), HERE.quaternion_xyzw, 0.05)
    arm.step(far)
    assert (np.abs(arm.data.qfrc_actuator[:7]) <= np.array(JOINT_TORQUES_NM) + 1e-9).all()
    assert (np.abs(arm.data.qfrc_actuator[:7]) == np.array(JOINT_TORQUES_NM)).any()


def test_fingers_open_and_close_and_stay_parallel(arm):
    for width_m in (0.08, 0.02, 0.05):
        hold(arm, Command(HERE.position_m, HERE.quaternion_xyzw, width_m), 15)
        assert arm.width_m == pytest.approx(width_m, abs=1e-3)
        left, right = (arm.data.geom(name) for name in PADS)
        assert np.allclose(left.xmat[[2, 5, 8]], right.xmat[[2, 5, 8]], atol=0.01)
        assert np.linalg.norm(left.xpos - right.xpos) == pytest.approx(arm.width_m + 2 * 0.003175, abs=5e-4)


def test_fingers_take_their_time(arm):
    """From open to closed in about 0.8 s, as a 2F-85 at half speed."""
    arm.teleport(Command(HERE.position_m, HERE.quaternion_xyzw, 0.085))
    hold(arm, Command(HERE.position_m, HERE.quaternion_xyzw, 0.0), 4)
    assert 0.02 < arm.width_m < 0.07
    hold(arm, Command(HERE.position_m, HERE.quaternion_xyzw, 0.0), 12)
    assert arm.width_m < 0.003


def test_control_rate_must_fit_the_time_step():
    with pytest.raises(ValueError, match="`control_hz`"):
        Simulator(Nothing(), control_hz=7.0)


def test_missing_robosuite_names_the_extra(monkeypatch):
    from sb3_q2rl.envs.franka import arm_model

    monkeypatch.setattr(arm_model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"sb3_q2rl\[robosuite\]"):
        Simulator(PEG_INSERTION.make_scene())
