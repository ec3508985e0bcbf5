"""
The Panda with a Robotiq 2F-85 on a table, put together from the models that robosuite installs.

Of these models everything that moves and collides is kept, but what steers them is replaced: the fingers' linkage is
closed by equations instead of weak springs, one motor with the real hand's force and speed drives it, and a Cartesian
impedance controller pulls the arm (see impedance.py).
"""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from sb3_q2rl.envs.franka.impedance import add_impedance

ARM_JOINTS = tuple(f"joint{i}" for i in range(1, 8))
# libfranka's limits; robosuite's model has rounder ones
JOINT_TORQUES_NM = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)
HAND, TOOL_SITE = "robotiq_85_adapter_link", "tool"
# From the hand's flange to the middle of the closed pads
TOOL_OFFSET_M = 0.144
DRIVEN_JOINT = "finger_joint"
# Angles that follow the driven joint's, so that the pads stay parallel
LINKAGE = {
    "left_inner_knuckle_joint": 1.0,
    "left_inner_finger_joint": -1.0,
    "right_outer_knuckle_joint": 1.0,
    "right_inner_knuckle_joint": 1.0,
    "right_inner_finger_joint": -1.0,
}
FINGER_CLOSED_RAD = 0.8
PADS = ("left_fingertip_collision", "right_fingertip_collision")
# A third of a millimetre before the pads, and within their outline: each touch would be counted twice
THIN_PADS = ("left_fingerpad_collision", "right_fingerpad_collision")
PAD_FRICTION = (1.2, 0.02, 0.0005)  # rubber: sliding, torsional in m, rolling in m
# About 70 N at each pad, and 0.11 m/s: the real hand has 20 to 235 N, and 0.02 to 0.15 m/s
GRIP_NM, FINGER_STIFFNESS_NM_RAD, FINGER_DAMPING_NMS_RAD = 8.0, 200.0, 8.0
# Half a millimetre and less a step at the speeds of a task
TIMESTEP_S = 0.0025
# A step's error in what is touched stays far below a micrometre
SOLVER_TOLERANCE = 1e-6
# What touches what, as (contype, conaffinity). The arm is no obstacle to itself. Parts touch the fingertips and all
# that is fixed; to try the meshes behind the fingertips, too, would take as long as all else, and parts do not get
# there
ROBOT, FINGERTIP, FIXED, MOVING = (1, 0), (9, 0), (2, 1), (4, 14)
COLLISION_GROUP, VISUAL_GROUP = 0, 1  # robosuite's convention
TABLE_FRICTION = (0.6, 0.005, 0.0001)
# Pictures are lit by these alone, from above; True: it casts shadows
LIGHTS_M = {(0.2, -0.6, 1.4): True, (0.9, 0.6, 1.2): False}
WRIST_CAMERA, WORKSPACE_CAMERA = "wrist_rgb", "workspace_rgb"


def arm_spec() -> Any:
    """
    :return: mujoco.MjSpec, its base's frame that of the world, with a table whose top is z = 0
    :raises ImportError: robosuite is not installed
    """
    assets = _assets()
    spec = mujoco.MjSpec.from_file(str(assets / "robots" / "panda" / "robot.xml"))
    for mesh in spec.meshes:
        mesh.file = str(assets / "robots" / "panda" / mesh.file)
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    spec.attach(_hand_spec(assets), frame=spec.body("right_hand").add_frame(), prefix="")
    for name in ("robotview", "eye_in_hand"):
        spec.delete(spec.camera(name))
    _set_options(spec)
    _set_contacts(spec)
    _close_linkage(spec)
    hand = spec.body(HAND)
    hand.add_site(name=TOOL_SITE, pos=[0.0, 0.0, TOOL_OFFSET_M], size=[0.005] * 3, group=4)
    add_impedance(spec, TOOL_SITE, ARM_JOINTS, JOINT_TORQUES_NM)
    # After the six of the arm and the one of its null space
    spec.add_actuator(
        name=DRIVEN_JOINT,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        target=DRIVEN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        gainprm=[FINGER_STIFFNESS_NM_RAD] + [0.0] * 9,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        biasprm=[0.0, -FINGER_STIFFNESS_NM_RAD] + [0.0] * 8,
        forcelimited=True,
        forcerange=[-GRIP_NM, GRIP_NM],
    )
    _add_surroundings(spec)
    return spec


def _assets() -> Path:
    package = importlib.util.find_spec("robosuite")
    if package is None or not package.submodule_search_locations:
        raise ImportError(
            "The simulated Franka takes the models of its arm and hand from robosuite, which is not installed. "
            "Install the extra `robosuite`: pip install 'sb3_q2rl[robosuite]'"
        )
    return Path(package.submodule_search_locations[0]) / "models" / "assets"


