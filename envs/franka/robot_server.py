"""The robot's side of a socket: runs on the real-time machine, and stops the arm when the client falls silent."""

from __future__ import annotations

import threading
import time
from typing import Any

from sb3_q2rl.envs.franka.remote_messages import Key, from_plain, import_zmq, pack, to_plain, unpack
from sb3_q2rl.envs.franka.robot import FrankaRobot, RobotError

# A client says "alive" five times in this time. Half a second of network trouble is no reason to stop an arm.
CLIENT_SILENCE_S = 1.0
_METHODS = ("connect", "state", "command", "move", "images", "recover", "close")
_WORKER_ADDRESS = "inproc://robot"


def serve(
    robot: FrankaRobot,
    key: Key,
    host: str = "127.0.0.1",
    port: int = 5588,
    end: threading.Event | None = None,
) -> None:
    """
    Serve one client at a time until ``end`` is set or Ctrl-C; then the robot is closed.

    :param robot: a real one: its states are dated by ``time.monotonic``
    :param key: the client must have the same
    :param host: address to listen at; by default this machine only
    :param port: TCP
    :param end: set it to return
    :raises ImportError: pyzmq or msgpack is missing
    :raises RobotError: the port is taken
    """
    zmq = import_zmq()
    end = threading.Event() if end is None else end
    context = zmq.Context()
    doorman = zmq.auth.thread.ThreadAuthenticator(context)
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.PAIR)
    worker = threading.Thread(target=_work, args=(robot, context, zmq), name="robot", daemon=True)
    try:
        doorman.start()
        doorman.configure_curve_callback("*", credentials_provider=_OneClient(key.client_public))
        front.curve_server, front.curve_secretkey = True, key.server_secret.encode()
        front.linger = 0
        try:
            front.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            raise RobotError(
                f"Cannot listen at {host}:{port}: {error}. Choose another `port`, or end who has it"
            ) from error
        back.bind(_WORKER_ADDRESS)
        worker.start()
        _Desk(robot, front, back).run(zmq, end)
    except KeyboardInterrupt:
        pass
    finally:
        robot.stop()
        if worker.is_alive():
            back.send_multipart([b"", pack([0, 0, "end", []])])
            worker.join()
        robot.close()
        doorman.stop()
        context.destroy(linger=0)


class _OneClient:
    """Asked by pyzmq whether a client's key is the right one."""

    def __init__(self, client_public: str) -> None:
        self._client_public = client_public.encode()

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._client_public


class _Desk:
    """Answers at once what needs no robot, hands the rest to the worker, watches the client."""

    def __init__(self, robot: FrankaRobot, front: Any, back: Any) -> None:
        self._robot = robot
        self._front = front
        self._back = back
        self._owner: str | None = None
        self._heard_s = 0.0
        self._is_busy = False

    def run(self, zmq: Any, end: threading.Event) -> None:
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        poller.register(self._back, zmq.POLLIN)
        while not end.is_set():
            ready = dict(poller.poll(100))
            if self._back in ready:
                self._front.send_multipart(self._back.recv_multipart())
                self._is_busy = False
            if self._front in ready:
                self._receive(*self._front.recv_multipart())
            elif self._owner is not None and time.monotonic() - self._heard_s > CLIENT_SILENCE_S:
                self._owner = None
                self._robot.stop()

    def _receive(self, client: bytes, *parts: bytes) -> None:
        try:
            session, number, method, _ = unpack(parts[0])
        except (ValueError, IndexError):
            return  # not one of ours; there is nothing to answer
        if method in ("connect", "recover") and self._owner is None:
            self._owner = session
        if session != self._owner:
            silent = (
                "The robot's server does not know this client (any more): it was silent, or never called `connect()`."
            )
            taken = "Another client has the robot."
            self._refuse(client, number, f"{silent if self._owner is None else taken} `recover()` asks for the robot")
            return
        self._heard_s = time.monotonic()
        if method == "alive":
            self._front.send_multipart([client, pack([number, "done", None])])
        elif method == "stop":
            self._robot.stop()
            self._heard_s = time.monotonic()
            self._front.send_multipart([client, pack([number, "done", None])])
        elif method not in _METHODS:
            self._refuse(client, number, f"The robot's server knows no {method!r}: update the older of the two sides")
        elif self._is_busy:
            self._refuse(client, number, "The robot is still busy with an earlier request. `stop()` interrupts it")
        else:
            self._is_busy = True
            self._back.send_multipart([client, parts[0]])
            if method == "close":
                self._owner = None

    def _refuse(self, client: bytes, number: int, message: str) -> None:
        self._front.send_multipart([client, pack([number, "failed", [message, True]])])


def _work(robot: FrankaRobot, context: Any, zmq: Any) -> None:
    """The thread that waits for the robot."""
    line = context.socket(zmq.PAIR)
    line.connect(_WORKER_ADDRESS)
    while True:
        client, request = line.recv_multipart()
        _, number, method, arguments = unpack(request)
        if method == "end":
            line.close()
            return
        try:
            result = getattr(robot, method)(*map(from_plain, arguments))
            reply = [number, "done", to_plain(result if method != "images" else dict(result))]
        except RobotError as error:
            reply = [number, "failed", [str(error), error.recoverable]]
        except Exception as error:  # a mistake in a message or in a backend: the client shall hear of it
            reply = [number, "failed", [f"The robot's server failed in `{method}`: {error!r}", False]]
        line.send_multipart([client, pack(reply)])
