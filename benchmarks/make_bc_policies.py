"""
How the shipped BC policies were made. On one core each takes about 5 minutes:

    python benchmarks/make_bc_policies.py door --out door_bc.pt
    python benchmarks/make_bc_policies.py pen --out pen_bc.pt
    python benchmarks/make_bc_policies.py lift --out lift_bc.pt       (likewise can, square, kitchen)

The seeds of the rollouts that choose a checkpoint, of the pen demonstrations and of the final measurement are far
apart, so the success printed at the end is that of initial states which nothing was chosen by.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

import gymnasium as gym
import numpy as np
import torch as th

import sb3_q2rl.envs  # noqa: F401  registers the environments
from sb3_q2rl.assets import ASSETS
from sb3_q2rl.bc import GaussianBCPolicy, train_bc
from sb3_q2rl.bc.evaluate import evaluate_bc
from sb3_q2rl.common.evaluation import share_done
from sb3_q2rl.data import Demonstrations
from sb3_q2rl.data.assemble import RecordedEpisode, assemble
from sb3_q2rl.data.detect import options_for_space
from sb3_q2rl.demos.record import record_demonstrations

PEN_DEMONSTRATION_SEED = 500_000
FRESH_SEED = 1_000_000
N_FRESH_EPISODES = 300
# of the recordings of scripted experts, on actions in [-1, 1]
DEMONSTRATION_NOISE = 0.1


class Recipe(NamedTuple):
    """
    How the clone of a scripted expert is made.

    :param env_id: the task
    :param n_demonstrations: so few that the clone succeeds about as often as the paper's
    :param sigma_min: floor of the scales. That of the recordings' noise keeps the densities honest: no clone of so few
        demonstrations knows better
    :param n_epochs: of training
    :param eval_interval: epochs between evaluations of the likelihood of held-out demonstrations, which chooses. If it
        is ``n_epochs``, the last checkpoint is taken: that likelihood is highest after a few epochs, when the policy
        still misses what it reaches for
    """

    env_id: str
    n_demonstrations: int
    sigma_min: float
    n_epochs: int
    eval_interval: int


RECIPES = {
    "lift": Recipe("RobomimicLift-v0", 16, sigma_min=DEMONSTRATION_NOISE, n_epochs=400, eval_interval=400),
    "lift-image": Recipe("RobomimicLiftImage-v0", 7, sigma_min=DEMONSTRATION_NOISE, n_epochs=200, eval_interval=200),
    "can-image": Recipe("RobomimicCanImage-v0", 12, sigma_min=DEMONSTRATION_NOISE, n_epochs=200, eval_interval=200),
    "can": Recipe("RobomimicCan-v0", 60, sigma_min=DEMONSTRATION_NOISE, n_epochs=150, eval_interval=150),
    "square": Recipe("RobomimicSquare-v0", 120, sigma_min=DEMONSTRATION_NOISE, n_epochs=150, eval_interval=150),
    "kitchen": Recipe("FrankaKitchenComplete-v0", 53, sigma_min=DEMONSTRATION_NOISE, n_epochs=150, eval_interval=150),
    "peg": Recipe("FrankaPegInsertion-v0", 25, sigma_min=DEMONSTRATION_NOISE, n_epochs=100, eval_interval=100),
    "pipe": Recipe("FrankaPipeAssembly-v0", 60, sigma_min=DEMONSTRATION_NOISE, n_epochs=100, eval_interval=100),
    "kitting": Recipe("FrankaKitting-v0", 120, sigma_min=DEMONSTRATION_NOISE, n_epochs=150, eval_interval=150),
}


class DAPGExpert(NamedTuple):
    """
    The published DAPG policy of the pen task: a tanh MLP with a Gaussian of fixed scale on top (see assets/README.md).

    :param arrays: its weights by name
    """

    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: Path) -> DAPGExpert:
        with np.load(path, allow_pickle=False) as file:
            return cls({name: file[name] for name in file.files})

    def act(self, obs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """
        :param obs: (obs_dim,)
        :param rng: of the exploration noise, which its authors trained it with
        :return: (action_dim,) in [-1, 1]
        """
        a = self.arrays
        x = (obs - a["in_shift"]) / (a["in_scale"] + 1e-8)
        for layer in (0, 1):
            x = np.tanh(a[f"w{layer}"] @ x + a[f"b{layer}"])
        mean = a["out_scale"] * (a["w2"] @ x + a["b2"]) + a["out_shift"]
        return np.clip(mean + np.exp(a["log_std"]) * rng.standard_normal(len(mean)), -1.0, 1.0).astype(np.float32)


def pen_demonstrations(env: gym.Env, n_episodes: int) -> Demonstrations:
    """
    :param env: the pen task
    :param n_episodes: number of successful episodes of the DAPG expert to record
    """
    expert = DAPGExpert.load(ASSETS / "adroit_pen_dapg_expert.npz")
    rng = np.random.default_rng(PEN_DEMONSTRATION_SEED)
    episodes: list[RecordedEpisode] = []
    seed = PEN_DEMONSTRATION_SEED
    while len(episodes) < n_episodes:
        observations = [env.reset(seed=seed)[0]]
        actions, rewards, over, terminated = [], [], False, False
        while not over:
            actions.append(expert.act(observations[-1], rng))
            obs, reward, terminated, truncated, _ = env.step(actions[-1])
            observations.append(obs)
            rewards.append(float(reward))
            over = terminated or truncated
        if terminated:
            episodes.append(RecordedEpisode(np.stack(observations), np.stack(actions), np.array(rewards), terminated))
        seed += 1
    print(f"{n_episodes} successful pen episodes from {seed - PEN_DEMONSTRATION_SEED} of the DAPG expert")
    return assemble(episodes, origin="DAPG expert", source="policy-generated", clip_actions=False)


def make_door() -> tuple[GaussianBCPolicy, gym.Env]:
    """The Adroit door from 25 human demonstrations."""
    env = gym.make("AdroitHandDoorBinary-v0")
    demonstrations = Demonstrations.load("adroit-door-human")
    policy = train_bc(
        demonstrations, env=env, weight_decay=1e-2, n_epochs=100, eval_interval=25, n_eval_episodes=100, seed=0
    )
    return policy, env


def make_pen() -> tuple[GaussianBCPolicy, gym.Env]:
    """The Adroit pen from successful episodes of the DAPG expert."""
    env = gym.make("AdroitHandPenBinary-v0")
    demonstrations = pen_demonstrations(env, n_episodes=50)
    policy = train_bc(demonstrations, env=env, n_epochs=100, eval_interval=20, n_eval_episodes=100, seed=0)
    return policy, env


def make_scripted(recipe: Recipe) -> tuple[GaussianBCPolicy, gym.Env]:
    """
    A task that has a scripted expert, from a few of its noisy demonstrations.

    :param recipe: how
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demos.hdf5"
        record_demonstrations(recipe.env_id, path, recipe.n_demonstrations, noise=DEMONSTRATION_NOISE, seed=0)
        env = gym.make(recipe.env_id)
        demonstrations = Demonstrations.load(path, **options_for_space(path, env.observation_space))
    policy = train_bc(
        demonstrations,
        n_components=5,
        sigma_min=recipe.sigma_min,
        n_epochs=recipe.n_epochs,
        eval_interval=recipe.eval_interval,
        seed=0,
    )
    return policy, env


