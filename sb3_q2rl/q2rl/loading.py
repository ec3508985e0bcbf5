"""A saved Q2RL model as the algorithm that saved it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stable_baselines3.common.save_util import load_from_zip_file

from sb3_q2rl.q2rl.policies import GatedTQCPolicy
from sb3_q2rl.q2rl.q_gated_residual import QGatedResidualSAC
from sb3_q2rl.q2rl.q_gated_sac import QGatedSAC
from sb3_q2rl.q2rl.q_gated_tqc import QGatedTQC
from sb3_q2rl.q2rl.residual_policies import GatedResidualPolicy


def load_model(path: str | Path, **kwargs: Any) -> QGatedSAC:
    """
    Like ``load``, where it is not known which of them saved the model. A pickle, as all of SB3's: trust its author.

    :param path: model.zip of ``QGatedSAC``, ``QGatedTQC`` or ``QGatedResidualSAC``
    :param kwargs: Of ``load``: ``env``, ``device``, ...
    """
    data, _, _ = load_from_zip_file(path, device="cpu")
    assert data is not None
    kinds: dict[type, type[QGatedSAC]] = {GatedResidualPolicy: QGatedResidualSAC, GatedTQCPolicy: QGatedTQC}
    algorithm = next((kinds[policy] for policy in kinds if issubclass(data["policy_class"], policy)), QGatedSAC)
    return algorithm.load(path, **kwargs)
