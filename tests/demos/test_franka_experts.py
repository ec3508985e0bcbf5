"""Scripted experts of the simulated Franka: that they solve their tasks, and that what they record can be replayed."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import sb3_q2rl.envs  # noqa: F401

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("the simulated Franka needs the extra `robosuite`", allow_module_level=True)

from sb3_q2rl.data.demonstrations import Demonstrations
from sb3_q2rl.demos import EXPERTS, find_expert, record_demonstrations
from sb3_q2rl.demos.expert import CLOSE, OPEN, Operator
from sb3_q2rl.demos.franka_hand import FrankaHand, shortest_turn
from sb3_q2rl.demos.play import episode_seeds, play
from sb3_q2rl.envs.franka.franka_env import FrankaEnv, observation_slices
from sb3_q2rl.envs.robomimic import Pose

# Episodes of a practised hand, in steps of 0.1 s
LONGEST = {"PegInsertion": 80, "PipeAssembly": 160, "Kitting": 230, "KittingModified": 230}


@pytest.mark.parametrize("task", LONGEST)
def test_experts_solve_their_tasks(task: str) -> None:
    env_id = f"Franka{task}-v0"
    env = gym.make(env_id)
    for seed in itertools.islice(episode_seeds(11), 2):
        episode = play(env, EXPERTS[env_id], seed, noise=0.05)
        assert episode.success
        assert len(episode.actions) < LONGEST[task]
        assert (np.abs(episode.actions) <= 1.0).all()
    env.close()


@pytest.fixture(scope="module")
def kitting() -> Iterator[FrankaEnv]:
    env = FrankaEnv("kitting")
    yield env
    env.close()


@pytest.fixture(scope="module")
def peg() -> Iterator[FrankaEnv]:
    env = FrankaEnv("peg_insertion")
    yield env
    env.close()


def test_hand_goes_where_it_is_told(kitting: FrankaEnv) -> None:
    kitting.reset(seed=0)
    hand = FrankaHand(kitting, Operator.draw(np.random.default_rng(0)))
    turn = Rotation.from_euler("z", 0.4).as_matrix()
    target = Pose(hand.pose.position_m + np.array([0.06, -0.1, 0.03]), turn @ hand.pose.rotation)
    n_steps = 0
    for action in hand.move(lambda: target, OPEN, tolerance_m=0.004, tolerance_rad=0.04):
        kitting.step(action)
        n_steps += 1
    assert 5 < n_steps < 40
    assert np.allclose(hand.pose.position_m, target.position_m, atol=0.005)
    assert np.allclose(hand.pose.rotation, target.rotation, atol=0.05)


def test_fingers_close_until_they_stand(kitting: FrankaEnv) -> None:
    kitting.reset(seed=0)
    hand = FrankaHand(kitting, Operator.draw(np.random.default_rng(0)))
    actions = []
    for action in hand.close():
        kitting.step(action)
        actions.append(action)
    assert 5 < len(actions) < 15
    assert all(action[6] == CLOSE for action in actions)
    assert kitting.simulator.state().gripper_width_m < 0.003


def test_shortest_turn_is_the_shortest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        start, end = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
        turn = shortest_turn(start, end)
        assert np.allclose(turn @ start, end)
        angle_rad = np.linalg.norm(Rotation.from_matrix(turn).as_rotvec())
        assert angle_rad == pytest.approx(np.arccos(start @ end), abs=1e-6)


def test_a_bad_aim_is_mended(peg: FrankaEnv) -> None:
    """Where the peg's tip stands on the rim, the expert begins from, and still inserts it."""
    peg.reset(seed=3)
    expert = find_expert("FrankaPegInsertion-v0")
    for action in itertools.islice(expert.attempt(peg, Operator.draw(np.random.default_rng(0))), 6):
        peg.step(action)
    for _ in range(25):  # to the side, then down on the rim
        beside = peg.simulator.objects()["peg_to_hole_pos"][0] < 0.012
        peg.step(np.array([0.4 * beside, 0.0, -0.5, 0.0, 0.0, 0.0, 1.0]))
    assert peg.simulator.objects()["peg_to_hole_pos"][2] > -0.002
    actions = expert.attempt(peg, Operator.draw(np.random.default_rng(1)))
    assert any(peg.step(action)[2] for action in itertools.islice(actions, 120))


def test_recordings_are_replayed_from_any_state(tmp_path: Path, peg: FrankaEnv) -> None:
    path = tmp_path / "peg.hdf5"
    recorded = record_demonstrations("FrankaPegInsertion-v0", path, 2, noise=0.1, seed=1, progress_bar=False)
    assert recorded.n_episodes == 2
    demonstrations = Demonstrations.load(path)
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        states, actions = demo["states"][:], demo["actions"][:]
        objects, flat = demo["obs/peg_to_hole_pos"][:], demo["obs/flat"][:]
        rewards = demo["rewards"][:]
    assert rewards[-1] == 1.0
    assert not rewards[:-1].any()
    assert isinstance(demonstrations.observations, np.ndarray)
    assert demonstrations.observations.shape[1:] == peg.observation_space.shape
    assert demonstrations.source == "scripted"
    where = observation_slices("peg_insertion")["peg_to_hole_pos"]
    peg.reset(seed=0)
    for i in (0, len(actions) // 2, len(actions) - 2):
        peg.simulator.set_state(states[i])
        assert np.allclose(peg.simulator.objects()["peg_to_hole_pos"], objects[i], atol=1e-7)
        assert np.array_equal(flat[i, where], objects[i])
