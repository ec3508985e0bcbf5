"""A robot's log: what was written is read, across runs."""

import time

import numpy as np

from sb3_q2rl.envs.franka.transition_log import TransitionLog, read_episodes


def write(path, n_steps: int = 3, episodes: int = 1) -> None:
    log = TransitionLog(path)
    for episode in range(episodes):
        log.append_reset(np.array([episode, 0.0]), seed=episode)
        for i in range(1, n_steps + 1):
            info = {"is_success": i == n_steps, "force_n": 1.5, "robot_error": "é", "bc_step": (np.zeros(3),)}
            observation = np.array([episode, i], float)
            log.append_step(observation, np.full(7, 0.1), np.full(7, 0.2), 4.0, i == n_steps, False, info)
    log.close()


def test_what_was_written_is_read(tmp_path):
    write(tmp_path / "deep" / "run.log", 3, 2)
    episodes = list(read_episodes(tmp_path / "deep" / "run.log"))
    assert [len(episode.steps) for episode in episodes] == [3, 3]
    last = episodes[1].steps[2]
    assert episodes[1].seed == 1
    np.testing.assert_array_equal(last.observation, [1, 2])
    np.testing.assert_array_equal(last.next_observation, [1, 3])
    assert last.next_observation.dtype == np.float64
    np.testing.assert_allclose(last.action, 0.1)
    np.testing.assert_allclose(last.executed, 0.2)
    assert last.reward == 4.0
    assert (last.terminated, last.truncated) == (True, False)
    assert last.info == {"is_success": True, "force_n": 1.5, "robot_error": "é", "intervened": False}
    assert abs(last.time_s - time.time()) < 60


def test_it_is_continued(tmp_path):
    for _ in range(3):
        write(tmp_path / "run.log")
    assert [len(episode.steps) for episode in read_episodes(tmp_path / "run.log")] == [3, 3, 3]
