import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from referee_world import small_suite

from sb3_q2rl.__main__ import main
from sb3_q2rl.benchmark.comparison import COLORS, styles
from sb3_q2rl.benchmark.measure import FIELDS, to_csv
from sb3_q2rl.benchmark.overview import before_and_after
from sb3_q2rl.benchmark.report import collect
from sb3_q2rl.benchmark.results import Curve, Results, together
from sb3_q2rl.benchmark.suite import Entry, load_suite
from sb3_q2rl.benchmark.table import Published
from sb3_q2rl.common.files import write_whole

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
        "steps": 100_000,
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
        # Before the gate opens: the BC policy's .4. Goes on beyond the suite's last step
        "Q2RL_seed0": rows([(18_000, 0.3), (60_000, 0.7), (100_000, 0.8), (140_000, 0.1)], rl=0.9),
        "Q2RL_seed1": rows([(22_000, 0.5), (60_000, 0.9), (100_000, 1.0), (140_000, 0.1)], rl=0.7),
        "alpha=0_seed0": rows([(20_000, 0.4), (100_000, 0.38)], rl=0.4),
        "alpha=0_seed1": rows([(20_000, 0.4), (100_000, 0.40)], rl=0.4),
        # Neither is finished: what both have done is compared
        "RLPD_seed0": rows([(0, 0.0), (50_000, 0.5)]),
        "RLPD_seed1": rows([(0, 0.0), (50_000, 0.3), (75_000, 0.9)]),
        # An offline phase is over, and no more
        "SAC_seed0": rows([(0, 0.6)]),
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
    # The mean is .4 at the start (20k), .8 at 60k and .9 at 100k: .81 is reached by then
    assert ours[8] == "100k"
    # .4 for 20k steps, 40k at .6 on average, 40k at .85 on average
    assert ours[9] == f"{0.2 * 0.4 + 0.4 * 0.6 + 0.4 * 0.85:.2f}".removeprefix("0")
    assert ours[10] == ".87 ± .08"
    variant = cells_of(page, "alpha=0")
    difference, low, high = map(float, re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", variant[3]).groups())
    assert difference == -0.51
    # By the normal distribution: the variance of two seeds' mean and of their episodes, on both sides
    spread = np.sqrt((0.1**2 + (0.8 * 0.2 + 0) / 2 / 50) / 2 + (0.01**2 + 0.39 * 0.61 / 50) / 2)
    assert [low, high] == pytest.approx([-0.51 - 1.96 * spread, -0.51 + 1.96 * spread], abs=0.03)
    assert variant[8] == "-", "it ends below the BC policy"
    assert variant[10] == "", "a changed one is not the paper's"
    assert cells_of(page, "BC")[10] == ".50"
    unfinished = cells_of(page, "RLPD")
    assert unfinished[0] == "RLPD (unfinished: 50,000 steps)"
    assert unfinished[1] == "**.40**"
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


def test_what_the_paper_ran_and_we_did_not_has_a_line_too(finished):
    path = finished[0]
    main(["benchmark", "report", str(path)])
    page = (path.parent / "results" / "report.md").read_text()
    assert "(not run)" not in page, "an ablation is not the paper's table"
    path.write_text(path.read_text().replace("reference: Q2RL\n", ""))
    main(["benchmark", "report", str(path)])
    page = (path.parent / "results" / "report.md").read_text()
    missing = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip("| ") for line in page.splitlines()}
    assert {name: number for name, number in missing.items() if "not run" in name} == {
        "WSRL (not run)": "1.00",
        "CQL (not run)": ".31 ± .33",
        "Cal-QL (not run)": ".15 ± .15",
        "IBRL (not run)": ".00",
    }


def test_results_of_another_folder(finished):
    path = finished[0]
    (path.parent / "results").rename(path.parent / "elsewhere")
    assert main(["benchmark", "report", str(path), "--results", str(path.parent / "elsewhere")]) == 0
    assert (path.parent / "elsewhere" / "report.md").exists()


