"""Metadata is in setup.cfg. This adds what it cannot say: the .pth file that belongs at the root of site-packages."""

import os

from setuptools import setup
from setuptools.command.build_py import build_py

START_UP_FILE = "sb3_q2rl_zoo.pth"


class BuildWithStartUpFile(build_py):
    """Ship the start-up file in wheels and in editable installs (whose root is what `install` calls `install_lib`)."""

    def _root(self) -> str:
        return self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib

    def run(self) -> None:
        super().run()
        self.mkpath(self._root())
        self.copy_file(START_UP_FILE, self._root())

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), os.path.join(self._root(), START_UP_FILE)]


setup(cmdclass={"build_py": BuildWithStartUpFile})
