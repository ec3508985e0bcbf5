"""A camera that needs no hardware: librealsense's own software device."""

import threading
import time

import numpy as np
import pyrealsense2 as rs


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
