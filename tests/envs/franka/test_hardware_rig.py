"""Arm, gripper and cameras together, each behind its own protocol, in one environment: what fails ends the episode."""

import time

import numpy as np
import pytest

pytest.importorskip("pymodbus", reason="needs pymodbus: pip install sb3_q2rl[franka]")
pytest.importorskip(
    "pyrealsense2", reason="needs pyrealsense2 and libusb-1.0: pip install sb3_q2rl[realsense]", exc_type=ImportError
)

from robotiq_server import Robotiq2F85Server, free_port
from software_camera import SoftwareCamera

from sb3_q2rl.envs.franka.config import task_limits
from sb3_q2rl.envs.franka.fci import FCIConfig, FCIRobot
from sb3_q2rl.envs.franka.franka_env import FrankaEnv
from sb3_q2rl.envs.franka.realsense import RealSenseCameras
from sb3_q2rl.envs.franka.robotiq import Robotiq2F85
from sb3_q2rl.envs.franka.tasks import find_task
from sb3_q2rl.envs.franka.transition_log import read_episodes


@pytest.fixture
def cameras(monkeypatch):
    plugged = [SoftwareCamera("101", (10, 20, 30)), SoftwareCamera("102", (40, 50, 60))]
    monkeypatch.setattr(RealSenseCameras, "_devices", lambda self, rs: [camera.device for camera in plugged])
    yield plugged
    for camera in plugged:
        camera.unplug()


def test_what_fails_ends_the_episode_and_comes_back(franky_sim, cameras, tmp_path):
    gripper, port = Robotiq2F85Server(), free_port()
    robot = FCIRobot(
        franky_sim.host,
        Robotiq2F85(gripper.serve_tcp(port)),
        RealSenseCameras("101", "102"),
        FCIConfig(realtime="ignore"),
    )
    limits = task_limits(find_task("kitting"), max_state_age_s=1.0, travel_height_m=0.2)
    env = FrankaEnv("kitting", robot=robot, obs_mode="image", limits=limits, record_to=tmp_path / "log")

    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["wrist_rgb"][0, 0].tolist() == [40, 50, 60]
    width_m = env.named_observation()["gripper"]
    np.testing.assert_allclose(width_m, [0.085, 0.085], atol=2e-3)
    close = np.array([0, 0, 0, 0, 0, 0, 1.0])
    for _ in range(8):
        assert "robot_error" not in env.step(close)[-1]
    # the fingers close at 100 mm/s, and what they do is observed
    assert env.named_observation()["gripper"][0] < 0.03
    assert env.named_observation()["gripper"][1] == 0.0

    cameras[1].unplug()
    assert "Camera 102" in until_it_fails(env)
    cameras[1] = SoftwareCamera("102", (70, 80, 90))
    observation, _ = env.reset()
    assert observation["wrist_rgb"][0, 0].tolist() == [70, 80, 90]

    gripper.stop()
    assert "gripper" in until_it_fails(env)
    gripper.serve_tcp(port)
    env.reset()
    env.step(close)

    gripper.fault = 0x0E
    assert "current was too high" in until_it_fails(env)
    env.reset()
    assert gripper.fault == 0
    env.close()
    gripper.stop()
    assert sum("robot_error" in episode.steps[-1].info for episode in read_episodes(tmp_path / "log")) == 3


def until_it_fails(env):
    """What the environment says when it does."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < 3.0:
        *_, truncated, info = env.step(np.zeros(7))
        if truncated:
            return info["robot_error"]
    return ""
