"""The scripted expert of FrankaKitchenComplete."""

from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest

import sb3_q2rl.envs  # noqa: F401

pytest.importorskip("gymnasium_robotics", reason="needs the extra `d4rl`")

from sb3_q2rl.demos.expert import Operator
from sb3_q2rl.demos.kitchen import CLOSE, Hand, kitchen
from sb3_q2rl.envs.d4rl import FrankaKitchenCompleteEnv


@pytest.fixture(scope="module")
def env() -> Iterator[FrankaKitchenCompleteEnv]:
    env = gym.make("FrankaKitchenComplete-v0").unwrapped
    assert isinstance(env, FrankaKitchenCompleteEnv)
    yield env
    env.close()


@pytest.mark.parametrize(("seed", "noise"), [(0, 0.0), (1, 0.1)])
def test_finishes_all_four(env: FrankaKitchenCompleteEnv, seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    actions = []
    for action in kitchen(env, Operator.draw(rng)):
        assert env.action_space.contains(action)
        actions.append(action)
        _, _, terminated, _, info = env.step(np.clip(action + noise * rng.normal(size=9), -1.0, 1.0))
        if terminated or len(actions) == 280:
            break
    assert info["finished"] == list(env.SUBTASKS)
    # An arm that is driven at its limits all the time can't be imitated with noise
    assert np.mean(np.abs(np.stack(actions)[:, :7]) == 1.0) < 0.2


def test_a_waiting_hand_stays_where_it_is(env: FrankaKitchenCompleteEnv) -> None:
    env.reset(seed=0)
    hand = Hand(env, Operator.draw(np.random.default_rng(0)))
    start, no_action = hand.position, np.zeros(9, np.float32)
    for action in hand.wait(hand.grip, CLOSE, n_steps=15):
        env.step(action)
    assert np.linalg.norm(hand.position - start) < 0.01
    env.reset(seed=0)
    for _ in range(15):
        env.step(no_action)
    assert np.linalg.norm(hand.position - start) > 0.03, "the arm's weight pulls it down; else this test shows nothing"


def test_operators_differ(env: FrankaKitchenCompleteEnv) -> None:
    def path(seed: int) -> np.ndarray:
        env.reset(seed=0)
        actions = kitchen(env, Operator.draw(np.random.default_rng(seed)))
        return np.stack([env.step(next(actions))[0] for _ in range(10)])

    assert np.array_equal(path(0), path(0))
    assert np.abs(path(0) - path(1)).max() > 0.02
