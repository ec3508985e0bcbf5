"""The shipped data sets fit the environments that they are named after."""

import gymnasium as gym
import numpy as np
import pytest

import sb3_q2rl.envs  # noqa: F401  registers the environments
from sb3_q2rl import Demonstrations
from sb3_q2rl.data.shipped import SHIPPED_DEMONSTRATIONS

RECORDED = [
    ("adroit-door-human", "AdroitHandDoorBinary-v0", "human", 25, 7),
    ("adroit-pen-dapg", "AdroitHandPenBinary-v0", "policy-generated", 50, 50),
    ("robomimic-lift-scripted", "RobomimicLift-v0", "scripted", 16, 16),
]


def test_each_is_listed() -> None:
    assert {name for name, *_ in RECORDED} == SHIPPED_DEMONSTRATIONS.keys()


@pytest.mark.parametrize(("name", "env_id", "source", "n_episodes", "n_successes"), RECORDED)
def test_it_is_of_this_environment(name: str, env_id: str, source: str, n_episodes: int, n_successes: int) -> None:
    package = "robosuite" if env_id.startswith("Robomimic") else "gymnasium_robotics"
    pytest.importorskip(package, reason="needs the simulator")
    demonstrations = Demonstrations.load(name)
    env = gym.make(env_id)
    assert isinstance(demonstrations.observations, np.ndarray)
    assert demonstrations.observations.shape[1:] == env.observation_space.shape
    assert demonstrations.actions.shape[1:] == env.action_space.shape
    assert demonstrations.source == source
    assert len(demonstrations.episode_ends) == n_episodes
    assert demonstrations.terminated.sum() == n_successes
    env.reset(seed=0)
    _, step_reward, *_ = env.step(np.zeros(env.action_space.shape, np.float32))
    assert set(demonstrations.rewards[~demonstrations.terminated]) == {step_reward}, "as the environment rewards a step"
    assert (demonstrations.rewards[demonstrations.terminated] > step_reward).all()
    for episode in demonstrations.episodes():
        np.testing.assert_array_equal(episode.next_observations[:-1], episode.observations[1:])
        assert len(episode.actions) <= (300 if "door" in name else env.spec.max_episode_steps)  # type: ignore[union-attr]
    env.close()
