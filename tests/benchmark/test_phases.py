import numpy as np
from PIL import Image

from sb3_q2rl.benchmark.phases import phase_fractions, phase_plot
from sb3_q2rl.benchmark.video import SUCCESS_COLOR, Episode


def test_phases_count_the_steps_of_each_part():
    long = np.array([1, 1, 0, 0, 1, 0, 0, 0], bool)
    np.testing.assert_allclose(phase_fractions([long], 4), [[1, 0, 0.5, 0]])
    # uneven parts: steps 0 1 | 2 | 3 4 -> by floor(t 3 / 5): 0 0 1 1 2
    np.testing.assert_allclose(phase_fractions([np.array([1, 0, 1, 1, 0], bool)], 3), [[0.5, 1, 0]])


def test_an_episode_shorter_than_its_phases_leaves_some_out():
    fractions = phase_fractions([np.array([True, False])], 4)
    np.testing.assert_array_equal(fractions, [[1, np.nan, 0, np.nan]])


def test_phase_plot_shows_successes_and_failures(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [Episode([], bool(i % 2), rng.random(30 + i) < 0.5) for i in range(6)]
    path = phase_plot(episodes, tmp_path / "plots" / "phases.png", "a title")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert (np.abs(pixels - SUCCESS_COLOR).sum(axis=2) < 6).sum() > 50
    only_failures = phase_plot([episodes[0]], tmp_path / "one.png", "a title")
    pixels = np.asarray(Image.open(only_failures).convert("RGB")).astype(int)
    assert (np.abs(pixels - SUCCESS_COLOR).sum(axis=2) < 6).sum() == 0
