"""
How late is a 10 Hz actor? The simulated Franka held to the real clock, with the learner in another process and in the
same one. Prints, and writes to ``benchmarks/results/actor_jitter.json``, by how much the time from one command's
beginning to the next one's differs from 0.1 s, and how long decisions took: from the return of one command, the
``deciding_s`` of ``FCIConfig`` before its period ends, to the next one. Beside it, what the machine alone costs: the
lateness of a process that only sleeps, at the same time; and the processor time of the actor's thread for a step, which
no other process's load can lengthen.

    python benchmarks/actor_jitter.py --seconds 90
    chrt -f 10 python benchmarks/actor_jitter.py --seconds 90      # with real-time priority: as root
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.callbacks import BaseCallback

from sb3_q2rl import QGatedSAC
from sb3_q2rl.asynchronous import AsyncLearning
from sb3_q2rl.bc import GaussianBCPolicy
from sb3_q2rl.envs.franka.config import task_limits
from sb3_q2rl.envs.franka.fci import FCIConfig
from sb3_q2rl.envs.franka.franka_env import FrankaEnv
from sb3_q2rl.envs.franka.mujoco_robot import MujocoRobot
from sb3_q2rl.envs.franka.robot import Command, RobotState
from sb3_q2rl.envs.franka.tasks import PEG_INSERTION

PERIOD_S, DECIDING_S = 1 / FCIConfig().control_hz, FCIConfig().deciding_s
EPISODE_STEPS = 50
RESULTS = Path(__file__).parent / "results" / "actor_jitter.json"


class RealTimeRobot:
    """
    The simulated Franka on the clock of the wall, as ``FCIRobot``: a command that is there in time begins when the last
    one's period ends, and returns somewhat before its own does.
    """

    def __init__(self) -> None:
        self.simulated = MujocoRobot(PEG_INSERTION)
        self.began_s: list[float] = []
        self.decided_s: list[float] = []
        self._returned_s, self._end_s = 0.0, 0.0

    def connect(self) -> None:
        self.simulated.connect()

    def state(self) -> RobotState:
        return replace(self.simulated.state(), time_s=time.monotonic())

    def command(self, command: Command) -> Command:
        now_s = time.monotonic()
        self.decided_s.append(now_s - self._returned_s)
        time.sleep(max(0.0, self._end_s - now_s))
        began_s = time.monotonic()
        self.began_s.append(began_s)
        self._end_s += PERIOD_S
        if not began_s < self._end_s <= began_s + PERIOD_S:  # the first one, or it came too late
            self._end_s = began_s + PERIOD_S
        executed = self.simulated.command(command)
        time.sleep(max(0.0, self._end_s - DECIDING_S - time.monotonic()))
        self._returned_s = time.monotonic()
        return executed

    def move(self, command: Command, duration_s: float) -> None:
        self.simulated.move(command, duration_s)

    def images(self) -> Mapping[str, np.ndarray]:
        return self.simulated.images()

    def recover(self) -> None:
        self.simulated.recover()

    def stop(self) -> None:
        self.simulated.stop()

    def close(self) -> None:
        self.simulated.close()


class Phases(BaseCallback):
    """
    Which command belongs to which phase.

    :param robot: counts the commands
    :param seconds: how long to learn
    """

    def __init__(self, robot: RealTimeRobot, seconds: float) -> None:
        super().__init__()
        self.robot, self.seconds = robot, seconds
        self.steps: list[tuple[int, bool, bool]] = []
        self.processor_s: list[float] = []

    def _on_training_start(self) -> None:
        self.end_s = time.monotonic() + self.seconds

    def _on_step(self) -> bool:
        model = self.model
        assert isinstance(model, QGatedSAC)
        first = not self.steps or bool(self.locals["dones"][0])  # the next command follows a reset
        self.steps.append((len(self.robot.began_s) - 1, model.has_started, first))
        self.processor_s.append(time.thread_time())
        return time.monotonic() < self.end_s


SLEEPER = """
import json, sys, time
late, then = [], time.monotonic()
while time.monotonic() < float(sys.argv[1]):
    then += 0.1
    time.sleep(max(0.0, then - time.monotonic()))
    late.append(1000 * (time.monotonic() - then))
print(json.dumps(late))
"""


def summary(values: list[float]) -> dict[str, float]:
    """:return: of a list in ms"""
    p50, p99, worst = np.percentile(values, [50, 99, 100]).round(2).tolist()
    return {"n": len(values), "median_ms": p50, "p99_ms": p99, "max_ms": worst}


def measure(learner: str, seconds: float, obs_mode: Any) -> dict[str, Any]:
    """
    :param learner: "process" or "same"
    :param seconds: how long
    :param obs_mode: "state" or "image"
    :return: figures in ms
    """
    robot = RealTimeRobot()
    limits = task_limits(PEG_INSERTION, watchdog_s=1e6, max_force_n=1e6, max_recoveries=10_000)
    env = TimeLimit(FrankaEnv("peg_insertion", robot, obs_mode, limits=limits), EPISODE_STEPS)
    size = 14
    bc = GaussianBCPolicy(size, 7, obs_keys=["state"] if obs_mode == "image" else None).eval().requires_grad_(False)
    model = QGatedSAC(env=env, bc_policy=bc, n_bc_episodes=3, q_init_steps=100, device="cpu", seed=0)
    phases = Phases(robot, seconds)
    command = [sys.executable, "-c", SLEEPER, str(time.monotonic() + seconds)]
    sleeper = subprocess.Popen(command, stdout=subprocess.PIPE)
    with tempfile.TemporaryDirectory() as folder:
        callbacks: list[BaseCallback] = [phases]
        if learner == "process":
            callbacks.append(AsyncLearning(folder))
        model.learn(10**6, callback=callbacks)
    env.close()
    times = np.array(robot.began_s)
    processor = 1000 * np.diff(phases.processor_s)
    late, taken, decided = ({"BC acts": list[float](), "learning": list[float]()} for _ in range(3))
    for k, ((i, has_started, _), (j, _, ends)) in enumerate(pairwise(phases.steps)):
        if j == i + 1 and not ends:  # both in one episode
            phase = "learning" if has_started else "BC acts"
            late[phase].append(1000 * abs(times[j] - times[i] - PERIOD_S))
            taken[phase].append(processor[k])
            decided[phase].append(1000 * robot.decided_s[j])
    figures: dict[str, Any] = {"gradient_steps": model._n_updates, "actions": len(phases.steps)}
    for phase, values in late.items():
        if values:
            figures[phase] = {
                "jitter": summary(values),
                "time to decide": summary(decided[phase]),
                "actor's processor time": summary(taken[phase]),
            }
    figures["a process that only sleeps"] = summary(json.loads(sleeper.communicate()[0]))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--learner", nargs="+", default=["process", "same"], choices=["process", "same"])
    parser.add_argument("--obs-mode", default="state", choices=["state", "image"])
    arguments = parser.parse_args()
    th.set_num_threads(1)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for learner in arguments.learner:
        figures = measure(learner, arguments.seconds, arguments.obs_mode)
        figures["real-time priority"] = os.sched_getscheduler(0) == os.SCHED_FIFO
        figures["processors, load"] = [os.cpu_count(), round(os.getloadavg()[0], 1)]
        print(f"learner in {learner} process, {arguments.obs_mode}: {json.dumps(figures)}", flush=True)
        results[f"{arguments.obs_mode}, learner in {learner} process"] = figures
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
