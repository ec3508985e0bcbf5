"""
A BC policy trained by robomimic itself, then measured through our adapter in our environment:

    python -m sb3_q2rl demos --env RobomimicLift-v0 --episodes 50 --noise 0.1 --output lift.hdf5
    python benchmarks/train_robomimic_bc.py --data lift.hdf5 --env RobomimicLift-v0 --out lift_rnn_gmm.pth

The configuration is in robomimic's own format, ``benchmarks/robomimic/bc_rnn_gmm.json``. The last checkpoint is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from pathlib import Path

import gymnasium as gym
import torch as th

import sb3_q2rl.envs  # noqa: F401  registers the environments
from sb3_q2rl import BCPolicyAdapter
from sb3_q2rl.bc.evaluate import evaluate_bc
from sb3_q2rl.bc.readers.robomimic_import import import_robomimic

CONFIG = Path(__file__).parent / "robomimic" / "bc_rnn_gmm.json"
FRESH_SEED = 1_000_000


def train(data: Path, config_path: Path, n_epochs: int | None, folder: str) -> list[Path]:
    """
    :param data: demonstrations in robomimic's layout
    :param config_path: robomimic's configuration
    :param n_epochs: instead of the configuration's
    :param folder: where robomimic writes
    :return: the checkpoints, by epoch
    """
    import_robomimic()
    from robomimic.config import config_factory
    from robomimic.scripts.train import train as robomimic_train

    settings = json.loads(config_path.read_text())
    config = config_factory(settings["algo_name"])
    with config.values_unlocked():
        config.update(settings)
        config.train.data = str(data)
        config.train.output_dir = folder
        config.train.num_epochs = n_epochs or config.train.num_epochs
    config.lock()
    robomimic_train(config, device=th.device("cpu"))
    checkpoints = Path(folder).rglob("model_epoch_*.pth")
    return sorted(checkpoints, key=lambda path: int(re.findall(r"model_epoch_(\d+)", path.name)[0]))


def main() -> None:
    """Train and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--env", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--episodes", type=int, default=100, help="of the measurement")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = train(args.data, args.config, args.epochs, folder)
        shutil.copy(checkpoints[-1], args.out)
    policy, env = BCPolicyAdapter.from_checkpoint(args.out), gym.make(args.env)
    rate = evaluate_bc(policy, env, n_episodes=args.episodes, seed=FRESH_SEED, deterministic=False)
    print(f"{args.out}: success by sample {rate} fresh episodes (95 % Wilson interval)")


if __name__ == "__main__":
    main()
