"""Reader of robomimic checkpoints: what is supported, and what is refused with its reason."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_q2rl.bc.density import Density
from sb3_q2rl.bc.memoryless import freeze
from sb3_q2rl.bc.readers.robomimic_import import build_network, read_config
from sb3_q2rl.bc.readers.robomimic_observations import RobomimicObservations
from sb3_q2rl.bc.readers.robomimic_policies import RobomimicBCPolicy, RobomimicRNNPolicy, RobomimicTransformerPolicy
from sb3_q2rl.bc.source import CheckpointFile
from sb3_q2rl.data.robosuite_objects import object_conversion

SUPPORTED = "BC, BC-Gaussian, BC-GMM, BC-RNN, BC-RNN-GMM, BC-Transformer, BC-Transformer-GMM"


def read_robomimic(file: CheckpointFile) -> RobomimicBCPolicy | None:
    """
    :param file: any checkpoint
    :return: the policy, frozen, on the CPU; ``None`` if the file is not robomimic's
    :raises ValueError: an algorithm or option that is not supported, an incomplete file, keys that do not match
    :raises ImportError: robomimic is not installed
    """
    checkpoint = file.content
    if not {"algo_name", "config", "shape_metadata", "model"} <= checkpoint.keys():
        return None
    try:
        _check_supported(checkpoint["algo_name"], json.loads(checkpoint["config"]), str(file.path))
        config = read_config(checkpoint["config"])
        network = build_network(config, checkpoint)
    except (KeyError, TypeError, AttributeError, RuntimeError, AssertionError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{file.path} is a robomimic checkpoint, but its network could not be built. Either it is incomplete, "
            "or it was written by a version of robomimic whose networks differ from the installed one's: install that "
            f"version. ({str(error)[:400] or repr(error)})"
        ) from error
    _check_actions(network, checkpoint, str(file.path))

    modalities = {name: tuple(keys) for name, keys in config.observation.modalities.obs.items()}
    shapes = {key: tuple(shape) for key, shape in network.obs_shapes.items()}  # type: ignore[operator, union-attr]
    observations = RobomimicObservations(
        shapes,
        modalities,
        file.options.observation_keys,
        checkpoint.get("obs_normalization_stats"),
        object_conversion(checkpoint.get("env_metadata") or {}, shapes.get("object", ())),
    )
    density = Density.of(file.options.density)
    algo = config.algo
    policy: RobomimicBCPolicy
    if algo.rnn.enabled:
        policy = RobomimicRNNPolicy(network, observations, density, algo.rnn.horizon)
    elif algo.transformer.enabled:
        policy = RobomimicTransformerPolicy(network, observations, density, algo.transformer.context_length)
    else:
        policy = RobomimicBCPolicy(network, observations, density)
    freeze(policy, f"The robomimic checkpoint {file.path}")
    return policy


def _check_supported(algo_name: str, config: Mapping[str, Any], path: str) -> None:
    """Before robomimic is imported: refusing what cannot be read takes no installation."""
    algo, observation = config["algo"], config["observation"]

    def enabled(part: str) -> bool:
        return bool(algo.get(part, {}).get("enabled", False))

    kind = "BC-VAE" if algo_name == "bc" and enabled("vae") else algo_name.upper()
    if kind != "BC":
        raise ValueError(f"{path} is a robomimic checkpoint of {kind}. Supported: {SUPPORTED}.")
    goals = [key for keys in observation["modalities"].get("goal", {}).values() for key in keys]
    frames = config.get("train", {}).get("frame_stack", 1)
    refused = {
        f"is conditioned on the goals {goals}": goals,
        "plans its actions from the first observation alone (`algo.rnn.open_loop`)": (
            enabled("rnn") and algo["rnn"].get("open_loop", False)
        ),
        "predicts future actions (`algo.transformer.pred_future_acs`)": (
            enabled("transformer") and algo["transformer"].get("pred_future_acs", False)
        ),
        f"reads {frames} stacked frames (`train.frame_stack`) without a transformer": (
            frames > 1 and not enabled("transformer")
        ),
    }
    for what, holds in refused.items():
        if holds:
            raise ValueError(f"The robomimic policy in {path} {what}, which is not supported. Train one without.")


def _check_actions(network: Any, checkpoint: Mapping[str, Any], path: str) -> None:
    if getattr(network, "use_tanh", False):
        raise ValueError(
            f"The robomimic policy in {path} squashes its samples by tanh (`use_tanh`), which robomimic's own "
            "configurations never do; it is not supported."
        )
    keys = json.loads(checkpoint["config"]).get("train", {}).get("action_keys", ["actions"])
    if keys != ["actions"]:
        raise ValueError(
            f"The robomimic policy in {path} was trained on the action keys {keys}; only `actions` are read. Absolute "
            "poses (`actions_abs`) would be taken for shares of the largest step. Train it on `actions`."
        )
    # As text: where the controllers stand in it depends on robosuite's version
    environment = str(checkpoint.get("env_metadata"))
    if any(absolute in environment for absolute in ("'control_delta': False", "'input_type': 'absolute'")):
        warnings.warn(
            f"The robomimic policy in {path} was trained for a controller of absolute poses (`control_delta: False`, "
            '`input_type: "absolute"`). It fits an environment of such actions only, which ours are not.',
            stacklevel=2,
        )
    for key, statistics in (checkpoint.get("action_normalization_stats") or {}).items():
        if np.any(np.asarray(statistics["offset"])) or np.any(np.asarray(statistics["scale"]) != 1.0):
            raise ValueError(
                f"The robomimic policy in {path} was trained on rescaled actions ({key!r} by {statistics}), but "
                "actions are taken as they are, in [-1, 1]. Train it with `normalization: null` in "
                "`train.action_config`."
            )
