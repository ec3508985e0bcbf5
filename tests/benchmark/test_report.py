import numpy as np
import pytest
from PIL import Image
from referee_world import small_suite

from sb3_q2rl.__main__ import main
from sb3_q2rl.benchmark.comparison import styles
from sb3_q2rl.benchmark.measure import FIELDS, to_csv, write_whole
from sb3_q2rl.benchmark.overview import before_and_after
from sb3_q2rl.benchmark.report import collect
from sb3_q2rl.benchmark.results import Curve, Results, mean_curve
from sb3_q2rl.benchmark.suite import Entry
from sb3_q2rl.benchmark.table import Published

ENTRIES = {
    "BC": {"algorithm": "bc"},
    "Q2RL": {"algorithm": "qgated_sac"},
    "alpha=0": {"algorithm": "qgated_sac", "hyperparameters": {"bc_temperature": 0.0}},
    "RLPD": {"algorithm": "rlpd"},
    "SAC": {"algorithm": "sac"},
}
DOOR = {
    "door": {
        "env": "AdroitHandDoorBinary-v0",
        "steps": 1000,
        "bc_policy": "adroit-door-human",
        "demonstrations": "adroit-door-human",
    }
}


def rows(points, before=0.4, rl=None):
    """Of (step, success); half a BC policy before the first."""
    return to_csv(
        [
            dict.fromkeys(FIELDS, "")
            | {"timesteps": step, "episodes": 50, "model": success, "rl": "" if rl is None else rl}
            | {"train_episodes": 10, "train_success": before}
            for step, success in points
        ]
    )


@pytest.fixture
def finished(tmp_path):
    path, suite = small_suite(tmp_path, ENTRIES, tasks=DOOR, seeds=[0, 1], reference="Q2RL")
    written = {
        "BC_seed0": rows([(0, 0.4)]),
        # Before the gate opens at 200: the BC policy's .4. Goes on beyond the suite's last step
        "Q2RL_seed0": rows([(200, 0.3), (600, 0.7), (1000, 0.8), (1400, 0.1)], rl=0.9),
        "Q2RL_seed1": rows([(200, 0.5), (600, 0.9), (1000, 1.0), (1400, 0.1)], rl=0.7),
        "alpha=0_seed0": rows([(200, 0.4), (1000, 0.4)], rl=0.4),
        "alpha=0_seed1": rows([(200, 0.4), (1000, 0.4)], rl=0.4),
        "RLPD_seed0": rows([(0, 0.0), (500, 0.5)]),
    }
    for name, text in written.items():
        write_whole(tmp_path / "results" / "small" / "door" / f"{name}.csv", text)
    return path, suite, Results(tmp_path / "results" / "small")


def cells_of(page, label):
    (found,) = (text for text in page.splitlines() if text.startswith(f"| {label}"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_page_tells_what_is_in_the_files(finished, capsys):
    path = finished[0]
    assert main(["benchmark", "report", str(path)]) == 0
    page = (path.parent / "results" / "report.md").read_text()
    assert str(path.parent / "results" / "report.md") in "".join(capsys.readouterr().out.split("\n"))
    assert "No results: SAC." in page
    assert "after 300,000 steps" in page
    ours = cells_of(page, "Q2RL ")
    assert ours[0] == "Q2RL"
    assert ours[1] == "**.90**"
    assert ours[3] == ""  # no difference to itself
    assert ours[4:8] == [".90", ".80 1.00", ".80", ".30"]  # IQM, seeds, RL alone, lowest
    # The mean rises from .4 (200) over .8 (600) to .9 (1000): .81 is reached just after 600
    assert ours[8] == "1k"
    # .4 for 200 steps, 400 at .6 on average, 400 at .85 on average
    assert float(ours[9]) == pytest.approx((200 * 0.4 + 400 * 0.6 + 400 * 0.85) / 1000, abs=0.006)
    assert ours[10] == ".87 ± .08"
    variant = cells_of(page, "alpha=0")
    assert variant[3].startswith("-.50 (-.")
    assert variant[10] == "", "a changed one is not the paper's"
    assert cells_of(page, "BC")[10] == ".50"
    unfinished = cells_of(page, "RLPD")
    assert unfinished[0] == "RLPD (unfinished: 500 steps)"
    assert unfinished[3] == ""
    image = np.asarray(Image.open(path.parent / "results" / "small" / "door.png").convert("RGB")).astype(int)
    assert (np.abs(image - [0x00, 0x72, 0xB2]).sum(axis=2) < 20).sum() > 500, "the curve of Q2RL"


def test_pictures_of_all_tasks_are_of_comparisons_not_of_ablations(finished):
    path = finished[0]
    main(["benchmark", "report", str(path)])
    assert not list((path.parent / "results").glob("*.png"))
    path.write_text(path.read_text().replace("reference: Q2RL\n", ""))
    main(["benchmark", "report", str(path)])
    assert {found.stem for found in (path.parent / "results").glob("*.png")} == {"rivals", "improvement"}


def test_a_variant_does_not_stand_for_q2rl_in_the_picture_of_all_tasks(finished):
    _, suite, results = finished
    ((bc, ours),) = before_and_after(collect(suite, results)).values()
    assert {curve.cell.label for curve in bc} == {"BC"}
    assert {curve.cell.label for curve in ours} == {"Q2RL"}


def test_curves_end_where_the_suite_does(finished):
    _, suite, results = finished
    ours = [curve for curve in results.curves(suite.cells()) if curve.cell.label == "Q2RL"]
    assert [curve.steps[-1] for curve in ours] == [1000, 1000]
    assert ours[0].is_finished
    np.testing.assert_allclose(ours[0].at(np.array([0, 199, 200, 400, 1000])), [0.4, 0.4, 0.3, 0.5, 0.8])
    grid, success = mean_curve(ours, n_points=11)
    np.testing.assert_allclose(grid, np.arange(0, 1001, 100))
    np.testing.assert_allclose(success.mean(axis=0)[[0, 2, 6, 10]], [0.4, 0.4, 0.8, 0.9])


def test_success_at_a_last_step_between_two_evaluations(tmp_path):
    suite = small_suite(tmp_path, {"RLPD": {"algorithm": "rlpd"}}, tasks=DOOR)[1]
    (cell,) = suite.cells()
    write_whole(tmp_path / "a.csv", rows([(0, 0.0), (900, 0.5), (1100, 0.7)]))
    curve = Curve.read(cell, tmp_path / "a.csv")
    np.testing.assert_allclose(curve.steps, [0, 900, 1000])
    np.testing.assert_allclose(curve.model, [0, 0.5, 0.6])


def test_finished_is_what_has_reached_its_last_step(finished):
    _, suite, results = finished
    assert {cell.key for cell in suite.cells() if results.is_finished(cell)} == {
        "door/BC_seed0",
        "door/Q2RL_seed0",
        "door/Q2RL_seed1",
        "door/alpha=0_seed0",
        "door/alpha=0_seed1",
    }


def test_no_two_lines_look_alike(finished):
    _, suite, results = finished
    look = [str(style) for style in styles(collect(suite, results)["door"]).values()]
    assert len(set(look)) == len(look) == 4


def test_published_numbers_are_found_by_what_was_run():
    published = Published.load()
    lift = "RobomimicLift-v0"
    assert published.of(lift, Entry("ibrl")) == ".00"
    assert published.of(lift, Entry("ibrl", demonstrations=True)) == ".98"
    assert published.of("FrankaKitchenComplete-v0", Entry("qgated_sac")) == ".91 ± .01"
    assert published.of(lift, Entry("sac")) == ""
    assert published.of("Unknown-v0", Entry("bc")) == ""