def _hand_spec(assets: Path) -> Any:
    root = ElementTree.parse(assets / "grippers" / "robotiq_gripper_85.xml").getroot()
    known = set()
    for asset in root.findall("asset"):
        for mesh in list(asset.findall("mesh")):
            if mesh.get("name") in known:  # MuJoCo refuses a name that robosuite's own merging overlooks
                asset.remove(mesh)
            known.add(mesh.get("name"))
    for joint in root.iter("joint"):
        if joint.get("name") == DRIVEN_JOINT:
            joint.set("damping", str(FINGER_DAMPING_NMS_RAD))
            joint.set("armature", "0.01")
        elif joint.get("name") in LINKAGE:
            joint.set("armature", "0.001")
    spec = mujoco.MjSpec.from_string(ElementTree.tostring(root, encoding="unicode"))
    spec.compiler.degree = False  # robosuite merges it into the arm's model, which says so
    for mesh in spec.meshes:
        mesh.file = str(assets / "grippers" / mesh.file)
    for part in [*spec.actuators, *spec.tendons, *spec.sensors, *spec.sites]:
        spec.delete(part)
    return spec


def _set_options(spec: Any) -> None:
    option = spec.option
    option.timestep, option.tolerance = TIMESTEP_S, SOLVER_TOLERANCE
    # Damping of the controller and the fingers is solved for, not extrapolated: stable at this time step
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # What the pads hold creeps out of them by less than 0.05 mm a second under 15 N
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 100.0
    for body in spec.bodies:
        body.gravcomp = 1.0  # the Franka's own controller carries its weight and its hand's


def _set_contacts(spec: Any) -> None:
    for geom in spec.geoms:
        if geom.group != COLLISION_GROUP:
            continue
        geom.contype, geom.conaffinity = ROBOT
        geom.solref, geom.solimp = [0.006, 1.0], [0.9, 0.95, 0.001, 0.5, 2.0]
        if geom.name in PADS:
            geom.contype, geom.conaffinity = FINGERTIP
            geom.condim, geom.friction, geom.priority = 4, PAD_FRICTION, 1
        elif geom.name in THIN_PADS:
            geom.contype = geom.conaffinity = 0
    for body in ("link0", "link1", "link2", "link3", "link4", "link5"):
        for geom in spec.body(body).geoms:  # never near to anything in the workspace
            geom.contype = geom.conaffinity = 0


def _close_linkage(spec: Any) -> None:
    for name, ratio in LINKAGE.items():
        equality = spec.add_equality(
            type=mujoco.mjtEq.mjEQ_JOINT, name1=name, name2=DRIVEN_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT
        )
        equality.data[:2] = 0.0, ratio
        equality.solref = [0.005, 1.0]


def _add_surroundings(spec: Any) -> None:
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[1.0, 1.0, 0.1],
        contype=FIXED[0],
        conaffinity=FIXED[1],
        group=COLLISION_GROUP,
        friction=TABLE_FRICTION,
    )
    spec.worldbody.add_geom(
        name="table_top",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0.45, 0.0, -0.02],
        size=[0.55, 0.5, 0.02],
        contype=0,
        conaffinity=0,
        group=VISUAL_GROUP,
        rgba=[0.62, 0.62, 0.6, 1.0],
    )
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        rgb1=[0.8, 0.83, 0.86],
        width=8,
        height=48,
    )
    for position_m, casts_shadow in LIGHTS_M.items():
        spec.worldbody.add_light(
            pos=position_m, dir=-np.array(position_m) + [0.5, 0.0, 0.0], diffuse=[0.4] * 3, castshadow=casts_shadow
        )
    # Across the workspace, from the front; and beside the hand, looking down along the fingers
    _add_camera(spec.worldbody, WORKSPACE_CAMERA, (1.05, 0.0, 0.45), look_at_m=(0.5, 0.0, 0.1), fovy_deg=38.0)
    _add_camera(spec.body(HAND), WRIST_CAMERA, (0.075, 0.0, 0.03), look_at_m=(0.0, 0.0, 0.19), fovy_deg=65.0)


def _add_camera(
    body: Any, name: str, position_m: tuple[float, ...], look_at_m: tuple[float, ...], fovy_deg: float
) -> None:
    """Its picture is upright where the body's x points up or towards the camera."""
    backwards = np.array(position_m) - look_at_m
    backwards /= np.linalg.norm(backwards)
    right = np.array([0.0, 1.0, 0.0])  # the base's y, seen from the front, lies to the right
    up = np.cross(backwards, right)
    body.add_camera(name=name, pos=position_m, fovy=fovy_deg, quat=_quaternion(right, up, backwards))


def _quaternion(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    quaternion_wxyz = np.empty(4)
    mujoco.mju_mat2Quat(quaternion_wxyz, np.column_stack([x, y, z]).ravel())
    return quaternion_wxyz
