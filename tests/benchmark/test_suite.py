import dataclasses
import json
from pathlib import Path

import gymnasium as gym
import pytest
from referee_world import small_suite

from sb3_q2rl.benchmark.algorithms import ALGORITHMS, BC, constructor_keywords, env_wrapper, hyperparameter_names
from sb3_q2rl.benchmark.suite import Cell, load_suite

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
COMMITTED = sorted(BENCHMARKS.glob("*.yml"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_suites_name_only_what_there_is(path):
    for cell in load_suite(path).cells():
        if cell.by.algorithm == BC:
            continue
        assert constructor_keywords(cell).keys() <= hyperparameter_names(cell.by.algorithm), cell.key


def test_images_are_learnt_from_as_the_bc_policy_sees_them_or_as_pixels():
    pytest.importorskip("rl_zoo3", reason="needs the extra `zoo`")
    pytest.importorskip("robosuite", reason="needs the extra `robosuite`")
    (path,) = [path for path in COMMITTED if path.stem == "images"]
    shown = {}
    for cell in load_suite(path).cells({"task": ["can-image"]}):
        env, wrapper = gym.make(cell.to.env), env_wrapper(cell)
        shown[cell.label] = (env if wrapper is None else wrapper(env)).observation_space["agentview_image"].shape
        env.close()
    assert shown == {"BC": (64,), "Q2RL": (64,), "Q2RL-from-pixels": (84, 84, 3)}


def test_every_algorithm_of_the_zoo_can_be_compared():
    pytest.importorskip("rl_zoo3", reason="needs the extra `zoo`")
    from sb3_q2rl.zoo.registration import ALGORITHMS as ZOO

    assert {name: row.algorithm for name, row in ZOO.items()}.items() <= {
        name: row.algorithm for name, row in ALGORITHMS.items()
    }.items()


def test_what_differs_between_cells_is_what_the_suite_says(tmp_path):
    entries = {
        "ours": {"algorithm": "qgated_sac"},
        "with data": {"algorithm": "qgated_sac"},
        "changed": {"algorithm": "qgated_sac", "hyperparameters": {"gamma": 0.9, "policy_kwargs": {"n_critics": 7}}},
        "falls": {"algorithm": "qgated_sac", "hyperparameters": {"bc_loss_weight": "lin_0.2"}},
        "rlpd": {"algorithm": "rlpd"},
        "sac": {"algorithm": "sac", "demonstrations": False},
    }
    entries["with-data"] = entries.pop("with data") | {"demonstrations": True}
    suite = small_suite(tmp_path, entries)[1]
    made = {cell.label: constructor_keywords(cell) for cell in suite.cells()}
    ours = made["ours"]
    assert ours["policy_kwargs"] == {"net_arch": [8], "n_critics": 2}
    assert ours["bc_policy"] == str(tmp_path / "bc.pt")
    assert "demonstrations" not in ours
    assert made["with-data"] == ours | {"demonstrations": str(tmp_path / "demos.npz")}
    assert made["changed"] == ours | {"gamma": 0.9, "policy_kwargs": {"net_arch": [8], "n_critics": 7}}
    assert made["falls"]["bc_loss_weight"](0.5) == pytest.approx(0.1)
    assert made["rlpd"]["demonstrations"] == str(tmp_path / "demos.npz")
    assert "bc_policy" not in made["rlpd"]
    assert made["sac"].keys() & {"bc_policy", "demonstrations", "entropy_backup"} == set()
    # All of them: the same schedule
    for name in ("learning_rate", "batch_size", "train_freq", "gradient_steps", "policy_delay"):
        assert len({made[label][name] for label in made}) == 1


def test_cells_and_filters(tmp_path):
    entries = {"BC": {"algorithm": "bc"}, "Q2RL": {"algorithm": "qgated_sac"}}
    suite = small_suite(tmp_path, entries, seeds=[0, 10])[1]
    assert [cell.key for cell in suite.cells()] == ["reach/BC_seed0", "reach/Q2RL_seed0", "reach/Q2RL_seed10"]
    assert [cell.key for cell in suite.cells({"seed": ["10"], "algorithm": ["Q2RL"]})] == ["reach/Q2RL_seed10"]
    with pytest.raises(ValueError, match="seed=3 fits no cell. There are: 0, 10"):
        suite.cells({"seed": ["3"]})
    with pytest.raises(ValueError, match="`--only` colour=... is unknown; choose among task=..., algorithm=..., seed="):
        suite.cells({"colour": ["red"]})


def test_a_cell_survives_json(tmp_path):
    for cell in small_suite(tmp_path, {"Q2RL": {"algorithm": "qgated_sac", "hyperparameters": {"gamma": 0.9}}})[
        1
    ].cells():
        assert Cell.from_dict(json.loads(json.dumps(cell.as_dict()))) == cell


def test_an_algorithm_is_left_out_of_a_task_that_lacks_what_it_starts_from(tmp_path):
    entries = {name: {"algorithm": name} for name in ("bc", "qgated_sac", "rlpd", "sac")}
    suite = small_suite(tmp_path, entries | {"sac0": {"algorithm": "sac", "demonstrations": False}})[1]
    bare = dataclasses.replace(suite.tasks["reach"], bc_policy=None, demonstrations=None)
    assert [c.label for c in dataclasses.replace(suite, tasks={"reach": bare}).cells()] == ["sac0"]
    bc_only = dataclasses.replace(suite.tasks["reach"], demonstrations=None)
    assert [c.label for c in dataclasses.replace(suite, tasks={"reach": bc_only}).cells()] == [
        "bc",
        "qgated_sac",
        "sac0",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds list, expected the keys tasks"),
        ("tasks: {}", "bad.yml: the suite lacks algorithms"),
        ("tasks: {a: {env: E}}\nalgorithms: {}", "`tasks.a` lacks steps"),
        (
            "tasks: {a: {env: E, steps: 1, colour: red}}\nalgorithms: {}",
            "`tasks.a` has the unknown key.* colour; it takes env",
        ),
        ("tasks: {}\nalgorithms: {x: {algorithm: ppo}}", "`algorithm` of x is 'ppo'; choose among qgated_sac, .*bc"),
        (
            "tasks: {}\nalgorithms: {x: {algorithm: sac, preset: paper}}",
            "`preset` of x is 'paper': zoo_configs has no rlpd_paper.yml",
        ),
        ("tasks: {}\nalgorithms: {a/b: {algorithm: bc}}", "bad.yml: 'a/b' cannot name a file"),
        ("tasks: [a]\nalgorithms: {}", "`tasks` is .'a'., expected names and what they stand for"),
        ("tasks: {}\nalgorithms: {}\nseeds: 0", "`seeds` is 0, expected a list of whole numbers"),
        ("tasks: {a: [}", "bad.yml is not YAML"),
        ("tasks: {}\nalgorithms: {}\nseeds: [-1]", "`seeds` is .-1., expected a list of whole numbers"),
        (
            "tasks: {a: {env: E, steps: 1e2}}\nalgorithms: {}",
            "bad.yml: `tasks.a.steps` is '1e2' .str., expected a whole number of 1 or more",
        ),
        ("tasks: {a: {env: E, steps: 0}}\nalgorithms: {}", "`tasks.a.steps` is 0 .int., expected a whole number of 1"),
        ("tasks: {a: {env: 1, steps: 1}}\nalgorithms: {}", "`tasks.a.env` is 1 .int., expected a text"),
        (
            "tasks: {a: {env: AdroitHandDor-v0, steps: 1}}\nalgorithms: {}",
            "`tasks.a.env` is 'AdroitHandDor-v0': .*doesn't exist. Did you mean: `AdroitHandDoor",
        ),
        (
            "tasks: {a: {env: E, steps: 1, bc_policy: 1}}\nalgorithms: {}",
            "`tasks.a.bc_policy` is 1 .int., expected a text or nothing",
        ),
        (
            "tasks: {a: {env: E, steps: 1, env_kwargs: }}\nalgorithms: {}",
            "`tasks.a.env_kwargs` is None .NoneType., expected keys and values",
        ),
        (
            "tasks: {}\nalgorithms: {}\nevaluation: {every: 0}",
            "bad.yml: `evaluation.every` is 0 .int., expected a whole number of 1 or more",
        ),
        ("tasks: {}\nalgorithms: {}\nevaluation: {episodes: true}", "`evaluation.episodes` is True .bool., expected"),
        ("tasks: {}\nalgorithms: {}\nevaluation: {seed: -1}", "`evaluation.seed` is -1 .int., expected .* 0 or more"),
        ("tasks: {}\nalgorithms: {}\nevaluation: {deterministic: 1}", "is 1 .int., expected true or false"),
        ("tasks: {}\nalgorithms: {}\nnetworks: [64]", "`networks` is .64. .list., expected keys and values"),
        (
            "tasks: {}\nalgorithms: {x: {algorithm: rlpd, hyperparameters: {learning_start: 1}}}",
            "bad.yml: `algorithms.x.hyperparameters` has the unknown learning_start; rlpd takes .*learning_starts",
        ),
        (
            "tasks: {}\nalgorithms: {x: {algorithm: bc, hyperparameters: {gamma: .9}}}",
            "has the unknown gamma; bc takes bc_deterministic, bc_policy, env_wrapper",
        ),
        ("tasks: {}\nalgorithms: {}\nreference: x", "`reference` is 'x', which is none of"),
    ],
)
def test_a_suite_that_says_something_wrong(tmp_path, text, message):
    path = tmp_path / "bad.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_suite(path)


def test_no_suite(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no suite"):
        load_suite(tmp_path / "none.yml")
