"""The four tasks: starts, states, what counts as success, and whether insertion is honest."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("the simulated Franka needs the extra `robosuite`", allow_module_level=True)

from sb3_q2rl.envs.franka import kitting, peg_insertion, pipe_assembly
from sb3_q2rl.envs.franka.mujoco_robot import MujocoRobot
from sb3_q2rl.envs.franka.objects import DOWN
from sb3_q2rl.envs.franka.posture import Pose, quaternion_wxyz
from sb3_q2rl.envs.franka.robot import Command
from sb3_q2rl.envs.franka.rotations import from_rotation_vector, product
from sb3_q2rl.envs.franka.tasks import KITTING, PEG_INSERTION, TASKS, find_task

# Deeper than this nothing may be inside anything else, also under the hardest push
PENETRATION_M = 0.0008
STEP_M = 0.015


@pytest.fixture(scope="module")
def robots():
    made = {name: MujocoRobot(task) for name, task in TASKS.items()}
    yield made
    for robot in made.values():
        robot.close()


@pytest.fixture(params=TASKS)
def robot(request, robots):
    robots[request.param].begin_episode(np.random.default_rng(3))
    return robots[request.param]


def wander(robot, rng, n_steps):
    """Small random commands, and everything that one sees on the way."""
    seen = []
    target = robot.state()
    position_m, quaternion = target.position_m, target.quaternion_xyzw
    for _ in range(n_steps):
        position_m = position_m + rng.uniform(-0.01, 0.01, 3)
        quaternion = product(from_rotation_vector(rng.uniform(-0.03, 0.03, 3)), quaternion)
        robot.command(Command(position_m, quaternion, 0.0 if rng.random() < 0.7 else 0.085))
        state = robot.state()
        seen.append(np.concatenate([state.position_m, state.wrench, *robot.objects().values()]))
    return np.array(seen)


def test_objects_are_as_declared(robot):
    objects = robot.objects()
    assert {name: values.size for name, values in objects.items()} == dict(robot.task.object_sizes)
    assert list(objects) == list(robot.task.object_sizes)
    assert all(np.isfinite(values).all() and values.dtype == np.float64 for values in objects.values())


def test_starts_vary_within_what_is_declared_and_are_no_success(robot):
    starts, objects = [], []
    for seed in range(12):
        robot.begin_episode(np.random.default_rng(seed))
        assert not robot.is_success()
        assert not robot.is_failure()
        starts.append(robot.state().position_m)
        objects.append(np.concatenate(list(robot.objects().values())))
    spread_m = np.array(robot.task.start_spread_m)
    beside_m = np.array(starts) - robot.task.start.position_m
    assert (np.abs(beside_m) < spread_m + 2e-3).all()
    assert (np.abs(beside_m).max(axis=0) > 0.4 * spread_m).all()
    assert (np.ptp(np.array(objects), axis=0) > 1e-3).sum() >= 5
    low, high = np.array(robot.task.workspace_low_m), np.array(robot.task.workspace_high_m)
    assert ((np.array(starts) > low) & (np.array(starts) < high)).all()


def test_what_lies_there_stays_there(robot):
    before = robot.objects()
    start = robot.state()
    hold = Command(start.position_m, start.quaternion_xyzw, robot.task.start.gripper_width_m)
    for _ in range(20):
        robot.command(hold)
    for name, values in robot.objects().items():
        assert np.allclose(values, before[name], atol=5e-3), name


def test_same_seed_same_trajectory(robot):
    runs = []
    for _ in range(2):
        robot.begin_episode(np.random.default_rng(5))
        runs.append(wander(robot, np.random.default_rng(6), 25))
    assert np.array_equal(*runs)
    robot.begin_episode(np.random.default_rng(7))
    assert not np.array_equal(runs[0], wander(robot, np.random.default_rng(6), 25))


def test_from_a_state_everything_goes_on_as_before(robot):
    wander(robot, np.random.default_rng(0), 10)
    state = robot.get_state()
    first = wander(robot, np.random.default_rng(1), 15)
    robot.begin_episode(np.random.default_rng(99))
    robot.set_state(state)
    assert np.array_equal(robot.get_state(), state)
    assert np.array_equal(wander(robot, np.random.default_rng(1), 15), first)


def test_state_of_another_task_is_refused(robots):
    with pytest.raises(ValueError, match="another task"):
        robots["peg_insertion"].set_state(robots["kitting"].get_state())


def test_unknown_task_lists_the_known():
    with pytest.raises(ValueError, match="'peg_insertion', 'pipe_assembly', 'kitting', 'kitting_modified'"):
        find_task("peg")


def test_move_arrives(robots):
    robot = robots["kitting"]
    robot.begin_episode(np.random.default_rng(0))
    goal = Command(np.array([0.5, 0.1, 0.2]), robot.state().quaternion_xyzw, 0.04)
    robot.move(goal, duration_s=2.0)
    state = robot.state()
    assert np.linalg.norm(state.position_m - goal.position_m) < 0.004
    assert state.gripper_width_m == pytest.approx(0.04, abs=2e-3)
    assert 2.0 <= state.time_s < 4.0


# --- peg insertion


def descend(robot, beside_m, search=False, n_steps=150):
    """Turn the peg as the hole is, go above it and straight down, open loop but for the peg's place in the hand."""
    simulator = robot.simulator
    hole = simulator.pose("hole")
    upright = quaternion_wxyz(hole.rotation @ DOWN)[[1, 2, 3, 0]]
    target_m = robot.state().position_m
    deepest_m = 0.0
    for i in range(n_steps):
        if i == 25:
            tip = robot.objects()["peg_to_hole_pos"]
            centre_m = simulator.tool.position_m - hole.rotation @ np.array([tip[0], tip[1], 0.0])
        if i < 25:
            tip = robot.objects()["peg_to_hole_pos"]
            goal_m = simulator.tool.position_m - hole.rotation @ (tip - [0.0, 0.0, 0.015])
        else:
            circle_m = np.zeros(3)
            if search:  # pressing lightly, lest it sticks to where it is
                circle_m[:2] = 0.005 * min(1.0, (i - 25) / 60) * np.array([np.cos(0.4 * i), np.sin(0.4 * i)])
            goal_m = centre_m + hole.rotation @ (np.array([*beside_m, -0.004 * (i - 25)]) + circle_m)
            # the target is never far ahead of the tool, as in the environment
            goal_m[2] = max(goal_m[2], simulator.tool.position_m[2] - (0.006 if search else 0.015))
        way_m = goal_m - target_m
        target_m = target_m + way_m * min(1.0, STEP_M / max(np.linalg.norm(way_m), 1e-9))
        robot.command(Command(target_m, upright, 0.0))
        deepest_m = min([deepest_m, *simulator.data.contact.dist])
        if robot.is_success():
            break
    assert deepest_m > -PENETRATION_M
    return robot.is_success()


