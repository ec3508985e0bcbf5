"""One door for BC checkpoints: ours by path, ours by name; other libraries' kinds find their place in the list."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import torch as th

from sb3_q2rl.assets import ASSETS
from sb3_q2rl.bc.checkpoint import read_checkpoint
from sb3_q2rl.bc.gaussian import GaussianBCPolicy
from sb3_q2rl.bc.policy import BCPolicy

# A reader returns None for a file that is not of its kind, and raises for one that is but is broken.
Reader = Callable[[Path], BCPolicy | None]

SHIPPED_POLICIES = {
    "adroit-door-human": ASSETS / "adroit_door_human_bc.pt",
    "adroit-pen-dapg": ASSETS / "adroit_pen_dapg_bc.pt",
}


def _read_gaussian(path: Path) -> BCPolicy | None:
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/data.pkl") for name in archive.namelist()):
            return None
    checkpoint = read_checkpoint(path)
    return GaussianBCPolicy.from_checkpoint(checkpoint) if checkpoint.get("format") == GaussianBCPolicy.FORMAT else None


# Asked in this order. The key is how the error message calls the kind.
_READERS: dict[str, Reader] = {"Gaussian or mixture policies of sb3_q2rl (`train_bc`)": _read_gaussian}


class BCPolicyAdapter:
    """Turns a checkpoint into a :class:`BCPolicy`."""

    @staticmethod
    def from_checkpoint(path_or_name: str | Path, device: str | th.device = "cpu") -> BCPolicy:
        """
        :param path_or_name: a checkpoint file, or the name of a shipped policy such as "adroit-door-human"
        :param device: where the policy shall run
        :raises FileNotFoundError: neither a file nor a shipped name
        :raises ValueError: an unknown kind of file, a damaged one, or one that wants to execute code
        """
        path = SHIPPED_POLICIES.get(str(path_or_name), Path(path_or_name))
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no BC checkpoint {path_or_name!s}: it is neither a file nor one of the shipped names "
                f"({', '.join(SHIPPED_POLICIES)})."
            )
        for read in _READERS.values():
            policy = read(path)
            if policy is not None:
                return policy.to(device)
        raise ValueError(
            f"{path} is no BC checkpoint of a known kind, or it is damaged. Known kinds: {'; '.join(_READERS)}. "
            f"Shipped names: {', '.join(SHIPPED_POLICIES)}."
        )
