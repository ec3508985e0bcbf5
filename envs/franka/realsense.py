"""Two Intel RealSense cameras: the newest picture of each, or an error when there is none."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sb3_q2rl.envs.franka.policy_images import to_policy_image
from sb3_q2rl.envs.franka.robot import RobotError

WIDTH, HEIGHT, FRAMES_PER_SECOND = 640, 480, 30
STALE_S = 0.5
# Cameras take a moment, and longer after the cable was put in
FIRST_FRAME_TIMEOUT_S = 5.0


class RealSenseCameras:
    """
    The :class:`~sb3_q2rl.envs.franka.fci.Cameras` of the paper's robot.

    :param workspace_serial: number of the camera that looks at the table; a wrong one is answered with those there are
    :param wrist_serial: of the one on the hand
    :raises ValueError: they are the same
    """

    def __init__(self, workspace_serial: str, wrist_serial: str) -> None:
        if workspace_serial == wrist_serial:
            raise ValueError(f"`workspace_serial` and `wrist_serial` are both {wrist_serial!r}; they are two cameras")
        self._serials = {"workspace_rgb": workspace_serial, "wrist_rgb": wrist_serial}
        self._streams: dict[str, _ColourStream] = {}

    def connect(self) -> None:
        if self._streams:
            return
        rs = _import_realsense()
        devices = {device.get_info(rs.camera_info.serial_number): device for device in self._devices(rs)}
        try:
            for name, serial in self._serials.items():
                if serial not in devices:
                    raise RobotError(
                        f"There is no camera {serial!r} for {name!r}. Connected: {sorted(devices) or 'none'}. Check "
                        "its cable (USB 3) and Intel's udev rules."
                    )
                self._streams[name] = _ColourStream(rs, devices[serial], serial)
            give_up_s = time.monotonic() + FIRST_FRAME_TIMEOUT_S
            for stream in self._streams.values():
                while not stream.has_picture and time.monotonic() < give_up_s:
                    time.sleep(0.01)
                stream.picture()
        except Exception as error:
            self.close()
            if isinstance(error, RobotError):
                raise
            raise RobotError(f"A camera could not be started: {error}. Take its cable out and in again") from error

    def images(self) -> Mapping[str, np.ndarray]:
        if not self._streams:
            raise RobotError("The cameras are not connected. Call `connect()` or `recover()`")
        return {name: to_policy_image(stream.picture()) for name, stream in self._streams.items()}

    def close(self) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.close()

    def _devices(self, rs: Any) -> Iterable[Any]:
        return rs.context().query_devices()


class _ColourStream:
    """One camera. librealsense's own thread brings the pictures."""

    def __init__(self, rs: Any, device: Any, serial: str) -> None:
        self._serial = serial
        self._newest: tuple[float, np.ndarray] | None = None
        self._sensor, profile = self._find_profile(rs, device)
        self._sensor.open(profile)
        self._sensor.start(self._receive)

    @property
    def has_picture(self) -> bool:
        return self._newest is not None

    def picture(self) -> np.ndarray:
        """:return: (480, 640, 3) uint8"""
        if self._newest is None:
            raise RobotError(f"Camera {self._serial} sends no pictures. Take its cable out and in again; use USB 3")
        taken_s, picture = self._newest
        if (age_s := time.monotonic() - taken_s) > STALE_S:
            raise RobotError(
                f"Camera {self._serial} has sent nothing for {age_s:.1f} s. Check its cable; `recover()` starts it anew"
            )
        return picture

    def close(self) -> None:
        try:
            self._sensor.stop()
            self._sensor.close()
        except RuntimeError:
            pass  # the camera is gone, which is how librealsense says so

    def _receive(self, frame: Any) -> None:
        # a copy: the frame's memory is librealsense's, which has few of them
        self._newest = (time.monotonic(), np.array(frame.get_data()))

    def _find_profile(self, rs: Any, device: Any) -> tuple[Any, Any]:
        for sensor in device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != rs.stream.color or profile.format() != rs.format.rgb8:
                    continue
                video = profile.as_video_stream_profile()
                if (video.width(), video.height(), video.fps()) == (WIDTH, HEIGHT, FRAMES_PER_SECOND):
                    return sensor, profile
        raise RobotError(
            f"Camera {self._serial} has no colour stream of {WIDTH}x{HEIGHT} at {FRAMES_PER_SECOND} frames a second. "
            "Use a USB 3 port"
        )


def _import_realsense() -> Any:
    try:
        import pyrealsense2
    except ImportError as error:
        raise ImportError(
            f"RealSense cameras need pyrealsense2 ({error}). Install it: pip install sb3_q2rl[realsense]; on Debian or "
            "Ubuntu also: apt install libusb-1.0-0"
        ) from error
    return pyrealsense2
