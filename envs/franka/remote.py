"""A robot behind a socket. This is our side; ``robot_server.serve`` runs on the machine that is wired to the arm."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sb3_q2rl.envs.franka.remote_messages import Key, from_plain, import_zmq, pack, to_plain, unpack
from sb3_q2rl.envs.franka.robot import Command, RobotError, RobotState
from sb3_q2rl.envs.franka.robot_server import CLIENT_SILENCE_S

HEARTBEAT_S = CLIENT_SILENCE_S / 5
# The server answers heartbeats whatever the robot does, save while it stops the arm, which takes up to 1 s
SERVER_SILENCE_S = 2.5
STOP_TIMEOUT_S = 0.9
# The robot itself gives up long before: this only ends the wait for a server that lives and does not answer
ANSWER_TIMEOUT_S = 30.0


class RemoteRobot:
    """
    A :class:`~sb3_q2rl.envs.franka.robot.FrankaRobot` that is somewhere else. Messages are encrypted and authenticated
    (CURVE). A thread says "alive"; when it cannot, the server stops the arm.

    :param host: of the server. Over a network that others use, prefer an SSH tunnel to 127.0.0.1
    :param port: of the server
    :param key: the server's; see :meth:`Key.generate`
    """

    def __init__(self, host: str, port: int, key: Key) -> None:
        self._address = f"tcp://{host}:{port}"
        self._key = key
        self._zmq: Any = None
        self._context: Any = None
        self._requests: Any = None
        self._request_lock = threading.Lock()
        self._stop_lock = threading.RLock()
        self._session = secrets.token_hex(8)
        self._number = 0
        self._closing = threading.Event()
        self._heartbeat: threading.Thread | None = None
        self._heard_s = 0.0

    def connect(self) -> None:
        if self._heartbeat is None:
            self._open("connect")

    def state(self) -> RobotState:
        sent_s = time.monotonic()
        state = self._request("state")
        # The server tells how old it was when it left. Nobody knows how long it was on its way: since we asked, at most
        return replace(state, time_s=state.time_s - (time.monotonic() - sent_s))

    def command(self, command: Command) -> Command:
        return self._request("command", command)

    def move(self, command: Command, duration_s: float) -> None:
        self._request("move", command, duration_s, timeout_s=duration_s + ANSWER_TIMEOUT_S)

    def images(self) -> Mapping[str, np.ndarray]:
        return self._request("images")

    def recover(self) -> None:
        self._hang_up()
        self._open("recover")

    def stop(self) -> None:
        # On a line of its own: another thread may be waiting for a move's end on the other
        with self._stop_lock:
            if self._heartbeat is None:
                return
            line = self._socket()
            self._send(line, 0, "stop")
            # Silence is no reason to raise: a server that hears nothing of us stops the arm by itself
            line.poll(1000 * STOP_TIMEOUT_S)
            line.close()

    def close(self) -> None:
        if self._heartbeat is not None:
            self.stop()
            # a server that does not hear this stops the arm when it hears no more of us
            with contextlib.suppress(RobotError):
                self._request("close")
            self._hang_up()

    def _open(self, method: str) -> None:
        self._zmq = import_zmq()
        self._context = self._zmq.Context()
        self._requests = self._socket()
        self._closing.clear()
        self._heard_s = time.monotonic()
        self._heartbeat = threading.Thread(target=self._say_alive, name="robot heartbeat", daemon=True)
        self._heartbeat.start()
        try:
            self._request(method)
        except RobotError:
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        with self._stop_lock:
            heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is not None:
            self._closing.set()
            heartbeat.join()
            with self._request_lock, self._stop_lock:
                self._context.destroy(linger=0)

    def _socket(self) -> Any:
        line = self._context.socket(self._zmq.DEALER)
        line.linger = 0
        line.curve_serverkey = self._key.server_public.encode()
        line.curve_publickey = self._key.client_public.encode()
        line.curve_secretkey = self._key.client_secret.encode()
        line.connect(self._address)
        return line

    def _send(self, line: Any, number: int, method: str, *arguments: Any) -> None:
        message = pack([self._session, number, method, [to_plain(item) for item in arguments]])
        # A server that refused the key hung up, and sending would wait for ever. The missing answer is noticed anyhow.
        with contextlib.suppress(self._zmq.Again):
            line.send(message, self._zmq.NOBLOCK)

    def _say_alive(self) -> None:
        """The thread: shows that this process lives, and notes when the server last showed it."""
        with self._socket() as line:
            while not self._closing.wait(HEARTBEAT_S):
                self._send(line, 0, "alive")
                while line.poll(0):
                    line.recv()
                    self._heard_s = time.monotonic()

    def _request(self, method: str, *arguments: Any, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        with self._request_lock:
            if self._heartbeat is None:
                raise RobotError(f"There is no connection to the robot's server for `{method}`. Call `connect()`")
            self._number += 1
            self._send(self._requests, self._number, method, *arguments)
            give_up_s = time.monotonic() + timeout_s
            while True:
                if self._requests.poll(1000 * HEARTBEAT_S):
                    number, outcome, result = unpack(self._requests.recv())
                    if number == self._number:  # others answer what we no longer wait for
                        break
                now = time.monotonic()
                if self._closing.is_set() or now > give_up_s or now - self._heard_s > SERVER_SILENCE_S:
                    raise RobotError(
                        f"The robot's server at {self._address} does not answer `{method}`. Is it running, with this "
                        "key, and is the network up? It stops the arm when it cannot hear us. `recover()` connects anew"
                    )
        if outcome == "failed":
            raise RobotError(*result)
        return from_plain(result)