@pytest.mark.parametrize("seed", range(4))
def test_straight_down_into_the_middle_succeeds(robots, seed):
    robots["peg_insertion"].begin_episode(np.random.default_rng(seed))
    assert descend(robots["peg_insertion"], (0.0, 0.0))


@pytest.mark.parametrize("beside_m", [(0.003, 0.0), (-0.003, 0.0), (0.0, 0.003), (0.0, -0.003)])
def test_straight_down_with_3_mm_error_fails(robots, beside_m):
    robot = robots["peg_insertion"]
    robot.begin_episode(np.random.default_rng(1))
    assert not descend(robot, beside_m)
    assert robot.objects()["peg_to_hole_pos"][2] > -0.002
    assert robot.state().wrench[2] > 10.0  # it presses on the block


def test_search_finds_what_is_3_mm_away(robots):
    robot = robots["peg_insertion"]
    robot.begin_episode(np.random.default_rng(1))
    assert descend(robot, (0.003, 0.0), search=True)


def test_peg_that_is_turned_does_not_fit(robots):
    robot = robots["peg_insertion"]
    assert insert_at_once(robot, tilt_rad=0.0, turn_rad=0.0)
    assert not insert_at_once(robot, tilt_rad=0.0, turn_rad=0.25)


def insert_at_once(robot, tilt_rad, turn_rad):
    robot.begin_episode(np.random.default_rng(0))
    simulator = robot.simulator
    hole = simulator.pose("hole")
    turn = from_rotation_vector(np.array([tilt_rad, 0.0, turn_rad]))
    quaternion = product(turn, quaternion_wxyz(hole.rotation @ DOWN)[[1, 2, 3, 0]])
    above_m = hole.position_m + np.array([0.0, 0.0, 0.09])
    simulator.teleport(Command(above_m, quaternion, peg_insertion.WIDTH_M))
    tool = simulator.tool
    simulator.put("peg", Pose(tool.position_m + peg_insertion.HELD_M * tool.rotation[:, 2], tool.rotation))
    for i in range(60):
        goal_m = above_m - np.array([0.0, 0.0, 0.004 * i])
        goal_m[2] = max(goal_m[2], simulator.tool.position_m[2] - 0.015)
        robot.command(Command(goal_m, quaternion, 0.0))
    return robot.is_success()


