import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import referee_world
from referee_world import SMALL, SMALL_Q2RL, small_suite
from stable_baselines3.common.env_util import make_vec_env

from sb3_q2rl.benchmark.algorithms import ALGORITHMS, constructor_keywords
from sb3_q2rl.benchmark.cell import run_cell
from sb3_q2rl.benchmark.measure import FIELDS, Progress, RefereeCallback, from_csv, to_csv
from sb3_q2rl.benchmark.suite import Evaluation
from sb3_q2rl.common.checkpoint import resume
from sb3_q2rl.common.evaluation import evaluate

pytestmark = pytest.mark.usefixtures("quick_fit")

ENTRIES = {
    "BC": {"algorithm": "bc"},
    "Q2RL": {"algorithm": "qgated_sac", "hyperparameters": SMALL_Q2RL},
    "no-gate": {"algorithm": "qgated_sac_no_gate", "hyperparameters": SMALL_Q2RL},
    "IBRL": {"algorithm": "ibrl", "demonstrations": True, "hyperparameters": SMALL | {"n_bc_episodes": 3}},
    "RLPD": {"algorithm": "rlpd", "hyperparameters": SMALL | {"learning_starts": 10}},
    "WSRL": {"algorithm": "wsrl", "hyperparameters": SMALL | {"pretrain_steps": 5, "warmup_steps": 20}},
    "SAC+data": {"algorithm": "sac", "hyperparameters": SMALL | {"learning_starts": 10}},
}


def silent(_: Progress) -> None:
    pass


def cells(folder, **changes):
    return {cell.label: cell for cell in small_suite(folder, ENTRIES, **changes)[1].cells()}


def longer(cell, steps):
    return dataclasses.replace(cell, to=dataclasses.replace(cell.to, steps=steps))


@pytest.mark.parametrize("label", list(ENTRIES))
def test_every_kind_of_algorithm_runs(tmp_path, label):
    told: list[Progress] = []
    rows = from_csv(run_cell(cells(tmp_path, steps=150)[label], tmp_path / "cell", told.append))
    assert told[-1].doing == "finished"
    assert from_csv(told[-1].rows) == rows
    if label == "BC":
        assert [(row["timesteps"], row["episodes"]) for row in rows] == [("0", "4")]
        return
    steps = [int(row["timesteps"]) for row in rows]
    assert steps[0] < 100  # the gate opens, an offline phase is over, ...
    assert steps[-2:] == [100, 150]  # a multiple of 100, and the end
    has_two_modes = label in ("Q2RL", "no-gate", "IBRL")
    for row in rows:
        assert 0 <= float(row["model"]) <= 1
        assert (row["rl"] != "") == has_two_modes
    if label == "no-gate":
        assert all(row["model"] == row["rl"] for row in rows)
        assert [float(row["rl_action_fraction"]) for row in rows] == [0.0] + [1.0] * (len(rows) - 1)


def test_a_run_that_was_stopped_goes_on(tmp_path):
    cell, folder = cells(tmp_path, steps=200)["Q2RL"], tmp_path / "cell"
    first = run_cell(cell, folder, silent)
    episodes = pd.read_csv(folder / "episodes.csv")
    second = run_cell(longer(cell, 400), folder, silent)
    assert second.startswith(first)
    assert [row["timesteps"] for row in from_csv(second)][-3:] == ["200", "300", "400"]
    assert pd.read_csv(folder / "episodes.csv").head(len(episodes)).equals(episodes)
    model = resume(ALGORITHMS["qgated_sac"].algorithm, folder / "checkpoints", make_vec_env(cell.to.env))
    assert model.num_timesteps == 400
    assert model.has_started
    # Finished: once more changes nothing
    assert run_cell(longer(cell, 400), folder, silent) == second


def test_what_the_configuration_wraps_around_the_environment_is_there_in_evaluation_too(tmp_path):
    pytest.importorskip("rl_zoo3", reason="needs the extra `zoo`")
    wrapped = SMALL_Q2RL | {"env_wrapper": "referee_world.Doubled"}
    entries = {"Q2RL": {"algorithm": "qgated_sac", "hyperparameters": wrapped}}
    (cell,) = small_suite(tmp_path, entries, steps=100)[1].cells()
    run_cell(cell, tmp_path / "cell", silent)
    model = resume(ALGORITHMS["qgated_sac"].algorithm, tmp_path / "cell" / "checkpoints", None)
    assert model.observation_space.high.max() == 4  # the world's own is 2
    assert referee_world.Doubled.n_made == 1 + cell.evaluation.n_envs


def test_rows_tell_of_the_training_episodes_since_the_row_before(tmp_path):
    folder = tmp_path / "cell"
    rows = from_csv(run_cell(cells(tmp_path)["Q2RL"], folder, silent))
    episodes = pd.read_csv(folder / "episodes.csv")
    edges = [0] + [int(row["timesteps"]) for row in rows]
    for row, low, high in zip(rows, edges[:-1], edges[1:], strict=True):
        part = episodes[(episodes.timesteps > low) & (episodes.timesteps <= high)]
        assert int(row["train_episodes"]) == len(part) > 0
        assert float(row["train_success"]) == pytest.approx(part.is_success.mean(), abs=1e-4)
    assert sum(int(row["train_episodes"]) for row in rows) == len(episodes)


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluation_is_by_mode_or_by_sample(tmp_path, monkeypatch, deterministic):
    asked = []

    def note(model, env, n_episodes, who, deterministic):
        asked.append(deterministic)
        return evaluate(model, env, n_episodes, who, deterministic)

    monkeypatch.setattr("sb3_q2rl.benchmark.measure.evaluate", note)
    cell = cells(tmp_path, steps=100)["RLPD"]
    plan = dataclasses.replace(cell.evaluation, deterministic=deterministic)
    run_cell(dataclasses.replace(cell, evaluation=plan), tmp_path / "cell", silent)
    assert asked
    assert set(asked) == {deterministic}


