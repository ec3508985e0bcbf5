"""The commands, with processes of their own: failing, killed, resumed, and on a Ray cluster of two workers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from referee_world import SMALL, SMALL_Q2RL, small_suite

from sb3_q2rl.__main__ import main
from sb3_q2rl.benchmark import processes
from sb3_q2rl.benchmark.measure import FIELDS, from_csv, to_csv
from sb3_q2rl.common.files import write_whole

TESTS = Path(__file__).parent.parent
STEPS = 1_000


@pytest.fixture
def world_in_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS / "benchmark")]))
    monkeypatch.chdir(tmp_path)
    yield
    for log in tmp_path.rglob("log.txt"):  # shown where the test failed
        print(f"{log}:\n{log.read_text()[-3000:]}")


def rows(path):
    return from_csv(path.read_text()) if path.exists() else []


@pytest.mark.usefixtures("world_in_processes")
def test_killed_and_started_again_it_goes_on_and_a_failing_cell_stops_nobody(tmp_path, capsys):
    entries = {
        "RLPD": {"algorithm": "rlpd", "hyperparameters": SMALL | {"learning_starts": 10}},
        "wrong": {"algorithm": "rlpd", "hyperparameters": {"gamma": 2.0}},
    }
    suite = str(small_suite(tmp_path, entries, steps=STEPS)[0])
    command = ["benchmark", "run", suite, "--jobs", "2"]
    folder, result = tmp_path / "logs/benchmark/small/reach", tmp_path / "results/small/reach/RLPD_seed0.csv"
    referee = subprocess.Popen([sys.executable, "-m", "sb3_q2rl", *command], stdout=subprocess.DEVNULL)
    checkpoints = folder / "RLPD_seed0/checkpoints"
    start = time.monotonic()
    while len(rows(result)) < 2 or not any(checkpoints.glob("step_*")):
        assert referee.poll() is None, "it ended before it could be killed"
        assert time.monotonic() - start < 120
        time.sleep(0.1)
    referee.send_signal(signal.SIGKILL)
    referee.wait()
    measured = rows(result)
    assert int(measured[-1]["timesteps"]) < STEPS, "it was finished before it was killed"

    with pytest.raises(SystemExit) as status:
        main(command)
    assert status.value.code == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert f"FAILED: reach/wrong_seed0, see {folder / 'wrong_seed0' / 'log.txt'}" in printed
    assert "`gamma` is 2.0" in (folder / "wrong_seed0/log.txt").read_text()
    assert rows(result)[: len(measured)] == measured
    assert int(rows(result)[-1]["timesteps"]) == STEPS
    (step,) = re.findall(r"Goes on from step (\d+)", (folder / "RLPD_seed0/log.txt").read_text())
    assert 100 <= int(step) < STEPS
    assert json.loads((folder / "RLPD_seed0/progress.json").read_text())["doing"] == "finished"

    main([*command, "--only", "algorithm=RLPD"])
    assert "1 cells, 1 finished before" in capsys.readouterr().out


@pytest.mark.usefixtures("world_in_processes")
def test_the_same_cells_on_two_ray_workers(tmp_path, capsys):
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    entries = {
        "Q2RL": {"algorithm": "qgated_sac", "hyperparameters": SMALL_Q2RL},
        "wrong": {"algorithm": "rlpd", "hyperparameters": {"gamma": 2.0}},
    }
    suite = str(small_suite(tmp_path, entries, steps=150)[0])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(SystemExit):
            main(["benchmark", "run", suite, "--backend", "ray"])
    finally:
        ray.shutdown()
    assert "`gamma` is 2.0" in capsys.readouterr().out
    on_ray = (tmp_path / "results/small/reach/Q2RL_seed0.csv").read_text()
    assert [row["timesteps"] for row in from_csv(on_ray)][-2:] == ["100", "150"]
    assert "Q-estimation" in (tmp_path / "logs/benchmark/small/reach/Q2RL_seed0/log.txt").read_text()


def test_again_starts_the_chosen_cells_only_and_keeps_what_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = {"algorithm": "rlpd"}
    suite = str(small_suite(tmp_path, {"RLPD": entry, "other": entry}, steps=100, seeds=[0, 1])[0])
    names = ["RLPD_seed0", "RLPD_seed1", "other_seed0", "other_seed1"]
    csv_files = {name: tmp_path / "results/small/reach" / f"{name}.csv" for name in names}
    folders = {name: tmp_path / "logs/benchmark/small/reach" / name for name in names}
    for name in names:
        row = dict.fromkeys(FIELDS, "") | {"timesteps": 100 if name != "other_seed1" else 50, "model": 0.5}
        write_whole(csv_files[name], to_csv([row]))
        write_whole(folders[name] / "checkpoints/step_000000100/model.zip", "")
    ran: list[str] = []
    monkeypatch.setattr(processes, "run_in_processes", lambda cells, *_: ran.extend(cell.key for cell in cells) or [])
    main(["benchmark", "run", suite, "--only", "algorithm=RLPD", "seed=1", "--again"])
    assert ran == ["reach/RLPD_seed1"]
    assert [name for name in names if not csv_files[name].exists()] == ["RLPD_seed1"]
    assert [name for name in names if not folders[name].exists()] == ["RLPD_seed1"]
    before = folders["RLPD_seed1"].with_name("RLPD_seed1.before")
    assert (before / "checkpoints/step_000000100/model.zip").exists()
    assert [row["timesteps"] for row in rows(before / "RLPD_seed1.csv")] == ["100"]
    main(["benchmark", "run", suite, "--only", "algorithm=RLPD", "seed=1", "--again"])
    assert not before.with_name("RLPD_seed1.before2").exists(), "nothing had been measured since"
    write_whole(csv_files["RLPD_seed1"], to_csv([dict.fromkeys(FIELDS, "") | {"timesteps": 75, "model": 0.5}]))
    main(["benchmark", "run", suite, "--only", "algorithm=RLPD", "seed=1", "--again"])
    kept = [rows(before.with_name(f"RLPD_seed1.{name}") / "RLPD_seed1.csv") for name in ("before", "before2")]
    assert [row["timesteps"] for each in kept for row in each] == ["100", "75"]
    ran.clear()
    main(["benchmark", "run", suite])
    assert ran == ["reach/RLPD_seed1", "reach/other_seed1"]  # what is missing, and what is not finished


def test_what_the_command_says_about_wrong_words(tmp_path, capsys):
    suite = str(small_suite(tmp_path, {"BC": {"algorithm": "bc"}})[0])
    for words, message in (
        (["--only", "door"], "`--only` 'door' is no filter; expected e.g. task=door or seed=0,1."),
        (["--only", "task=door"], "`--only` task=door fits no cell. There are: reach."),
        (["--jobs", "0"], "`--jobs` is 0; at least one process is needed."),
    ):
        assert main(["benchmark", "run", suite, *words]) == 1
        assert message in capsys.readouterr().err
    assert main(["benchmark", "report", suite]) == 1
    assert "start with `benchmark run`" in capsys.readouterr().err
