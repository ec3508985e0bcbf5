"""Scripted experts: their geometry, their motions, and that they solve their tasks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import sb3_q2rl.envs  # noqa: F401

pytest.importorskip("robosuite", reason="needs the extra `robosuite`")

from sb3_q2rl.demos.expert import (
    CLOSE,
    OPEN,
    UP,
    Hand,
    Operator,
    nearest_turn,
    pointing_down,
    rotation_vector,
    yaw_of,
)
from sb3_q2rl.demos.experts import EXPERTS, find_expert
from sb3_q2rl.demos.play import episode_seeds, play
from sb3_q2rl.envs.robomimic import Pose, RobomimicEnv


@pytest.fixture(scope="module")
def lift() -> Iterator[RobomimicEnv]:
    env = RobomimicEnv("Lift")
    yield env
    env.close()


def operator(seed: int = 0) -> Operator:
    return Operator.draw(np.random.default_rng(seed))


@pytest.mark.parametrize("task", ["Lift", "Can", "Square"])
def test_experts_solve_their_tasks(task: str) -> None:
    env_id = f"Robomimic{task}-v0"
    env = gym.make(env_id)
    for seed in itertools.islice(episode_seeds(7), 3):
        episode = play(env, EXPERTS[env_id], seed, noise=0.0)
        assert episode.success
    env.close()


def test_a_toppled_can_is_taken() -> None:
    env = RobomimicEnv("Can")
    env.reset(seed=0)
    state, model = env.get_state(), env.simulator.model
    address = 1 + model.jnt_qposadr[model.body_jntadr[model.body("Can_main").id]]
    state[address : address + 7] = [0.1, -0.25, 0.85, np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0]
    env.set_state(state)
    actions = find_expert("RobomimicCan-v0").attempt(env, operator())
    axis = env.pose("Can_main").rotation[:, 2]
    assert abs(axis[2]) < 0.1
    assert any(env.step(action)[2] for action in actions)
    env.close()


def test_rotation_vector_is_scipys() -> None:
    for rotation in Rotation.random(50, random_state=0):
        np.testing.assert_allclose(rotation_vector(rotation.as_matrix()), rotation.as_rotvec(), atol=1e-9)
    assert not rotation_vector(np.eye(3)).any()


def test_angles() -> None:
    assert nearest_turn(0.1, 0.0, np.pi / 2) == pytest.approx(0.1)
    assert nearest_turn(1.5, 0.0, np.pi / 2) == pytest.approx(1.5 - np.pi / 2)
    assert nearest_turn(3.0, -3.0, 2 * np.pi) == pytest.approx(3.0 - 2 * np.pi)
    for yaw in (-2.0, 0.3, 3.0):
        down = pointing_down(yaw)
        assert np.linalg.det(down) == pytest.approx(1.0)
        np.testing.assert_allclose(down[:, 2], -UP)
        turned = Rotation.from_euler("z", yaw).as_matrix()
        np.testing.assert_allclose(down, turned @ pointing_down(0.0), atol=1e-12)
        assert yaw_of(turned) == pytest.approx(yaw)


def test_the_fingers_of_an_episodes_start_open_along_y(lift: RobomimicEnv) -> None:
    lift.reset(seed=0)
    np.testing.assert_allclose(lift.pose("gripper0_right_grip_site").rotation, pointing_down(0.0), atol=0.2)


def test_hand_goes_where_it_is_told(lift: RobomimicEnv) -> None:
    lift.reset(seed=0)
    someone = operator()
    hand = Hand(lift, someone)
    target = Pose(hand.pose.position_m + np.array([0.1, -0.05, 0.05]), pointing_down(0.6))
    actions = []
    for action in hand.move(lambda: target, OPEN, tolerance_m=0.005, tolerance_rad=0.05):
        actions.append(action)
        lift.step(action)
    assert 5 < len(actions) < 60
    np.testing.assert_allclose(hand.pose.position_m, target.position_m, atol=0.01)
    np.testing.assert_allclose(hand.pose.rotation, target.rotation, atol=0.1)
    stacked = np.stack(actions)
    assert np.linalg.norm(stacked[:, :3], axis=1).max() == pytest.approx(someone.speed)
    assert np.linalg.norm(stacked[:, 3:6], axis=1).max() <= someone.speed + 1e-9
    assert (stacked[:, 6] == OPEN).all()


def test_a_movement_breaks_off_and_has_a_last_step(lift: RobomimicEnv) -> None:
    lift.reset(seed=0)
    hand = Hand(lift, operator())
    far = Pose(hand.pose.position_m + np.array([0.3, 0.0, 0.0]), hand.pose.rotation)
    assert list(hand.move(lambda: far, OPEN, while_=lambda: False)) == []
    n_moves = len(list(hand.move(lambda: far, OPEN, max_steps=4)))
    assert 4 <= n_moves <= 4 + operator().pause_steps


def test_fingers_close_until_they_stand(lift: RobomimicEnv) -> None:
    lift.reset(seed=0)
    hand = Hand(lift, operator())
    for n_opening in (0, 10):
        for _ in range(n_opening):
            lift.step(np.array([0.0] * 6 + [OPEN]))
        for action in hand.close():
            assert action[6] == CLOSE
            lift.step(action)
        left, right = lift.named_observation()["robot0_gripper_qpos"]
        assert left - right < 0.01


def test_funnel_keeps_the_hand_above_while_it_is_beside(lift: RobomimicEnv) -> None:
    lift.reset(seed=0)
    hand = Hand(lift, operator())
    below, beside = hand.pose.position_m - 0.1 * UP, hand.pose.position_m + np.array([0.1, 0.0, -0.1])
    np.testing.assert_allclose(hand.from_above(Pose(below, np.eye(3))).position_m, below)
    raised = hand.from_above(Pose(beside, np.eye(3))).position_m
    np.testing.assert_allclose(raised[:2], beside[:2])
    assert raised[2] > beside[2] + 0.1


def test_operators_differ_and_repeat() -> None:
    first, again, other = operator(1), operator(1), operator(2)
    assert (first.speed, first.gain, first.hover_m) == (again.speed, again.gain, again.hover_m)
    assert first.speed != other.speed
    places = np.stack([other.near(np.ones(3), 0.01) for _ in range(20)])
    assert np.abs(places - 1.0).max() <= 0.01
    assert places.std() > 0


def test_seeds_are_not_those_of_anyone_who_counts() -> None:
    seeds = list(itertools.islice(episode_seeds(0), 100))
    assert seeds == list(itertools.islice(episode_seeds(0), 100))
    assert len(set(seeds)) == 100
    assert min(seeds) > 10_000_000


def test_unknown_environment() -> None:
    with pytest.raises(ValueError, match="`env` 'CartPole-v1' has no scripted expert.*RobomimicSquare-v0"):
        find_expert("CartPole-v1")
