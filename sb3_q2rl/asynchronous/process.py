"""The learner as a child of this process."""

from __future__ import annotations

import os
import subprocess
import sys

from sb3_q2rl.asynchronous.run_files import RunFiles


def start_learner(files: RunFiles) -> subprocess.Popen[bytes]:
    """
    It leaves when this process has gone.

    :param files: of the run
    :return: the process; what it prints is in the file for it
    """
    command = [sys.executable, "-m", "sb3_q2rl.asynchronous.learner", str(files.directory)]
    with open(files.output, "ab") as output:
        return subprocess.Popen([*command, "--actor-pid", str(os.getpid())], stdout=output, stderr=subprocess.STDOUT)
