"""The log survives what happens to processes and files, and becomes a file of demonstrations."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sb3_q2rl.envs.franka import transition_log
from sb3_q2rl.envs.franka.transition_log import MAGIC, TransitionLog, read_episodes, read_records

WRITER = """
import importlib.util, sys, numpy as np
spec = importlib.util.spec_from_file_location("transition_log", sys.argv[2])  # without torch, which takes seconds
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
log = module.TransitionLog(sys.argv[1])
observation = lambda i: {"state": np.full(5, i, np.float32), "wrist_rgb": np.full((84, 84, 3), i % 256, np.uint8)}
i = 0
while True:
    log.append_reset(observation(i))
    for _ in range(10):
        i += 1
        log.append_step(observation(i), np.zeros(7), np.ones(7), -1.0, False, i % 10 == 0, {"is_success": False})
        print(i, flush=True)
"""


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


def test_a_killed_process_loses_at_most_the_last_step(tmp_path):
    path = tmp_path / "run.log"
    for round_number in range(3):
        command = [sys.executable, "-c", WRITER, path, transition_log.__file__]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(25):
                told = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            rest = process.stdout.read().split()
            told = int(rest[-1]) if rest else told
        steps = [t for episode in read_episodes(path) for t in episode.steps]
        if round_number == 0:
            assert len(steps) in (told, told + 1)
            for i, transition in enumerate(steps):
                np.testing.assert_array_equal(transition.observation["state"], np.full(5, i))
                assert (transition.next_observation["wrist_rgb"] == i + 1).all()
    assert len(steps) >= 75


@pytest.mark.parametrize("cut", [1, 3, 8, 40])
def test_a_torn_tail_is_left_out_and_writing_goes_on(tmp_path, cut):
    path = tmp_path / "run.log"
    write(path)
    os.truncate(path, path.stat().st_size - cut)
    assert [len(episode.steps) for episode in read_episodes(path)] == [2]
    write(path)
    assert [len(episode.steps) for episode in read_episodes(path)] == [2, 3]
    torn = list(tmp_path.glob("*.torn-*"))
    assert len(torn) == 1


def test_every_length_of_a_file_can_be_read(tmp_path):
    path = tmp_path / "run.log"
    write(path, n_steps=2)
    whole = path.read_bytes()
    counts = []
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        counts.append(len(list(read_records(path))))
    assert counts == sorted(counts)
    assert counts[-1] == 3
    path.write_bytes(whole[:10])  # killed while it was made
    write(path)
    assert [len(episode.steps) for episode in read_episodes(path)] == [3]


def test_a_damaged_record_ends_the_reading_but_nothing_is_thrown_away(tmp_path):
    path = tmp_path / "run.log"
    write(path, episodes=2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    sound = len(list(read_records(path)))
    assert 0 < sound < 8
    write(path)
    assert len(list(read_records(path))) == sound + 4
    (torn,) = tmp_path.glob("*.torn-*")
    assert len(torn.read_bytes()) > 100


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / "thesis.tex"
    path.write_text("years of work")
    for call in (lambda: list(read_episodes(path)), lambda: TransitionLog(path).append_reset(np.zeros(1))):
        with pytest.raises(ValueError, match="no file of transitions"):
            call()
    assert path.read_text() == "years of work"


def test_reading_can_start_later(tmp_path):
    write(tmp_path / "run.log", n_steps=4)
    assert len(list(read_records(tmp_path / "run.log", start=3))) == 2
    assert (tmp_path / "run.log").read_bytes().startswith(MAGIC)
