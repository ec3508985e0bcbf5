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

    A model that was trained so takes images in ``predict``, too.

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
        blank = {key: th.zeros(1, *(parts[key].shape or ())) for key in policy.image_shapes}
        with th.no_grad():
            seen = {key: spaces.Box(-1, 1, f.shape[1:], np.float32) for key, f in policy.see(blank).items()}
        self.observation_space = spaces.Dict({**parts, **seen})

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        return as_features(observation, self.policy, self.observation_space)


@th.no_grad()
def as_features(observation: Any, policy: BCPolicy | None, space: spaces.Space, chunk: int = 256) -> Any:
    """
    :param observation: One, or (n, ...) of them, with the images that the policy reads, as pictures or channels first
    :param policy: The wrapper's
    :param space: Of observations as the wrapper shows them; if it has the images themselves, nothing is changed
    :param chunk: Images that are encoded at a time
    :return: the observation with features in the place of images
    """
    if not (isinstance(policy, GaussianBCPolicy) and isinstance(space, spaces.Dict) and isinstance(observation, dict)):
        return observation
    images = {
        key: np.asarray(observation[key])
        for key in policy.image_shapes
        if key in observation and np.ndim(observation[key]) > len(space[key].shape or ()) + 1
    }
    if not images:
        return observation
    is_batch = next(iter(images.values())).ndim == 4
    batch = images if is_batch else {key: image[None] for key, image in images.items()}
    device = policy.obs_mean.device
    parts = [
        policy.see({key: th.as_tensor(image[i : i + chunk], device=device) for key, image in batch.items()})
        for i in range(0, len(next(iter(batch.values()))), chunk)
    ]
    features = {key: th.cat([part[key] for part in parts]).cpu().numpy() for key in images}
    return {**observation, **(features if is_batch else {key: value[0] for key, value in features.items()})}


def demonstrations_as_features(
    demonstrations: Demonstrations, policy: BCPolicy | None, space: spaces.Space
) -> Demonstrations:
    """What :class:`BCFeatures` would have shown along demonstrations; parameters as of :func:`as_features`."""
    return dataclasses.replace(
        demonstrations,
        observations=as_features(demonstrations.observations, policy, space),
        next_observations=as_features(demonstrations.next_observations, policy, space),
    )
