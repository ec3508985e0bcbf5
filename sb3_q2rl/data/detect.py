"""Which reader does a file of demonstrations need?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sb3_q2rl.data.demonstrations import Demonstrations
from sb3_q2rl.data.npz import is_npz, load_npz
from sb3_q2rl.data.shipped import SHIPPED_DEMONSTRATIONS


def load_demonstrations(path_or_name: str | Path, *, clip_actions: bool = False, **options: Any) -> Demonstrations:
    """
    :param path_or_name: a file, or the name of a shipped data set
    :param clip_actions: clip actions beyond [-1, 1] instead of refusing them
    :param options: handed to the reader
    """
    if str(path_or_name) in SHIPPED_DEMONSTRATIONS:
        return SHIPPED_DEMONSTRATIONS[str(path_or_name)]()
    path = Path(path_or_name)
    if is_npz(path):
        return load_npz(path, clip_actions=clip_actions, **options)
    raise ValueError
