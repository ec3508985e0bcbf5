"""A saved Q2RL model as the algorithm that saved it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stable_baselines3.common.save_util import load_from_zip_file

from sb3_q2rl.q2rl.policies import GatedSACPolicy, GatedTQCPolicy
from sb3_q2rl.q2rl.q_gated_residual import QGatedResidualSAC
from sb3_q2rl.q2rl.q_gated_sac import QGatedSAC
from sb3_q2rl.q2rl.q_gated_tqc import QGatedTQC
from sb3_q2rl.q2rl.residual_policies import GatedResidualPolicy

# Asked in this order, the most general last
_ALGORITHMS: dict[type, type[QGatedSAC]] = {
    GatedResidualPolicy: QGatedResidualSAC,
    GatedTQCPolicy: QGatedTQC,
    GatedSACPolicy: QGatedSAC,
}
_NAMES = "QGatedSAC, QGatedTQC or QGatedResidualSAC"


def load_model(path: str | Path, **kwargs: Any) -> QGatedSAC:
    """
    Like ``load``, where it is not known which of them saved the model. A pickle, as all of SB3's: trust its author.

    :param path: model.zip of ``QGatedSAC``, ``QGatedTQC`` or ``QGatedResidualSAC``
    :param kwargs: Of ``load``: ``env``, ``device``, ...
    :raises FileNotFoundError: No such file
    :raises ValueError: A file of another kind, or a model of another algorithm
    """
    if not Path(path).is_file() and not Path(f"{path}.zip").is_file():
        raise FileNotFoundError(f"There is no model {path}. Expected a file that `save` of {_NAMES} wrote.")
    data, _, _ = load_from_zip_file(path, device="cpu")
    saved = (data or {}).get("policy_class")
    if not isinstance(saved, type):
        raise ValueError(f"{path} holds no model of Stable-Baselines3. Expected a file that `save` of {_NAMES} wrote.")
    algorithm = next((_ALGORITHMS[policy] for policy in _ALGORITHMS if issubclass(saved, policy)), None)
    if algorithm is None:
        raise ValueError(
            f"The model in {path} has the policy {saved.__name__}, which no {_NAMES} has. Load it with "
            "the `load` of the algorithm that saved it."
        )
    return algorithm.load(path, **kwargs)
