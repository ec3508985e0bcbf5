import functools

import pytest

from sb3_q2rl.q2rl.q_estimation import QEstimate


@pytest.fixture
def quick_fit(monkeypatch):
    """Tests that do not look at the quality of V_BC fit it for a moment only."""
    short = functools.partialmethod(QEstimate.fit, max_steps=30, check_every=10, batch_size=16)
    monkeypatch.setattr(QEstimate, "fit", short)
