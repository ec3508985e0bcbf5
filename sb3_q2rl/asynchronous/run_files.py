"""What actor and learner share: a folder. Its files are whole or not there, so that either may be killed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch as th


@dataclass(frozen=True)
class RunFiles:
    """
    :param directory: of the run
    """

    directory: Path

    @property
    def about(self) -> Path:
        """What is learnt here, to notice another algorithm or environment."""
        return self.directory / "about.json"

    @property
    def start(self) -> Path:
        """The model before it learnt anything."""
        return self.directory / "start.zip"

    @property
    def transitions(self) -> Path:
        """Written by the actor, followed by the learner: every transition, and every order to train."""
        return self.directory / "transitions.log"

    @property
    def weights(self) -> Path:
        """Written by the learner, read by the actor: the newest policy."""
        return self.directory / "weights.pt"

    @property
    def learner(self) -> Path:
        """The learner's whole state: policy, targets, optimisers."""
        return self.directory / "learner.pt"

    @property
    def lock(self) -> Path:
        """Held by the learner: there is one at a time."""
        return self.directory / "learner.lock"

    @property
    def output(self) -> Path:
        """What the learner prints, and why it failed."""
        return self.directory / "learner.txt"


def load_whole(path: Path, device: th.device | str) -> dict[str, Any]:
    """
    :param path: written by :func:`write_checkpoint`
    :param device: where its tensors go
    :return: what was saved; the file is not able to run code
    """
    return th.load(path, map_location=device, weights_only=True)
