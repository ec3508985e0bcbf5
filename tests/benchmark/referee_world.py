"""A world that processes of the referee can make by its id: ``referee_world:RefereeReach-v0``."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from worlds import HORIZON, ReachEnv, gaussian

from sb3_q2rl.benchmark.suite import Suite, load_suite
from sb3_q2rl.data.assemble import RecordedEpisode, assemble
from sb3_q2rl.data.npz import save_npz

ENV = "referee_world:RefereeReach-v0"
if "RefereeReach-v0" not in gym.registry:
    gym.register("RefereeReach-v0", entry_point="worlds:ReachEnv")

SMALL: dict[str, Any] = {"gradient_steps": 1, "policy_delay": 1, "batch_size": 16, "buffer_size": 3000}
SMALL_Q2RL = SMALL | {"n_bc_episodes": 3, "q_init_steps": 5}


class Doubled(gym.ObservationWrapper):
    """What a configuration may wrap around the environment."""

    n_made = 0

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        Doubled.n_made += 1
        self.observation_space = gym.spaces.Box(-4.0, 4.0, (2,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return 2 * observation


def demonstrations(path: Path) -> Path:
    """Walks straight to the origin."""
    env, episodes = ReachEnv(), []
    for seed in range(4):
        observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
        terminated = False
        while not terminated and len(actions) < HORIZON:
            actions.append(np.clip(-observations[-1], -1, 1))
            obs, reward, terminated, _, _ = env.step(2 * actions[-1])  # its actions reach to 2
            observations.append(obs)
            rewards.append(reward)
        episodes.append(RecordedEpisode(np.stack(observations), np.stack(actions), np.array(rewards), terminated))
    return save_npz(assemble(episodes, origin="a test", source="scripted", clip_actions=False), path)


def small_suite(folder: Path, algorithms: dict[str, Any], steps: int = 300, **changes: Any) -> tuple[Path, Suite]:
    """A suite of one task, written to ``folder`` with the files that it needs."""
    import yaml

    bc_policy = gaussian().save(folder / "bc.pt")
    content = {
        "name": "small",
        "tasks": {
            "reach": {
                "env": ENV,
                "steps": steps,
                "bc_policy": str(bc_policy),
                "demonstrations": str(demonstrations(folder / "demos.npz")),
            }
        },
        "algorithms": algorithms,
        "evaluation": {"every": 100, "episodes": 4, "n_envs": 2},
        "networks": {"net_arch": [8], "n_critics": 2},
        **changes,
    }
    path = folder / "small.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path, load_suite(path)
