"""A server of a Robotiq 2F-85's protocol, on loopback TCP or a pseudo serial port."""

import asyncio
import os
import socket
import threading
import time
import tty

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


class Robotiq2F85Server:
    """
    A 2F-85 that answers Modbus RTU as the manual says. It moves in real time; an object may be between its fingers.

    :param object_at: position at which the closing fingers meet something
    """

    def __init__(self, object_at=None):
        self.object_at = object_at
        self.fault = 0
        self.power_cycle()

    def power_cycle(self):
        self._request = [0, 0, 0]
        self._position, self._touches = 3.0, False
        self._activated_s, self._then_s = None, time.monotonic()

    def _advance(self):
        now_s = time.monotonic()
        elapsed_s, self._then_s = now_s - self._then_s, now_s
        activate, go = self._request[0] >> 8 & 1, self._request[0] >> 11 & 1
        if not activate:
            self._activated_s, self.fault = None, 0  # this edge clears faults
        elif self._activated_s is None:
            self._activated_s = now_s + 0.3
        is_active = bool(activate) and now_s >= self._activated_s
        wanted, speed = self._request[1] & 0xFF, self._request[2] >> 8
        limited = min(max(wanted, 3), 230)
        self._touches = False
        if is_active and go and not self.fault:
            reach = (20 + 130 * speed / 255) / 85 * 227 * elapsed_s
            self._position += min(max(limited - self._position, -reach), reach)
            if self.object_at is not None and self._position >= self.object_at and limited > self.object_at:
                self._position, self._touches = float(self.object_at), True
        state = 3 if is_active else activate
        motion = 2 if self._touches else 3 if abs(self._position - limited) < 1 else 0
        return [
            (activate | go << 3 | state << 4 | motion << 6) << 8,
            self.fault << 8 | wanted,
            round(self._position) << 8,
        ]

    async def _answer(self, function_code, start, address, count, registers, values):
        if values is not None:
            for index, value in enumerate(values):
                self._request[address - 1000 + index] = int(value)
        for index, value in enumerate(self._advance()):
            if 0 <= 2000 - start + index < len(registers):
                registers[2000 - start + index] = value

    def _device(self):
        data = [SimData(address, values=[0] * 3, datatype=DataType.REGISTERS) for address in (1000, 2000)]
        return SimDevice(id=9, simdata=data, action=self._answer)

    def _serve(self, make_server):
        ready = threading.Event()

        async def serve():
            self._server, self._loop = make_server(), asyncio.get_running_loop()
            await self._server.serve_forever(background=True)
            self._done = asyncio.Event()
            ready.set()
            await self._done.wait()
            await self._server.shutdown()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        assert ready.wait(5)

    def serve_tcp(self, port):
        address = ("127.0.0.1", port)
        self._serve(lambda: ModbusTcpServer(self._device(), framer=FramerType.RTU, address=address))
        return f"tcp://127.0.0.1:{port}"

    def serve_pty(self):
        """:return: the serial port to be opened"""
        pairs = [os.openpty(), os.openpty()]
        for descriptor in (*pairs[0], *pairs[1]):
            tty.setraw(descriptor)
        self._cable = [pair[0] for pair in pairs]
        for source, sink in (self._cable, self._cable[::-1]):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()
        ours, theirs = (os.ttyname(pair[1]) for pair in pairs)
        self._serve(lambda: ModbusSerialServer(self._device(), framer=FramerType.RTU, port=ours, baudrate=115200))
        return theirs

    def stop(self):
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(5)


def _pump(source, sink):
    while True:
        os.write(sink, os.read(source, 512))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
