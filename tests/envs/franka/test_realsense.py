"""The cameras, fed by librealsense's own software devices."""

import time

import pytest

pytest.importorskip(
    "pyrealsense2", reason="needs pyrealsense2 and libusb-1.0: pip install sb3_q2rl[realsense]", exc_type=ImportError
)

from software_camera import SoftwareCamera

from sb3_q2rl.envs.franka.realsense import STALE_S, RealSenseCameras
from sb3_q2rl.envs.franka.robot import RobotError


@pytest.fixture
def cameras(monkeypatch):
    plugged = [SoftwareCamera("101", (10, 20, 30)), SoftwareCamera("102", (40, 50, 60))]
    monkeypatch.setattr(RealSenseCameras, "_devices", lambda self, rs: [camera.device for camera in plugged])
    yield plugged
    for camera in plugged:
        camera.unplug()


def test_each_name_gets_its_camera(cameras):
    realsense = RealSenseCameras("102", "101")
    realsense.connect()
    images = realsense.images()
    assert {name: image.shape for name, image in images.items()} == dict.fromkeys(
        ("workspace_rgb", "wrist_rgb"), (84, 84, 3)
    )
    assert images["workspace_rgb"][0, 0].tolist() == [40, 50, 60]
    assert images["wrist_rgb"][-1, -1].tolist() == [10, 20, 30]
    realsense.close()
    with pytest.raises(RobotError, match=r"connect\(\)"):
        realsense.images()


def test_a_lost_camera_is_an_error_until_it_is_back(cameras):
    realsense = RealSenseCameras("101", "102")
    realsense.connect()
    cameras[1].unplug()
    time.sleep(STALE_S + 0.1)
    with pytest.raises(RobotError, match="Camera 102 has sent nothing"):
        realsense.images()
    realsense.close()
    cameras[1] = SoftwareCamera("102", (70, 80, 90))
    realsense.connect()
    assert realsense.images()["wrist_rgb"][0, 0].tolist() == [70, 80, 90]
    realsense.close()


def test_a_camera_that_is_not_there_is_named(cameras):
    with pytest.raises(RobotError, match=r"no camera '999' for 'wrist_rgb'. Connected: \['101', '102'\]"):
        RealSenseCameras("101", "999").connect()


def test_a_camera_without_the_stream_is_named(cameras):
    cameras.append(SoftwareCamera("103", (0, 0, 0), fps=15))
    with pytest.raises(RobotError, match="Camera 103 has no colour stream of 640x480"):
        RealSenseCameras("101", "103").connect()


def test_two_names_need_two_cameras():
    with pytest.raises(ValueError, match="both '101'"):
        RealSenseCameras("101", "101")