def test_peg_does_not_slip_under_20_n(robots):
    robot = robots["peg_insertion"]
    robot.begin_episode(np.random.default_rng(1))
    simulator = robot.simulator
    before_m = np.linalg.norm(simulator.pose("peg").position_m - simulator.tool.position_m)
    descend(robot, (0.01, 0.0))
    assert 10.0 < robot.state().wrench[2] < 40.0
    after_m = np.linalg.norm(simulator.pose("peg").position_m - simulator.tool.position_m)
    assert after_m == pytest.approx(before_m, abs=0.001)


def test_wrench_is_the_weight_of_what_is_held(robots):
    robot = robots["peg_insertion"]
    robot.begin_episode(np.random.default_rng(1))
    wrench = np.mean([still(robot) for _ in range(20)], axis=0)
    weight_n = peg_insertion.MASS_KG * 9.81
    assert np.allclose(wrench[:3], [0.0, 0.0, -weight_n], atol=0.05)
    offset_m = robot.simulator.pose("peg").position_m - robot.simulator.tool.position_m
    assert np.allclose(wrench[3:], np.cross(offset_m, [0.0, 0.0, -weight_n]), atol=0.02)


def still(robot):
    start = robot.state()
    robot.command(Command(start.position_m, start.quaternion_xyzw, 0.0))
    return robot.state().wrench


def test_peg_that_was_let_go_is_lost(robots):
    robot = robots["peg_insertion"]
    robot.begin_episode(np.random.default_rng(1))
    start = robot.state()
    for _ in range(20):
        robot.command(Command(start.position_m, start.quaternion_xyzw, 0.085))
    assert robot.is_failure()
    assert not robot.is_success()


# --- pipe assembly


def stand_in_socket(robot, depth_m, beside_m=0.0):
    simulator = robot.simulator
    simulator.teleport(Command(np.array([0.5, 0.1, 0.3]), robot.state().quaternion_xyzw, 0.08))
    down = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # the pipe's x points down
    end_m = simulator.pose("socket").position_m + np.array([beside_m, 0.0, -depth_m])
    simulator.put("pipe", Pose(end_m + np.array([0.0, 0.0, pipe_assembly.LENGTH_M / 2]), down))
    simulator.refresh()


def test_pipe_is_assembled_when_it_stands_at_the_bottom(robots):
    robot = robots["pipe_assembly"]
    robot.begin_episode(np.random.default_rng(0))
    stand_in_socket(robot, depth_m=0.055)
    assert robot.is_success()
    stand_in_socket(robot, depth_m=0.050)
    assert not robot.is_success()
    stand_in_socket(robot, depth_m=0.055, beside_m=0.05)
    assert not robot.is_success()
    assert not robot.is_failure()


@pytest.mark.parametrize(("beside_m", "fits"), [(0.0, True), (0.0005, True), (0.003, False)])
def test_pipe_falls_into_the_socket_that_it_meets(robots, beside_m, fits):
    robot = robots["pipe_assembly"]
    robot.begin_episode(np.random.default_rng(0))
    stand_in_socket(robot, depth_m=-0.002, beside_m=beside_m)
    hand = robot.state()
    for _ in range(15):
        robot.command(Command(hand.position_m, hand.quaternion_xyzw, 0.08))
    assert robot.is_success() == fits


def test_pipe_out_of_reach_is_lost(robots):
    robot = robots["pipe_assembly"]
    robot.begin_episode(np.random.default_rng(0))
    robot.simulator.put("pipe", Pose(np.array([0.5, 0.4, 0.02]), np.eye(3)))
    robot.simulator.refresh()
    assert robot.is_failure()


# --- kitting


def put_in_tray(robot, part, beside_m):
    height_m = kitting.FLOOR_M + kitting.PART_M[part[-2]][2]
    tray_m = robot.simulator.pose("tray").position_m
    robot.simulator.put(part, Pose(tray_m + np.array([beside_m, 0.0, height_m]), np.eye(3)))
    robot.simulator.refresh()


@pytest.mark.parametrize(
    ("task", "part"), [("kitting", "part_b0"), ("kitting_modified", "part_b0"), ("kitting_modified", "part_b1")]
)
def test_kit_is_complete_with_one_part_of_each_kind(robots, task, part):
    robot = robots[task]
    robot.begin_episode(np.random.default_rng(0))
    put_in_tray(robot, "part_a0", 0.03)
    assert not robot.is_success()
    put_in_tray(robot, part, -0.03)
    assert robot.is_success()
    assert np.allclose(robot.objects()["b_to_tray_pos"][:2], [-0.03, 0.0])
    tool = robot.simulator.tool
    robot.simulator.put(part, Pose(tool.position_m, np.eye(3)))
    robot.simulator.refresh()
    assert not robot.is_success()


