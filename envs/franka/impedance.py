"""
The arm's controller: Cartesian impedance as on the Franka, expressed in MuJoCo's own actuators, so that a control
period needs no Python between its simulator steps.

torque = J' (K e - D v) + n n' (k (q0 - q) - d q') + gravity, each joint's within its limits

e is the pose of the target in the tool's view (the rotation as a vector), and n the unit vector with J n = 0. This is
the law of libfranka's example and of franky's CartesianImpedanceTracker: with seven joints and six directions
I - J' pinv(J') = n n'. Six actuators between the tool and a target that is moved by hand make the first term. The other
is an actuator that pulls a tendon whose coefficients are n, which is found anew in each control period.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

TARGET = "target"
NULL_SPACE = "null_space"
# Within what one sets on a Franka for insertion; critical for 3 kg and 0.35 kg m^2 at the tool
STIFFNESS_N_M, DAMPING_NS_M = 1000.0, 110.0
STIFFNESS_NM_RAD, DAMPING_NMS_RAD = 60.0, 9.0
NULL_STIFFNESS_NM_RAD, NULL_DAMPING_NMS_RAD = 10.0, 4.0


def add_impedance(
    spec: mujoco.MjSpec, tool_site: str, joints: Sequence[str], torque_limits_nm: Sequence[float]
) -> None:
    """
    :param spec: of the arm, without actuators; they are added to it
    :param tool_site: what is pulled
    :param joints: of the arm
    :param torque_limits_nm: for each joint, of everything that the motors do, gravity included
    """
    target = spec.worldbody.add_body(name=TARGET, mocap=True)
    target.add_site(name=TARGET, size=[0.005] * 3, group=4)
    for axis in range(6):
        stiffness, damping = (STIFFNESS_N_M, DAMPING_NS_M) if axis < 3 else (STIFFNESS_NM_RAD, DAMPING_NMS_RAD)
        spec.add_actuator(
            name=f"impedance_{axis}",
            trntype=mujoco.mjtTrn.mjTRN_SITE,
            target=tool_site,
            refsite=TARGET,
            gear=np.eye(6)[axis],
            gaintype=mujoco.mjtGain.mjGAIN_FIXED,
            gainprm=[0.0] * 10,
            biastype=mujoco.mjtBias.mjBIAS_AFFINE,
            biasprm=[0.0, -stiffness, -damping] + [0.0] * 7,
        )
    tendon = spec.add_tendon(name=NULL_SPACE)
    for joint in joints:
        tendon.wrap_joint(joint, 1.0)
    spec.add_actuator(
        name=NULL_SPACE,
        trntype=mujoco.mjtTrn.mjTRN_TENDON,
        target=NULL_SPACE,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        gainprm=[NULL_STIFFNESS_NM_RAD] + [0.0] * 9,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        biasprm=[0.0, -NULL_STIFFNESS_NM_RAD, -NULL_DAMPING_NMS_RAD] + [0.0] * 7,
    )
    for name, limit_nm in zip(joints, torque_limits_nm, strict=True):
        joint = spec.joint(name)
        joint.actfrclimited, joint.actfrcrange, joint.actgravcomp = True, [-limit_nm, limit_nm], True


class Impedance:
    """
    :param model: mujoco.MjModel that :func:`add_impedance` has been at
    :param data: mujoco.MjData
    :param tool_site: what is pulled
    :param joints: of the arm, consecutive in the model
    :param rest_posture_rad: (7,) what the null space holds
    """

    def __init__(
        self, model: Any, data: Any, tool_site: str, joints: Sequence[str], rest_posture_rad: np.ndarray
    ) -> None:
        self._model, self._data = model, data
        self.rest_posture_rad = rest_posture_rad.copy()
        self._site, self._mocap = model.site(tool_site).id, model.body(TARGET).mocapid[0]
        first = model.joint(joints[0])
        n = len(joints)
        self._dofs = slice(first.dofadr[0], first.dofadr[0] + n)
        tendon = model.tendon(NULL_SPACE).id
        start = model.tendon_adr[tendon]
        self._coefficients = model.wrap_prm[start : start + n]
        self._null_actuator = model.actuator(NULL_SPACE).id
        self._jacobian = np.zeros((6, model.nv))

    def pull(self, position_m: np.ndarray, quaternion_wxyz: np.ndarray) -> None:
        """
        :param position_m: (3,) the target
        :param quaternion_wxyz: (4,)
        """
        model, data = self._model, self._data
        data.mocap_pos[self._mocap], data.mocap_quat[self._mocap] = position_m, quaternion_wxyz
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        null = np.linalg.svd(self._jacobian[:, self._dofs])[2][-1]
        self._coefficients[:] = null
        data.ctrl[self._null_actuator] = null @ self.rest_posture_rad
