"""robomimic's networks, built without leaving a trace in its global state. The only file that imports robomimic."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch as th
from torch import nn

# robomimic keeps in module globals which observation key is an image. Networks read them while they are built, so
# only one may be built at a time, and whoever trains in the same process must find them as they were.
_LOCK = threading.RLock()
_GLOBALS = ("OBS_MODALITIES_TO_KEYS", "OBS_KEYS_TO_MODALITIES", "DEFAULT_ENCODER_KWARGS")

# robomimic evaluates what stands under these names in a file's configuration as Python. (R3MConv and MVPConv are left
# out: they download their weights by a package of their own.)
_EVALUATED = {
    "backbone_class": (None, "ResNet18Conv", "ResNet50Conv", "CoordConv2d", "ShallowConv"),
    "pool_class": (None, "SpatialSoftmax", "SpatialMeanPool"),
}


def import_robomimic() -> None:
    """
    Make ``import robomimic`` work, also next to a torch without CUDA.

    :raises ImportError: it is not installed
    """
    with _LOCK, contextlib.redirect_stdout(io.StringIO()):  # it greets with a banner
        try:
            _repair_torchvision()
            import robomimic.algo
            import robomimic.utils.file_utils  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"A robomimic checkpoint needs robomimic: `pip install sb3_q2rl[robomimic]`. ({error})"
            ) from error


@cache
def _repair_torchvision() -> th.library.Library | None:
    """
    Registries offer torchvision for CUDA only. Next to a CPU torch its compiled operators are missing and its import
    fails, though robomimic uses nothing but the networks written in Python: declare the two operators that it misses.

    :return: the declarations; they last as long as this object, hence the cache
    """
    try:
        import torchvision
    except (RuntimeError, OSError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        operators = th.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            with contextlib.suppress(RuntimeError):  # declared already
                operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401

        return operators
    return None


def read_config(text: str) -> Any:
    """
    :param text: the checkpoint's ``config``, JSON
    :return: robomimic's Config: what the file says over the defaults of the installed version, which has settings that
        older and newer files do not have
    :raises ValueError: it names a network that robomimic would look up by executing the name
    """
    import_robomimic()
    from robomimic.config import config_factory
    from robomimic.utils.file_utils import update_config

    saved = json.loads(text)
    update_config(saved)  # names of robomimic 0.1
    _refuse_code(saved)
    config = config_factory("bc")
    config.unlock()
    for group in config.observation.modalities.values():
        for modality in group:
            group[modality] = []  # a default observation key is no observation key of the file
    config.update(saved)
    for encoder in config.observation.encoder.values():
        backbone = (encoder.get("core_kwargs") or {}).get("backbone_kwargs") or {}
        if backbone.get("pretrained"):
            backbone["pretrained"] = False  # no download: the file's weights follow
    config.lock()
    return config


def _refuse_code(config: Any) -> None:
    values = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for value in values:
        _refuse_code(value)
    for name, known in _EVALUATED.items():
        if isinstance(config, dict) and config.get(name) not in known:
            raise ValueError(
                f"This robomimic checkpoint is refused: its configuration has the `{name}` {config[name]!r:.200}, "
                f"which robomimic would execute. Known ones: {', '.join(map(str, known[1:]))}."
            )


def build_network(config: Any, checkpoint: Mapping[str, Any]) -> nn.Module:
    """
    :param config: see :func:`read_config`
    :param checkpoint: the robomimic checkpoint
    :return: its policy network, on the CPU
    :raises RuntimeError: the weights do not fit the network that the installed robomimic builds
    """
    from robomimic.algo import algo_factory

    shapes = checkpoint["shape_metadata"]
    # The random initial weights are overwritten at once: do not spend the caller's random numbers on them.
    with _obs_utils_of(config), th.random.fork_rng(devices=[]):
        algo = algo_factory("bc", config, shapes["all_shapes"], shapes["ac_dim"], th.device("cpu"))
    weights = checkpoint["model"]
    algo.nets.load_state_dict(weights.get("nets", weights))  # since 0.4 the optimisers are beside the networks
    return algo.nets["policy"]


@contextlib.contextmanager
def _obs_utils_of(config: Any) -> Iterator[None]:
    from robomimic.utils import obs_utils

    with _LOCK, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its image networks call torchvision in an outdated way
        before = {name: getattr(obs_utils, name) for name in _GLOBALS}
        try:
            obs_utils.initialize_obs_utils_with_config(config)
            yield
        finally:
            for name, value in before.items():
                setattr(obs_utils, name, value)
