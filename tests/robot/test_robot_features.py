"""``robot learn --bc-features``: a BC policy from images is improved from what its own encoders see."""

import pytest

pytest.importorskip("robosuite", reason="the simulated Franka needs the extra `robosuite`")

from sb3_q2rl.__main__ import main
from sb3_q2rl.bc import GaussianBCPolicy
from sb3_q2rl.envs.franka.transition_log import read_episodes
from sb3_q2rl.q2rl import load_model

CAMERAS = ("workspace_rgb", "wrist_rgb")


@pytest.mark.usefixtures("quick_fit")
def test_it_learns_from_features_and_records_images(tmp_path):
    shapes = dict.fromkeys(CAMERAS, (3, 84, 84))
    policy = GaussianBCPolicy(14, 7, net_arch=(8,), obs_keys=["state"], image_shapes=shapes)
    path, output = policy.eval().requires_grad_(False).save(tmp_path / "bc.pt"), tmp_path / "run"
    short = ["--steps", "20", "--max-episode-steps", "5", "--n-bc-episodes", "2", "--q-init-steps", "3"]
    files = ["--policy", str(path), "--output", str(output)]
    assert main(["robot", "learn", "--obs-mode", "image", "--bc-features", *files, *short]) == 0
    model = load_model(output / "model.zip")
    assert model.has_started
    assert {key: model.observation_space[key].shape for key in CAMERAS} == dict.fromkeys(CAMERAS, (64,))
    recorded = next(iter(read_episodes(output / "transitions.log")))
    assert recorded.steps[0].next_observation["wrist_rgb"].shape == (84, 84, 3)
