"""A server of a Franka control box's protocol, on loopback."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def host_of_our_own(network):
    """
    libfranka's port is fixed, and tests run side by side: each process has its own 127.x.y.z.

    :param network: the x, one for each server of the process
    """
    return f"127.{network}.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"


def fork(run):
    """
    A process without another start of Python and torch, which take long.

    :param run: what it does; it ends with status 0 when this returns, else 1
    :return: its id
    """
    if (process := os.fork()) == 0:
        try:
            run()
            os._exit(0)
        finally:
            os._exit(1)
    return process


class FrankySim:
    """
    franky-sim's robot as a process of its own, which can be killed and frozen.

    :param host: to listen at
    """

    def __init__(self, host):
        self.host = host
        self._process = None

    def start(self):
        if importlib.util.find_spec("franky") is None or importlib.util.find_spec("franky_sim") is None:
            pytest.skip("needs franky-control and franky-sim: pip install sb3_q2rl[franka,dev]")
        command = [str(Path(sys.executable).with_name("franky-sim")), "--simulator", "mujoco", "--hostname", self.host]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self._process.stdout:
            if "Connect to the server" in line:
                return
        pytest.fail("franky-sim did not start")

    def kill(self):
        self._process.kill()
        self._process.wait()

    def freeze(self):
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)
        time.sleep(0.2)


@pytest.fixture(scope="module")
def franky_sim():
    """A server that lives as long as a test module."""
    server = FrankySim(host_of_our_own(7))
    server.start()
    yield server
    server.kill()
