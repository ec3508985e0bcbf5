"""The policies of QGatedSAC and QGatedTQC: actor, critics, and the frozen estimate of the BC policy's Q-function."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule

from sb3_q2rl.common.critics import QuantileCritic
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


class GatedTQCPolicy(GatedSACPolicy):
    """
    Critics that give quantiles of the return.

    :param args: See :class:`GatedSACPolicy`
    :param n_quantiles: Of each critic
    :param n_critics: Ensemble size
    :param kwargs: See :class:`GatedSACPolicy`
    """

    critic: QuantileCritic  # type: ignore[assignment]
    critic_target: QuantileCritic  # type: ignore[assignment]

    def __init__(self, *args: Any, n_quantiles: int = 25, n_critics: int = 2, **kwargs: Any) -> None:
        self.n_quantiles = n_quantiles
        super().__init__(*args, **{"n_critics": n_critics, **kwargs})

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> QuantileCritic:  # type: ignore[override]
        arguments = self._critic_arguments(features_extractor)
        return QuantileCritic(**arguments, n_quantiles=self.n_quantiles).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "n_quantiles": self.n_quantiles}


class GatedTQCCnnPolicy(GatedTQCPolicy, GatedSACCnnPolicy):
    """For image observations."""


class GatedTQCMultiInputPolicy(GatedTQCPolicy, GatedSACMultiInputPolicy):
    """For Dict observations."""
