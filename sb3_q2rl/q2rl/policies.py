"""The policy of QGatedSAC: actor, critics, and the frozen estimate of the BC policy's Q-function beside them."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from sb3_q2rl.common.policies import EnsembleSACCnnPolicy, EnsembleSACMultiInputPolicy, EnsembleSACPolicy
from sb3_q2rl.q2rl.q_estimation import QEstimate


class GatedSACPolicy(EnsembleSACPolicy):
    """
    Keeping Q̂_BC here saves and loads it with the rest.

    :param args: See :class:`EnsembleSACPolicy`
    :param bc_temperature: alpha of Q̂_BC
    :param n_values: Members of the V_BC ensemble
    :param value_net_arch: Hidden layers of each of them
    :param kwargs: See :class:`EnsembleSACPolicy`
    """

    def __init__(
        self,
        *args: Any,
        bc_temperature: float = 1.0,
        n_values: int = 5,
        value_net_arch: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.value_kwargs: dict[str, Any] = {
            "bc_temperature": bc_temperature,
            "n_members": n_values,
            "net_arch": value_net_arch or [256, 256],
        }
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        assert isinstance(self.action_space, spaces.Box)
        self.q_estimate = QEstimate(
            self.observation_space,
            self.action_space,
            features_extractor=self.make_features_extractor(),
            normalize_images=self.normalize_images,
            **self.value_kwargs,
        ).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "bc_temperature": self.q_estimate.bc_temperature,
            "n_values": self.value_kwargs["n_members"],
            "value_net_arch": self.value_kwargs["net_arch"],
        }


class GatedSACCnnPolicy(GatedSACPolicy, EnsembleSACCnnPolicy):
    """For image observations."""


class GatedSACMultiInputPolicy(GatedSACPolicy, EnsembleSACMultiInputPolicy):
    """For Dict observations."""