def test_other_settings_are_another_run(tmp_path):
    cell, folder = cells(tmp_path, steps=100)["RLPD"], tmp_path / "cell"
    run_cell(cell, folder, silent)
    changed = dataclasses.replace(cell, by=dataclasses.replace(cell.by, hyperparameters=SMALL | {"gamma": 0.5}))
    with pytest.raises(ValueError, match="holds a run of reach/RLPD_seed0 with another `by`.*--again starts it anew"):
        run_cell(changed, folder, silent)


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(tmp_path):
    cell = cells(tmp_path)["RLPD"]
    other = dataclasses.replace(cell, seed=1)
    run = {name: run_cell(c, tmp_path / name, silent) for name, c in {"a": cell, "b": cell, "c": other}.items()}
    assert run["a"] == run["b"]
    logs = {name: (tmp_path / name / "episodes.csv").read_text() for name in run}
    assert logs["a"] == logs["b"] != logs["c"]


def test_demonstrations_lie_in_the_buffer_of_plain_sac(tmp_path):
    cell = cells(tmp_path)["SAC+data"]
    model = ALGORITHMS["sac"].algorithm(env=make_vec_env(cell.to.env), **constructor_keywords(cell))
    buffer, demonstrations = model.replay_buffer, model.demonstrations
    assert buffer.size() == len(demonstrations)
    np.testing.assert_array_equal(buffer.actions[: buffer.size(), 0], demonstrations.actions)
    np.testing.assert_array_equal(buffer.observations[: buffer.size(), 0], demonstrations.observations)


def test_files_are_made_where_they_are_missing(tmp_path):
    maker = tmp_path / "maker.py"
    maker.write_text("import shutil, sys\nshutil.copy(*sys.argv[1:])\nopen(sys.argv[2] + '.made', 'a').write('x')\n")
    cell = cells(tmp_path, steps=20)["RLPD"]
    source = str(cell.demonstrations)
    made, made_of_it = str(tmp_path / "new folder" / "made.npz"), str(tmp_path / "a policy")
    cell = dataclasses.replace(
        cell,
        to=dataclasses.replace(cell.to, demonstrations=made, bc_policy=made_of_it),
        files={
            made: f"{maker} '{source}' '{made}'",
            made_of_it: f"{maker} '{made}' '{made_of_it}'",
            str(tmp_path / "not needed"): "nothing.py",
        },
    )
    run_cell(cell, tmp_path / "a", silent)
    run_cell(cell, tmp_path / "b", silent)
    assert Path(made + ".made").read_text() == "x", "made twice"
    wrong = dataclasses.replace(cell, files={made: "-c pass"})
    Path(made).unlink()
    with pytest.raises(ValueError, match="python -c pass ended well, but did not write .*made.npz"):
        run_cell(wrong, tmp_path / "c", silent)


@pytest.mark.parametrize(
    ("last", "following"),
    [(0, 100), (30, 100), (94, 100), (96, 200), (100, 200), (101, 200), (160, 200), (199, 300)],
)
def test_evaluations_are_at_multiples_that_are_not_too_near(tmp_path, last, following):
    referee = RefereeCallback(None, Evaluation(every=100), ("model",), tmp_path / "a", tmp_path / "b", silent)  # type: ignore[arg-type]
    assert referee._next_step() == 0
    referee.rows = [{"timesteps": last}]
    assert referee._next_step() == following


def test_rows_beyond_the_checkpoint_are_measured_again(tmp_path):
    path = tmp_path / "rows.csv"
    rows = [dict.fromkeys(FIELDS, "") | {"timesteps": str(step), "model": "0.5"} for step in (30, 100, 200)]
    path.write_text(to_csv(rows))
    referee = RefereeCallback(None, Evaluation(), ("model",), path, tmp_path / "episodes.csv", silent)  # type: ignore[arg-type]
    referee.go_on_from(150)
    assert referee.rows == rows[:2]


def test_an_offline_phase_tells_how_far_it_is_and_goes_on_after_a_stop(tmp_path):
    small = SMALL | {"pretrain_steps": 2_000, "pretrain_batch_size": 16, "n_action_samples": 2}
    entry = {"algorithm": "cal_ql", "hyperparameters": small}
    (cell,) = small_suite(
        tmp_path, {"Cal-QL": entry}, steps=100, evaluation={"every": 600, "episodes": 4, "n_envs": 2}
    )[1].cells()
    told: list[Progress] = []

    def stop(progress: Progress) -> None:
        told.append(progress)
        raise SystemExit("The referee is gone")

    with pytest.raises(SystemExit):
        run_cell(cell, tmp_path / "cell", stop)
    (checkpoint,) = (tmp_path / "cell" / "checkpoints").iterdir()
    assert checkpoint.name == "step_000000000_offline_000000600"
    run_cell(cell, tmp_path / "cell", told.append)
    doing = ["learns offline, step 1,000", "learns offline, step 1,000", "learns offline, step 2,000"]
    assert [progress.doing for progress in told[:3]] == doing
    assert told[-1].doing == "finished"
