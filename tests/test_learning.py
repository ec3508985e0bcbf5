"""The claim itself: ``pytest -m slow`` (about six minutes)."""

import sys

import pandas as pd
import pytest

from sb3_q2rl.__main__ import main

pytest.importorskip("robosuite", reason="the extra `robosuite` is not installed")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_keeps_what_bc_can_do_and_then_gets_better(tmp_path):
    assert main(["demo", "--timesteps", "15000", "--n-eval-episodes", "50", "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "evaluations.csv")
    sys.stdout.write(table.to_string())
    assert table.model.iloc[0] >= table.bc.iloc[0] - 0.15  # 50 episodes each
    assert table.model.iloc[-2:].mean() > table.bc.iloc[0]
    for artefact in ("learning_curve.png", "who_acts.gif", "model.zip"):
        assert (tmp_path / artefact).stat().st_size > 10_000
