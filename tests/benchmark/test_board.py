import io

import pytest
from referee_world import small_suite
from rich.console import Console

from sb3_q2rl.benchmark import board
from sb3_q2rl.benchmark.board import Board
from sb3_q2rl.benchmark.measure import FIELDS, Progress, to_csv


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: now[0])
    return now


def rows(*successes):
    return to_csv([dict.fromkeys(FIELDS, "") | {"timesteps": i, "model": s} for i, s in enumerate(successes)])


def test_a_log_has_a_line_for_every_evaluation_and_none_for_a_step(tmp_path, clock):
    (cell,) = small_suite(tmp_path, {"RLPD": {"algorithm": "rlpd"}}, steps=100_000)[1].cells()
    text = io.StringIO()
    with Board([cell], Console(file=text, width=200)) as shown:
        shown.say(cell, "starts")
        # Resumed at 40,000 and watched for 600 s: 20,000 steps in 600 s leave 40,000 in 1,200 s
        for seconds, step, table in ((0, 40_000, rows(0.1)), (300, 50_000, rows(0.1)), (600, 60_000, rows(0.1, 0.25))):
            clock[0] = seconds
            shown.update(cell, Progress(step, "learns", table))
        shown.say(cell, "FAILED, see log.txt")
    lines = [line.split(" ", 1)[1] for line in text.getvalue().splitlines()]
    assert lines == [
        "reach/RLPD_seed0: starts",
        "reach/RLPD_seed0: learns, step 40,000 of 100,000, success 0.10",
        "reach/RLPD_seed0: learns, step 60,000 of 100,000, success 0.25, 20 min to go",
        "reach/RLPD_seed0: FAILED, see log.txt, step 60,000 of 100,000, success 0.25, 20 min to go",
    ]


def test_on_a_terminal_what_runs_stands_above_what_waits(tmp_path, clock):
    cells = small_suite(tmp_path, {"RLPD": {"algorithm": "rlpd"}}, seeds=[0, 1, 2])[1].cells()
    text = io.StringIO()
    with Board(cells, Console(file=text, width=120, force_terminal=True)) as shown:
        shown.update(cells[0], Progress(300, "finished", rows(0.5)))
        shown.update(cells[2], Progress(10, "learns", rows(0.5)))
    last = text.getvalue().split("to go")[-1]
    assert last.index("10 / 300") < last.index("waits") < last.index("finished")


def test_minutes_between_two_steps_foretell_nothing(tmp_path, clock):
    (cell,) = small_suite(tmp_path, {"RLPD": {"algorithm": "rlpd"}}, steps=100_000)[1].cells()
    line = board.Line(cell)
    for seconds, step in ((0, 2_600), (300, 2_601), (301, 4_600)):  # resumed just before the estimation
        clock[0] = seconds
        line.update(Progress(step, "learns", rows(0.1)))
        assert line.remaining == ""
    clock[0] = 302
    line.update(Progress(4_601, "learns", rows(0.1)))
    assert line.remaining == "4 h 00"
