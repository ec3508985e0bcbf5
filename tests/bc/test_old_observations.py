"""Checkpoints of robosuite 1.4 see the observations of 1.4, whatever the environment gives."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch as th

from sb3_q2rl.bc.readers.robomimic_observations import RobomimicObservations
from sb3_q2rl.data.robosuite_objects import object_conversion, old_lift_object, old_single_object

LIFT_DEMONSTRATIONS = Path(__file__).parents[3] / "shared" / "data" / "lift_human" / "lift_robosuite3_mit_low_dim.hdf5"


def test_recorded_lift_observations_become_those_of_1_4():
    if not LIFT_DEMONSTRATIONS.is_file():
        pytest.skip(f"the Lift demonstrations are not at {LIFT_DEMONSTRATIONS}")
    with h5py.File(LIFT_DEMONSTRATIONS) as file:
        group = file["data/demo_0/obs"]
        objects, gripper = (th.as_tensor(group[key][()]) for key in ("object", "robot0_eef_pos"))
    cube = objects[:, :3]
    th.testing.assert_close(objects[1:, 7:], (cube - gripper)[1:], atol=1e-6, rtol=0)  # recorded with 1.5
    old = old_lift_object(objects)
    th.testing.assert_close(old[1:, 7:], (gripper - cube)[1:], atol=1e-6, rtol=0)
    assert th.equal(old[:, :7], objects[:, :7])


@pytest.mark.parametrize(("name", "what"), [("PickPlaceCan", "Can"), ("NutAssemblySquare", "SquareNut")])
def test_the_order_of_can_and_square_from_robosuite_itself(name, what):
    robosuite = pytest.importorskip("robosuite", reason="needs the extra `robosuite`")
    env = robosuite.make(
        name, robots="Panda", has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False, horizon=5
    )
    env.reset()
    obs, *_ = env.step(np.zeros(env.action_dim))
    env.close()
    # 1.4: position, quaternion, then both relative to the gripper
    parts = [f"{what}_pos", f"{what}_quat", f"{what}_to_robot0_eef_pos", f"{what}_to_robot0_eef_quat"]
    expected = np.concatenate([obs[part] for part in parts])
    assert np.abs(expected).min() > 0  # in the first observation after a reset the relative parts are zero
    np.testing.assert_array_equal(old_single_object(th.as_tensor(obs["object-state"])[None])[0], expected)


@pytest.mark.parametrize(
    ("name", "version", "size", "conversion"),
    [
        ("Lift", "1.4.1", 10, old_lift_object),
        ("Lift", "1.2.0", 10, old_lift_object),
        ("Lift", "1.5.0", 10, None),
        ("Lift", "1.10.2", 10, None),
        ("PickPlaceCan", "1.4.0", 14, old_single_object),
        ("NutAssemblySquare", "1.4", 14, old_single_object),
        ("NutAssemblySquare", "1.5.2", 14, None),
        ("ToolHang", "1.4.1", 44, None),
        ("Lift", "1.4.1", 13, None),
    ],
)
def test_chosen_by_task_and_version(name, version, size, conversion):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert object_conversion({"env_name": name, "env_version": version}, (size,)) is conversion


@pytest.mark.parametrize("metadata", [{"env_name": "Lift"}, {"env_name": "Lift", "env_version": None}])
def test_unknown_version_is_said_only_where_it_matters(metadata):
    with pytest.warns(UserWarning, match="does not say which robosuite"):
        assert object_conversion(metadata, (10,)) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert object_conversion({"env_name": "ToolHang"}, (44,)) is None
        assert object_conversion({}, ()) is None


def test_converted_before_it_is_normalised():
    shapes = {"object": (10,), "robot0_eef_pos": (3,)}
    statistics = {
        key: {"mean": np.full((1, *shape), 0.5), "std": np.full((1, *shape), 2.0)} for key, shape in shapes.items()
    }
    reader = RobomimicObservations(shapes, {"low_dim": tuple(shapes)}, None, statistics, old_lift_object)
    obs: Any = {key: th.randn(4, *shape) for key, shape in shapes.items()}
    seen = reader(obs)
    th.testing.assert_close(seen["object"], (old_lift_object(obs["object"]) - 0.5) / 2)
    th.testing.assert_close(seen["robot0_eef_pos"], (obs["robot0_eef_pos"] - 0.5) / 2)


def test_a_checkpoint_of_1_4_acts_as_it_did_there(tmp_path):
    from robomimic_files import SHAPES, make_checkpoint, observations

    from sb3_q2rl.bc import BCPolicyAdapter

    old, new = (
        BCPolicyAdapter.from_checkpoint(
            make_checkpoint(tmp_path / "model.pth", "BC", env_metadata={"env_name": "Lift", "env_version": version})
        )
        for version in ("1.4.1", "1.5.2")
    )
    obs: Any = {key: th.as_tensor(value) for key, value in observations(3, 0, SHAPES).items()}
    as_trained = {**obs, "object": old_lift_object(obs["object"])}
    start = np.ones(3, dtype=bool)
    th.testing.assert_close(old.step(obs, None, start).actions, new.step(as_trained, None, start).actions)
    assert not th.equal(old.step(obs, None, start).actions, new.step(obs, None, start).actions)
