"""Small worlds and BC policies for the tests: each has a known answer."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from sb3_q2rl import BCStep, Demonstrations, QGatedSAC
from sb3_q2rl.bc import GaussianBCPolicy
from sb3_q2rl.bc.memoryless import MemorylessBCPolicy
from sb3_q2rl.common.buffers import BCSamples

HORIZON = 12


class ReachEnv(gym.Env):
    """
    A point walks to the origin: x' = x + 0.25 a. -1 a step, 0 and the end on arrival within ``radius``.

    :param kind: "flat", "dict", "image" or "goal" observations of the same world
    """

    def __init__(self, kind: str = "flat", horizon: int = HORIZON, radius: float = 0.2) -> None:
        self.kind, self.horizon, self.radius = kind, horizon, radius
        self.action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
        position = spaces.Box(-2.0, 2.0, (2,), np.float32)
        goal_space: dict[str, spaces.Space] = dict.fromkeys(("observation", "achieved_goal", "desired_goal"), position)
        observation_spaces: dict[str, spaces.Space] = {
            "flat": position,
            "dict": spaces.Dict({"position": position, "clock": spaces.Box(0, 1, (1,), np.float32)}),
            "image": spaces.Box(0, 255, (3, 36, 36), np.uint8),
            "goal": spaces.Dict(goal_space),
        }
        self.observation_space = observation_spaces[kind]

    def _observe(self) -> Any:
        position = self.x.astype(np.float32)
        if self.kind == "dict":
            return {"position": position, "clock": np.array([self.t / self.horizon], np.float32)}
        if self.kind == "goal":
            return {"observation": position, "achieved_goal": position, "desired_goal": np.zeros(2, np.float32)}
        if self.kind == "image":
            image = np.zeros((3, 36, 36), np.uint8)
            column, row = np.clip(((self.x + 2) / 4 * 34).astype(int), 0, 34)
            image[:, row : row + 2, column : column + 2] = 255
            return image
        return position

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        angle = self.np_random.uniform(0, 2 * np.pi)
        self.x = np.array([np.cos(angle), np.sin(angle)])
        self.t = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action.astype(np.float32)), action
        self.x = np.clip(self.x + 0.125 * action, -2, 2)  # actions reach to 2: 0.25 at full scale
        self.t += 1
        success = bool(np.linalg.norm(self.x) < self.radius)
        truncated = not success and self.t >= self.horizon
        return self._observe(), float(success) - 1.0, success, truncated, {"is_success": success}


class CameraReachEnv(gym.ObservationWrapper):
    """The same seen by a camera, with the position beside it."""

    def __init__(self) -> None:
        super().__init__(ReachEnv("image"))
        state = spaces.Box(-2, 2, (2,), np.float32)
        self.observation_space = spaces.Dict({"camera": self.env.observation_space, "state": state})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        return {"camera": observation, "state": self.env.unwrapped.x.astype(np.float32)}  # type: ignore[attr-defined]


class GoalReachEnv(ReachEnv):
    """The same with its goal, the origin, in the observation: for hindsight replay."""

    def __init__(self) -> None:
        super().__init__("goal")

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, _: Any) -> np.ndarray:
        return (np.linalg.norm(achieved - desired, axis=-1) < self.radius).astype(np.float32) - 1.0


class BanditEnv(gym.Env):
    """
    One step, then the end: Q(s, a) = 3 s - |a - m(s)|^2 / (2 width^2), with m(s) = (s / 3, -s / 3), s in [-1, 1].
    The Boltzmann policy of alpha Q is the Gaussian N(m(s), width), as :class:`BanditBC` is.
    """

    def __init__(self, width: float = 0.2, alpha: float = 1.0) -> None:
        self.width, self.alpha = width, alpha
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def q_value(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        best = np.concatenate([obs, -obs], axis=-1) / 3
        return self.alpha * (3 * obs[..., 0] - np.square(action - best).sum(-1) / (2 * self.width**2))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.obs = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.obs, {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.obs, float(self.q_value(self.obs, action)), True, False, {}


class _BCModule(nn.Module):
    """What a BC policy is once it has a distribution."""

    is_recurrent = False

    def distribution(self, obs: Any) -> Independent:
        raise NotImplementedError

    def step(self, obs: Any, state: Any, episode_start: Any, deterministic: bool = False) -> BCStep:
        distribution = self.distribution(obs)
        actions = distribution.mean if deterministic else distribution.sample()
        if self.is_recurrent:  # counts the steps of each environment's episode
            state = th.zeros(len(actions)) if state is None else state
            state = th.where(th.as_tensor(episode_start), th.zeros(()), state) + 1
        return BCStep(actions.clamp(-1, 1), distribution.log_prob(actions), distribution.entropy(), state)


class BanditBC(_BCModule):
    """pi(a|s) proportional to exp(Q(s, a) / alpha) of :class:`BanditEnv`."""

    def distribution(self, obs: Any) -> Independent:
        return Independent(Normal(th.cat([obs, -obs], dim=1) / 3, 0.2), 1)


class WalkHome(_BCModule):
    """A Gaussian BC policy that walks to the origin, more or less: a ~ N(-skill * x, sigma)."""

    def __init__(self, skill: float = 1.0, sigma: float = 0.3, is_recurrent: bool = False) -> None:
        super().__init__()
        self.skill = nn.Parameter(th.tensor(float(skill)), requires_grad=False)
        self.sigma = sigma
        self.is_recurrent = is_recurrent

    def distribution(self, obs: Any) -> Independent:
        if isinstance(obs, dict):
            obs = obs["position"] if "position" in obs else obs["observation"] - obs["desired_goal"]
        if obs.ndim == 4:  # where in the image is the white square?
            pixels = obs[:, 0].float()
            grid = th.linspace(-2, 2, pixels.shape[-1])
            total = pixels.sum(dim=(1, 2)).clamp(min=1)
            obs = th.stack([(pixels.sum(dim=1) * grid).sum(1) / total, (pixels.sum(dim=2) * grid).sum(1) / total], 1)
        return Independent(Normal((-self.skill * obs.float()).clamp(-1, 1), self.sigma), 1)


class TwoWays(MemorylessBCPolicy):
    """Along the first axis it walks home, along the second it goes left or, less often, right."""

    def distribution(self, obs: Any) -> MixtureSameFamily:
        ahead = (-obs[:, :1]).clamp(-1, 1)
        means = th.stack([th.cat([ahead, th.full_like(ahead, side)], dim=1) for side in (-0.5, 0.5)], dim=1)
        weights = Categorical(th.tensor([0.6, 0.4]).expand(len(obs), 2))
        return MixtureSameFamily(weights, Independent(Normal(means, 0.2), 1))


class NoDensity(WalkHome):
    """Acts the same, but cannot say how likely its actions are."""

    def step(self, obs: Any, state: Any, episode_start: Any, deterministic: bool = False) -> BCStep:
        return super().step(obs, state, episode_start, deterministic)._replace(log_prob=None, entropy=None)


class Witness(WalkHome):
    """Remembers what it was shown."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: list[th.Tensor] = []

    def step(self, obs: Any, state: Any, episode_start: Any, deterministic: bool = False) -> BCStep:
        self.seen.append(obs.clone())
        return super().step(obs, state, episode_start, deterministic)