def test_curves_end_where_the_suite_does(finished):
    _, suite, results = finished
    ours = [curve for curve in results.curves(suite.cells()) if curve.cell.label == "Q2RL"]
    assert [curve.steps[-1] for curve in ours] == [100_000, 100_000]
    assert ours[0].is_finished


def test_seeds_side_by_side_start_at_the_mean_of_their_starts(finished):
    _, suite, results = finished
    steps, success, start = together([curve for curve in results.curves(suite.cells()) if curve.cell.label == "Q2RL"])
    assert start == 2
    np.testing.assert_allclose(steps, [0, 20_000, 20_000, 22_000, 60_000, 100_000])
    risen = 0.3 + 0.4 * (22 - 18) / (60 - 18)
    np.testing.assert_allclose(success, [[0.4, 0.4, 0.3, risen, 0.7, 0.8], [0.4, 0.4, 0.5, 0.5, 0.9, 1.0]])


def test_a_seed_that_was_stopped_does_not_shorten_those_that_are_finished(finished):
    _, suite, results = finished
    (cell,) = (cell for cell in suite.cells() if cell.key == "door/Q2RL_seed1")
    write_whole(results.path(cell), rows([(22_000, 0.5), (60_000, 0.9)]))
    (kept,) = collect(suite, results)["door"]["Q2RL"]
    assert kept.cell.seed == 0


def test_a_result_tells_its_settings_and_is_not_shortened(finished):
    _, suite, results = finished
    (cell,) = (cell for cell in suite.cells() if cell.key == "door/SAC_seed1")
    results.publish(cell, "")
    assert not results.path(cell).exists()
    results.publish(cell, rows([(0, 0.1), (20_000, 0.2)]))
    results.publish(cell, rows([(0, 0.7)]))  # begun anew on another machine
    assert results.last_step(cell) == 20_000
    assert results.changed(cell) == []
    np.testing.assert_allclose(Curve.read(cell, results.path(cell)).model, [0.1, 0.2])
    other = dataclasses.replace(cell, networks={"net_arch": [7]})
    assert results.changed(other) == ["networks"]
    (before, *_) = (cell for cell in suite.cells() if cell.key == "door/BC_seed0")
    assert results.changed(before) == [], "the oldest files do not tell"


def test_success_at_a_last_step_between_two_evaluations(tmp_path):
    suite = small_suite(tmp_path, {"RLPD": {"algorithm": "rlpd"}}, tasks=DOOR)[1]
    (cell,) = suite.cells()
    write_whole(tmp_path / "a.csv", rows([(0, 0.0), (90_000, 0.5), (110_000, 0.7)]))
    curve = Curve.read(cell, tmp_path / "a.csv")
    np.testing.assert_allclose(curve.steps, [0, 90_000, 100_000])
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


def test_colours_of_every_committed_picture():
    for path in (Path(__file__).parents[2] / "benchmarks").glob("*.yml"):
        suite = load_suite(path)
        for task in suite.tasks:
            cells = {cell.label: [Curve(cell, *[np.zeros(1)] * 4, 0.0)] for cell in suite.cells() if cell.task == task}
            look = styles(cells)
            assert len({str(style) for style in look.values()}) == len(look), (path, task)
            for label, style in look.items():
                assert (style["color"] == COLORS["bc"]) == (label == "BC"), (path, label)


def test_published_numbers_are_found_by_what_was_run():
    published = Published.load()
    lift = "RobomimicLift-v0"
    assert published.of(lift, Entry("ibrl")) == ".00"
    assert published.of(lift, Entry("ibrl", demonstrations=True)) == ".98"
    assert published.of("FrankaKitchenComplete-v0", Entry("qgated_sac")) == ".91 ± .01"
    assert published.of(lift, Entry("sac")) == ""
    assert published.of("Unknown-v0", Entry("bc")) == ""