def test_part_in_the_hand_is_not_in_the_tray(robots):
    robot = robots["kitting"]
    robot.begin_episode(np.random.default_rng(0))
    put_in_tray(robot, "part_a0", 0.03)
    put_in_tray(robot, "part_b0", -0.03)
    at_part_m = robot.simulator.pose("part_b0").position_m + np.array([0.0, 0.0, 0.02])
    robot.simulator.teleport(Command(at_part_m, robot.state().quaternion_xyzw, 0.05))
    assert not robot.is_success()


@pytest.mark.parametrize("place_m", [(2.5, 0.0, 0.02), (0.46, 0.30, 0.02), (0.28, 0.0, 0.02)])
def test_kind_without_a_part_in_reach_is_lost(robots, place_m):
    robot = robots["kitting_modified"]
    robot.begin_episode(np.random.default_rng(0))
    for part, is_failure in (("part_a0", False), ("part_b1", False), ("part_a1", True)):
        robot.simulator.put(part, Pose(np.array(place_m), np.eye(3)))
        robot.simulator.refresh()
        assert robot.is_failure() == is_failure


def test_parts_at_the_workspaces_edge_are_in_reach(robots):
    robot = robots["kitting"]
    robot.begin_episode(np.random.default_rng(0))
    edge_m = np.array([kitting.PART_M["b"][0], kitting.PART_M["b"][0], 0.0])  # held by its very end
    for place_m in (np.array(KITTING.workspace_low_m) - edge_m, np.array(KITTING.workspace_high_m) + edge_m):
        robot.simulator.put("part_b0", Pose(place_m, np.eye(3)))
        robot.simulator.refresh()
        assert not robot.is_failure()


def test_modified_kitting_has_two_parts_beside_the_middle(robots):
    robot = robots["kitting_modified"]
    for seed in range(5):
        robot.begin_episode(np.random.default_rng(seed))
        for kind, middle_m in kitting.BIN_M.items():
            offsets_m = [robot.simulator.pose(f"part_{kind}{i}").position_m[0] - middle_m[0] for i in range(2)]
            assert min(np.abs(offsets_m)) > 2 * kitting.CENTRED_SPREAD_M
            assert np.prod(offsets_m) < 0


# --- pictures


def test_pictures_are_upright_and_show_the_task(robots):
    robot = robots["peg_insertion"]
    robot.begin_episode(np.random.default_rng(0))
    images = robot.images()
    assert set(images) == {"workspace_rgb", "wrist_rgb"}
    for image in images.values():
        assert image.shape == (84, 84, 3)
        assert image.dtype == np.uint8
    workspace = images["workspace_rgb"].astype(int)
    sky, table = workspace[2, 2], workspace[-3, 3]
    assert sky[2] > sky[0]  # bluish, above
    assert np.ptp(table) < 25  # grey, below
    for image in images.values():  # the orange peg is in both
        red, _, blue = np.moveaxis(image.astype(int), -1, 0)
        assert ((red > 90) & (red > 2.5 * blue)).sum() > 15
    assert robot.render("wrist_rgb", 120).shape == (120, 120, 3)


def test_pictures_show_where_things_were_put(robots):
    robot = robots["kitting"]
    pictures = []
    for seed in (0, 1, 0):
        robot.begin_episode(np.random.default_rng(seed))
        pictures.append(robot.images()["wrist_rgb"])
    assert np.array_equal(pictures[0], pictures[2])
    assert (pictures[0] != pictures[1]).mean() > 0.02


def test_another_process_sees_the_same_and_nothing_is_printed(robots):
    code = (
        "import json, numpy as np\n"
        "from sb3_q2rl.envs.franka.mujoco_robot import MujocoRobot\n"
        "from sb3_q2rl.envs.franka.tasks import PEG_INSERTION\n"
        "robot = MujocoRobot(PEG_INSERTION)\n"
        "robot.begin_episode(np.random.default_rng(4))\n"
        "print(json.dumps(robot.get_state().tolist()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    robots["peg_insertion"].begin_episode(np.random.default_rng(4))
    assert np.array_equal(json.loads(result.stdout), robots["peg_insertion"].get_state())


def test_peg_task_holds_its_peg():
    assert PEG_INSERTION.fixed_gripper_width_m == 0.0
