"""A Ray cluster, or this machine as one. Needs the extra ``ray``."""

from __future__ import annotations

from typing import Any


def connect(wanted_by: str) -> Any:
    """
    Where ``RAY_ADDRESS`` says, else to the cluster that runs on this machine, else to this machine's cores.

    :param wanted_by: what asks for Ray, for the error
    :return: Ray, connected
    :raises ImportError: Ray is not installed
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"{wanted_by} needs Ray: pip install 'sb3_q2rl[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    return ray