MAKERS: dict[str, Callable[[], tuple[GaussianBCPolicy, gym.Env]]] = {
    "door": make_door,
    "pen": make_pen,
    **{task: functools.partial(make_scripted, recipe) for task, recipe in RECIPES.items()},
}


class Scores(gym.Wrapper):
    """
    Keeps how much of the task each episode finished: D4RL scores the kitchen by the share of its sub-tasks. Where an
    environment does not tell, all or nothing.

    :param env: the task
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.scores: list[float] = []

    def step(self, action: np.ndarray) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """:return: as the environment's"""
        result = self.env.step(action)
        _, _, terminated, truncated, info = result
        if terminated or truncated:
            self.scores.append(share_done(info))
        return result


def main() -> None:
    """Train, save, and measure on fresh initial states."""
    parser = argparse.ArgumentParser(description="Make one of the BC policies that are shipped with sb3_q2rl.")
    parser.add_argument("task", choices=list(MAKERS))
    parser.add_argument("--episodes", type=int, default=N_FRESH_EPISODES, help="of the final measurement")
    parser.add_argument("--out", type=Path, required=True, help="policy file to write")
    args = parser.parse_args()
    th.set_num_threads(1)
    policy, env = MAKERS[args.task]()
    for name, deterministic in (("mode", True), ("sample", False)):
        scored = Scores(env)
        rate = evaluate_bc(policy, scored, n_episodes=args.episodes, seed=FRESH_SEED, deterministic=deterministic)
        score = float(np.mean(scored.scores))
        policy.training_record[f"success_by_{name}"] = rate._asdict() | {"score": score}
        print(f"success by {name}: {rate} fresh episodes (95 % Wilson interval), mean score {score:.2f}")
    print(f"saved to {policy.save(args.out)}")


if __name__ == "__main__":
    main()
