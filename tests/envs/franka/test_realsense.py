"""The cameras, fed by librealsense's own software devices."""

import threading
import time

import numpy as np
import pytest

rs = pytest.importorskip(
    "pyrealsense2", reason="needs pyrealsense2 and libusb-1.0: pip install sb3_q2rl[realsense]", exc_type=ImportError
)

from sb3_q2rl.envs.franka.realsense import STALE_S, RealSenseCameras
from sb3_q2rl.envs.franka.robot import RobotError


class SoftwareCamera:
    """A device that sends pictures of one colour, 30 a second, until it is unplugged."""

    def __init__(self, serial, colour, fps=30):
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.serial_number, serial)
        self._sensor = self.device.add_sensor("Stereo Module")
        stream = rs.video_stream()
        stream.type, stream.fmt, stream.uid = rs.stream.color, rs.format.rgb8, int(serial)
        stream.width, stream.height, stream.fps, stream.bpp = 640, 480, fps, 3
        stream.intrinsics = rs.intrinsics()
        self._profile = self._sensor.add_video_stream(stream).as_video_stream_profile()
        self._colour = colour
        self.unplugged = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self):
        number = 0
        while not self.unplugged.wait(1 / 30):
            frame = rs.software_video_frame()
            frame.pixels = np.full((480, 640, 3), self._colour, dtype=np.uint8)
            frame.stride, frame.bpp, frame.frame_number, frame.profile = 3 * 640, 3, number, self._profile
            frame.timestamp, frame.domain = 1000 * time.monotonic(), rs.timestamp_domain.hardware_clock
            self._sensor.on_video_frame(frame)
            number += 1

    def unplug(self):
        self.unplugged.set()
        self._thread.join()


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
