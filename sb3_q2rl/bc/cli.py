"""``python -m sb3_q2rl bc``: from a file of demonstrations to a policy file."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import gymnasium as gym

from sb3_q2rl.bc.evaluate import evaluate_bc
from sb3_q2rl.bc.train import train_bc
from sb3_q2rl.data.demonstrations import Demonstrations
from sb3_q2rl.data.detect import options_for_space
from sb3_q2rl.demos.record import check_writable

# Fresh initial states: far from the seeds of the rollouts that chose the checkpoint.
_FRESH_SEED = 1_000_000


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the ``bc`` command to the program."""
    parser = subparsers.add_parser("bc", help="train a behaviour-cloned policy from demonstrations")
    parser.add_argument("--data", required=True, help="file of demonstrations, or a shipped name: adroit-door-human")
    parser.add_argument("--out", required=True, type=Path, help="policy file to write, e.g. door_bc.pt")
    parser.add_argument("--env", help="environment id; the checkpoint is then chosen by its success there")
    parser.add_argument("--net-arch", type=int, nargs="+", default=[256, 256], help="hidden layers")
    parser.add_argument("--n-components", type=int, default=1, help="Gaussians in the mixture; 1: a plain Gaussian")
    parser.add_argument("--sigma-min", type=float, default=0.05, help="floor of the policy's standard deviations")
    parser.add_argument("--obs-noise", type=float, default=0.0, help="noise on the normalised training observations")
    parser.add_argument("--n-epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--eval-interval", type=int, default=10, help="epochs between evaluations")
    parser.add_argument("--n-eval-episodes", type=int, default=50, help="rollouts of each evaluation, and of the last")
    parser.add_argument("--obs-keys", nargs="+", help="keys of Dict observations (robomimic files), in this order")
    parser.add_argument("--clip-actions", action="store_true", help="clip actions beyond [-1, 1] instead of refusing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train, save, and say what came out."""
    _check_out(args.out)
    env = gym.make(args.env) if args.env else None
    options = {} if env is None else options_for_space(args.data, env.observation_space)
    if args.obs_keys:
        options["obs_keys"] = args.obs_keys
    demonstrations = Demonstrations.load(args.data, clip_actions=args.clip_actions, **options)
    print(
        f"{args.data}: {demonstrations.n_episodes} episodes ({demonstrations.source}), {len(demonstrations)} steps, "
        f"{int(demonstrations.terminated.sum())} of them end in success"
    )
    policy = train_bc(
        demonstrations,
        env=env,
        net_arch=args.net_arch,
        n_components=args.n_components,
        sigma_min=args.sigma_min,
        n_epochs=args.n_epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        obs_noise=args.obs_noise,
        eval_interval=args.eval_interval,
        n_eval_episodes=args.n_eval_episodes,
        seed=args.seed,
        device=args.device,
    )
    selected = policy.training_record["selected"]
    print(
        f"Chosen by {policy.training_record['selected_by']}: epoch {selected['epoch']}, "
        f"held-out log-likelihood {selected['held_out_log_likelihood']:.2f} nats a step"
    )
    if env is not None:
        for name, deterministic in (("mode", True), ("sample", False)):
            rate = evaluate_bc(
                policy, env, n_episodes=args.n_eval_episodes, seed=_FRESH_SEED, deterministic=deterministic
            )
            print(f"Success in {args.env} by {name}: {rate} fresh episodes (95 % interval)")
        env.close()
    print(f"Saved to {policy.save(args.out)}")


def _check_out(path: Path) -> None:
    """:raises ValueError: the policy could not be saved there after its training"""
    with contextlib.suppress(OSError):  # what is wrong with the folder is told below
        path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f".{path.name}.unfinished"
    check_writable(path, unfinished)
    unfinished.unlink(missing_ok=True)
