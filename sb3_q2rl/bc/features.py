"""An environment seen through a BC policy's eyes: features of its frozen encoders instead of the images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_q2rl.bc.adapter import BCPolicyAdapter
from sb3_q2rl.bc.gaussian import GaussianBCPolicy
from sb3_q2rl.bc.policy import BCPolicy
from sb3_q2rl.data import Demonstrations


class BCFeatures(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """
    Replaces every image that the BC policy reads by the features that its own encoder makes of it; the rest passes. The
    same policy acts on what comes out, and what learns beside it learns from some dozen numbers, as from a state: an
    image is encoded once, when it is seen, instead of in every batch that it is drawn for. The price is that nothing
    sees what the BC policy has not learnt to look at.

    :param env: With a Dict observation that has the policy's images, as pictures or channels first
    :param bc_policy: A policy of :func:`train_bc` that reads images, its file, or the name of a shipped one
    :raises ValueError: A policy of another kind, or images that are missing or of other sizes
    """

    def __init__(self, env: gym.Env, bc_policy: GaussianBCPolicy | str | Path) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, bc_policy=bc_policy)
        gym.ObservationWrapper.__init__(self, env)
        policy = bc_policy if isinstance(bc_policy, GaussianBCPolicy) else BCPolicyAdapter.from_checkpoint(bc_policy)
        if not isinstance(policy, GaussianBCPolicy) or not policy.image_shapes:
            raise ValueError(
                f"`bc_policy`={bc_policy} is a {type(policy).__name__} without encoders of images that could be used "
                "alone; expected a policy of sb3_q2rl that was trained from images (`train_bc`). Leave the wrapper out "
                "and learn from the images themselves."
            )
        parts = env.observation_space.spaces if isinstance(env.observation_space, spaces.Dict) else {}
        missing = [key for key in policy.image_shapes if key not in parts]
        if missing:
            raise ValueError(
                f"`bc_policy` reads the images {missing}, which the environment's observations lack; they are "
                f"{env.observation_space}. Use the environment of its training."
            )
        self.policy = policy
        blank = self._features({key: np.zeros(parts[key].shape, np.uint8) for key in policy.image_shapes})
        self.observation_space = spaces.Dict(
            {**parts, **{key: spaces.Box(-1, 1, seen.shape, np.float32) for key, seen in blank.items()}}
        )

    def _features(self, observation: dict[str, Any]) -> dict[str, np.ndarray]:
        images = {key: th.as_tensor(observation[key]).unsqueeze(0) for key in self.policy.image_shapes}
        with th.no_grad():
            return {key: seen.squeeze(0).numpy() for key, seen in self.policy.see(images).items()}

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {**observation, **self._features(observation)}


@th.no_grad()
def demonstrations_as_features(
    demonstrations: Demonstrations, policy: BCPolicy | None, space: spaces.Space, chunk: int = 256
) -> Demonstrations:
    """
    What :class:`BCFeatures` would have shown along demonstrations. Algorithms do this with their ``bc_policy``.

    :param demonstrations: With the images that the policy reads, as pictures or channels first
    :param policy: The wrapper's
    :param space: Of the wrapped environment's observations; if it has the images themselves, nothing is changed
    :param chunk: Images that are encoded at a time
    """
    if not isinstance(policy, GaussianBCPolicy) or not isinstance(space, spaces.Dict):
        return demonstrations
    shown = demonstrations.observations
    keys = [key for key in policy.image_shapes if isinstance(shown, dict) and key in shown and shown[key].ndim == 4]
    if not keys or any(key not in space.spaces or len(space[key].shape or ()) != 1 for key in keys):
        return demonstrations

    def seen(observations: Any) -> dict[str, np.ndarray]:
        parts = [
            policy.see(
                {key: th.as_tensor(observations[key][i : i + chunk], device=policy.obs_mean.device) for key in keys}
            )
            for i in range(0, len(demonstrations), chunk)
        ]
        return {**observations, **{key: th.cat([part[key] for part in parts]).cpu().numpy() for key in keys}}

    return dataclasses.replace(
        demonstrations,
        observations=seen(demonstrations.observations),
        next_observations=seen(demonstrations.next_observations),
    )
