"""Small checkpoints, trained and saved by robomimic itself on the shipped human demonstrations of the door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_q2rl.bc.readers.robomimic_import import import_robomimic
from sb3_q2rl.data import Demonstrations

pytest.importorskip("robomimic", reason="needs the extra `robomimic`")
import_robomimic()

from robomimic.algo import algo_factory
from robomimic.config import config_factory
from robomimic.envs.wrappers import FrameStackWrapper
from robomimic.utils import file_utils, obs_utils, train_utils

__all__ = ["FrameStackWrapper", "file_utils", "obs_utils"]  # imported from here, because of the order of imports

# The sizes of Lift
SHAPES = {"object": (10,), "robot0_eef_pos": (3,), "robot0_eef_quat": (4,), "robot0_gripper_qpos": (2,)}
CAMERA = {"agentview_image": (3, 48, 48)}
ACTION_DIM = 7
HORIZON = 7  # of the RNN's memory and the transformer's window

KINDS: dict[str, dict[str, Any]] = {
    "BC": {},
    "BC-Gaussian": {"gaussian": {"enabled": True}},
    "BC-Gaussian-fixed": {"gaussian": {"enabled": True, "fixed_std": True, "init_std": 0.2}},
    "BC-GMM": {"gmm": {"enabled": True, "std_activation": "exp"}},
    "BC-RNN": {"rnn": {"enabled": True}},
    "BC-RNN-GMM": {"rnn": {"enabled": True}, "gmm": {"enabled": True}},
    "BC-RNN-GMM-GRU": {"rnn": {"enabled": True, "rnn_type": "GRU"}, "gmm": {"enabled": True}},
    "BC-Transformer": {"transformer": {"enabled": True}},
    "BC-Transformer-GMM": {"transformer": {"enabled": True}, "gmm": {"enabled": True}},
}
SMALL = {
    "actor_layer_dims": (32,),
    "gmm": {"num_modes": 3},
    "rnn": {"hidden_dim": 24, "num_layers": 2, "horizon": HORIZON},
    "transformer": {"context_length": HORIZON, "embed_dim": 16, "num_layers": 2, "num_heads": 2},
}


def observations(n: int, seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """n consecutive observations as an environment gives them: the door's numbers, cut to other keys, and images."""
    rng = np.random.default_rng(seed)
    demonstrations = Demonstrations.load("adroit-door-human")
    first = int(rng.integers(len(demonstrations) - n))
    rows, obs, start = np.asarray(demonstrations.observations)[first : first + n], {}, 0
    for key, shape in shapes.items():
        if len(shape) == 3:
            obs[key] = rng.integers(0, 256, (n, *shape[1:], shape[0]), dtype=np.uint8)  # height, width, channels
        else:
            obs[key] = rows[:, start : start + shape[0]].astype(np.float32)
            start += shape[0]
    return obs


def make_checkpoint(
    path: Path,
    kind: str,
    *,
    images: bool = False,
    normalise: bool = False,
    env_metadata: dict[str, Any] | None = None,
    steps: int = 4,
    seed: int = 0,
) -> Path:
    """Train for a moment, save with robomimic's own function."""
    shapes: dict[str, tuple[int, ...]] = {**SHAPES, **CAMERA} if images else {**SHAPES}
    config = config_factory("bc")
    with config.unlocked():
        config.algo.update(SMALL)
        config.algo.update(KINDS[kind])
        config.observation.modalities.obs.low_dim = list(SHAPES)
        config.train.hdf5_normalize_obs = normalise
        if images:
            config.observation.modalities.obs.rgb = list(CAMERA)
            config.observation.encoder.rgb.update(
                {
                    "core_kwargs": {
                        "feature_dimension": 16,
                        "backbone_class": "ResNet18Conv",
                        "pool_class": "SpatialSoftmax",
                        "pool_kwargs": {"num_kp": 8},
                    },
                    "obs_randomizer_class": "CropRandomizer",
                    "obs_randomizer_kwargs": {"crop_height": 40, "crop_width": 40},
                }
            )
        if config.algo.transformer.enabled:
            config.train.frame_stack = HORIZON
    with th.random.fork_rng(devices=[]):
        th.manual_seed(seed)
        obs_utils.initialize_obs_utils_with_config(config)
        algo = algo_factory("bc", config, shapes, ACTION_DIM, th.device("cpu"))
        raw = observations(4 * HORIZON, seed, shapes)
        # What the network sees: images channels first, in 0..1
        seen = obs_utils.process_obs_dict({key: value.astype(np.float32) for key, value in raw.items()})
        statistics = None
        if normalise:  # by hand: robomimic 0.3.0 cannot normalise a batch
            statistics = {
                key: {"mean": value.mean(0, keepdims=True), "std": value.std(0, keepdims=True) + 0.1}
                for key, value in seen.items()
            }
            seen = {key: (seen[key] - stats["mean"]) / stats["std"] for key, stats in statistics.items()}
        batch = {
            "obs": {key: th.as_tensor(value).unflatten(0, (4, HORIZON)) for key, value in seen.items()},
            "actions": th.rand(4, HORIZON, ACTION_DIM) * 1.6 - 0.8,
        }
        algo.set_train()
        for _ in range(steps):
            algo.train_on_batch(algo.process_batch_for_training(batch), epoch=0)
        # As after long training: scales of a few hundredths, so that most samples need no clipping
        decoder = algo.nets["policy"].state_dict()
        for name in [name for name in decoder if name.endswith("decoder.nets.scale.bias")]:
            decoder[name] -= 3.0 if config.algo.gmm.enabled else 0.0
    shape_metadata = {"all_shapes": shapes, "ac_dim": ACTION_DIM, "all_obs_keys": list(shapes), "use_images": images}
    env_metadata = env_metadata or {"env_name": "Lift", "env_version": "1.5.2", "type": 1, "env_kwargs": {}}
    train_utils.save_model(algo, config, env_metadata, shape_metadata, str(path), statistics)
    return path
