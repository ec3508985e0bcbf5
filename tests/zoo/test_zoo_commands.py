"""The commands that users type, as subprocesses, on a few hundred steps of short door episodes."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rl_zoo3", reason="needs the extra `zoo`")
pytest.importorskip("gymnasium_robotics", reason="needs the extra `d4rl`")
optuna = pytest.importorskip("optuna")

if importlib.util.find_spec("_sb3_q2rl_zoo_hook") is None:
    pytest.skip("the package is not installed: pip install -e .", allow_module_level=True)

ENV_ID = "AdroitHandDoorBinary-v0"
COMMON = ["--algo", "qgated_sac", "--env", ENV_ID, "--num-threads", "1", "--device", "cpu"]
SHORT_EPISODES = ["--env-kwargs", "max_episode_steps:10"]
TINY = [
    "-params",
    "n_bc_episodes:5",
    "q_init_steps:10",
    "batch_size:32",
    "policy_kwargs:dict(net_arch=[16],n_critics=2,n_values=2,value_net_arch=[16])",
]


def start(folder: Path, module: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "SB3_Q2RL_NO_ZOO"}
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**environment, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], returncode: int = 0) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == returncode, output
    return output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a model that the plain command trained past the BC phase, and what it printed."""
    folder = tmp_path_factory.mktemp("zoo")
    evaluation = ["--eval-freq", "150", "--eval-episodes", "1", "--save-replay-buffer"]
    command = [*COMMON, *SHORT_EPISODES, "-n", "200", *evaluation, "--seed", "1", *TINY]
    return folder, finish(start(folder, "rl_zoo3.train", *command))


def model_file(folder: Path, run: int) -> Path:
    return folder / "logs" / "qgated_sac" / f"{ENV_ID}_{run}" / f"{ENV_ID}.zip"


def test_train_uses_our_configuration(trained: tuple[Path, str]) -> None:
    folder, output = trained
    assert "qgated_sac.yml" in output
    assert "'adroit-door-human'" in output
    assert model_file(folder, 1).is_file()
    assert "rl_action_fraction" in output, "the run did not get past the BC episodes"


def test_enjoy_plays_a_saved_model(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    command = ["--algo", "qgated_sac", "--env", ENV_ID, "-f", "logs", "-n", "25", "--no-render", "--num-threads", "1"]
    output = finish(start(folder, "rl_zoo3.enjoy", *command, "--device", "cpu"))
    assert output.count("Episode Reward: -50.00") == 2, output


def test_continue_from_a_saved_model(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    agent = str(model_file(folder, 1).relative_to(folder))
    command = [*COMMON, *SHORT_EPISODES, "-n", "60", "--eval-freq", "-1", "-i", agent, *TINY]
    output = finish(start(folder, "rl_zoo3.train", *command))
    assert "Loading pretrained agent" in output
    assert "Loading replay buffer" in output
    assert model_file(folder, 2).is_file()


OWN = {
    "qgated_tqc": ["n_bc_episodes:2", "q_init_steps:5"],
    "ibrl": ["n_bc_episodes:2"],
    "rlpd": ["learning_starts:10"],
    "cql": ["pretrain_steps:3"],
    "cal_ql": ["pretrain_steps:3"],
    "wsrl": ["pretrain_steps:3", "warmup_steps:10"],
}


def test_every_other_algorithm_is_trained_and_played(tmp_path: Path) -> None:
    small = ["batch_size:32", "policy_kwargs:dict(net_arch=[16],n_critics=2)"]
    common = ["--env", ENV_ID, "--num-threads", "1", "--device", "cpu"]
    run = [*common, *SHORT_EPISODES, "-n", "60", "--eval-freq", "-1"]
    algorithms = list(OWN)
    for some in (algorithms[:3], algorithms[3:]):
        for algo, process in [
            (algo, start(tmp_path, "rl_zoo3.train", "--algo", algo, *run, "-params", *OWN[algo], *small))
            for algo in some
        ]:
            output = finish(process)
            assert f"{algo}.yml" in output
            assert (tmp_path / "logs" / algo / f"{ENV_ID}_1" / f"{ENV_ID}.zip").is_file()
    play = ["--algo", "wsrl", *common, "-f", "logs", "-n", "15", "--no-render"]
    assert "Episode Reward: -50.00" in finish(start(tmp_path, "rl_zoo3.enjoy", *play))


def test_optimize_with_two_workers_on_one_journal(tmp_path: Path) -> None:
    search = ["-optimize", "--n-trials", "1", "--n-evaluations", "1", "--eval-episodes", "1", "--no-optim-plots"]
    study = ["--storage", "study/journal.log", "--study-name", "door"]
    # Two-step episodes: the smallest sampled `n_bc_episodes` (25) are over after 50 of the 60 steps
    short = ["--env-kwargs", "max_episode_steps:2", "-n", "60", "-params", "q_init_steps:5"]
    workers = [
        start(tmp_path, "rl_zoo3.train", *COMMON, *short, *search, *study, "--seed", seed)
        for seed in ("1", "2")  # worker 2 samples 25
    ]
    for worker in workers:
        finish(worker)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study/journal.log"))
    )
    trials = optuna.load_study(study_name="door", storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    assert all("bc_loss_weight" in trial.params for trial in trials)


def test_switched_off_only_our_own_commands_work(trained: tuple[Path, str], tmp_path: Path) -> None:
    off = {"SB3_Q2RL_NO_ZOO": "1"}
    plain = start(tmp_path, "rl_zoo3.train", *COMMON, **off)
    learn = [*COMMON, *SHORT_EPISODES, "-n", "20", "--eval-freq", "-1", "--conf-file", "paper", *TINY]
    train = start(tmp_path, "sb3_q2rl.zoo.train", *learn, **off)
    play = ["--algo", "qgated_sac", "--env", ENV_ID, "-f", "logs", "-n", "15", "--no-render"]
    enjoy = start(trained[0], "sb3_q2rl.zoo.enjoy", *play, **off)
    assert "invalid choice: 'qgated_sac'" in finish(plain, returncode=2)
    assert "qgated_sac_paper.yml" in finish(train)
    assert model_file(tmp_path, 1).is_file()
    assert "Episode Reward: -50.00" in finish(enjoy)