def gaussian(kind: str = "flat") -> GaussianBCPolicy:
    """An untrained policy of the package's own kind: saved models hold it whole."""
    keys = {"dict": ["position", "clock"], "goal": ["observation", "desired_goal"]}.get(kind)
    with th.random.fork_rng(devices=[]):
        th.manual_seed(1)
        policy = GaussianBCPolicy({"flat": 2, "dict": 3, "goal": 4}[kind], 2, net_arch=(8,), obs_keys=keys)
    return policy.eval().requires_grad_(False)


def camera_gaussian() -> GaussianBCPolicy:
    """For :class:`CameraReachEnv`, not trained."""
    policy = GaussianBCPolicy(2, 2, net_arch=(8,), obs_keys=["state"], image_shapes={"camera": (3, 36, 36)})
    return policy.eval().requires_grad_(False)


def reach(kind: str = "flat", n_envs: int = 1, seed: int = 0, **kwargs: Any) -> VecEnv:
    return make_vec_env(GoalReachEnv if kind == "goal" else lambda: ReachEnv(kind), n_envs=n_envs, seed=seed, **kwargs)


def one_demonstration(n: int = 9) -> Demonstrations:
    """One episode, of nobody in particular; its actions are all 0.123."""
    walk = np.linspace(-1, 1, 2 * (n + 1), dtype=np.float32).reshape(n + 1, 2)
    over = np.arange(n) == n - 1
    return Demonstrations(
        observations=walk[:-1], next_observations=walk[1:], actions=np.full((n, 2), 0.123, np.float32),
        rewards=over - np.ones(n, np.float32), terminated=over, truncated=np.zeros(n, bool), episode_ends=np.array([n]),
    )  # fmt: skip


def small_model(
    env: gym.Env | VecEnv | None = None,
    bc_policy: Any = None,
    policy_kwargs: dict[str, Any] | None = None,
    algorithm: type[QGatedSAC] = QGatedSAC,
    **kwargs: Any,
) -> Any:
    """QGatedSAC, or one derived from it, with networks and phases so small that a run takes a second."""
    small = {"n_bc_episodes": 3, "q_init_steps": 5, "batch_size": 16, "buffer_size": 3000}
    if kwargs.get("replay_buffer_class") is HerReplayBuffer:
        small["n_steps"] = 1
    kwargs = {**small, "gradient_steps": 1, "policy_delay": 1, "seed": 0, **kwargs}
    sizes: dict[str, Any] = {"net_arch": [16], "n_critics": 3, "value_net_arch": [16], "n_values": 2}
    return algorithm(
        env if env is not None else reach(),
        bc_policy=bc_policy if bc_policy is not None else WalkHome(),
        policy_kwargs={**sizes, **(policy_kwargs or {})},
        device="cpu",
        **kwargs,
    )


def random_batch(n, n_obs=2, n_actions=2):
    return BCSamples(
        observations=th.randn(n, n_obs),
        actions=th.rand(n, n_actions) * 2 - 1,
        next_observations=th.randn(n, n_obs),
        dones=(th.rand(n, 1) < 0.3).float(),
        rewards=th.randn(n, 1),
        bc_actions=th.rand(n, n_actions) * 2 - 1,
    )
