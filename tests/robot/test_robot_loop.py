"""The whole way on a robot that speaks libfranka's protocol: demonstrations, BC, learning, faults in between."""

import csv
import threading
import time

import pytest
from servers import FrankySim, host_of_our_own

from sb3_q2rl.__main__ import main
from sb3_q2rl.bc.train import train_bc
from sb3_q2rl.data.demonstrations import Demonstrations
from sb3_q2rl.envs.franka.transition_log import read_episodes
from sb3_q2rl.q2rl import QGatedResidualSAC, load_model
from sb3_q2rl.robot.figures import EpisodeFigures

LAB = """
host: {host}
fci: {{realtime: ignore}}
goal: {{position_m: [0.52, 0.0, 0.15], tolerance_m: 0.025}}
limits: {{travel_height_m: 0.2, max_state_age_s: 0.6, max_recoveries: {max_recoveries}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def sim():
    server = FrankySim(host_of_our_own(9))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def bc_policy(sim, folder):
    """From demonstrations on this robot."""
    demos = folder / "demos.hdf5"
    assert main([*command("record", sim, folder), "--by", "script", "--episodes", "3", "--output", str(demos)]) == 0
    demonstrations = Demonstrations.load(demos)
    assert demonstrations.n_episodes == 3
    policy = train_bc(demonstrations, net_arch=[32], n_epochs=40, batch_size=16, sigma_min=0.2, seed=0)
    return str(policy.save(folder / "bc.pt"))


def command(name, sim, folder, max_recoveries=5, n_steps=30):
    lab = folder / f"lab_{max_recoveries}.yaml"
    lab.write_text(LAB.format(host=sim.host, max_recoveries=max_recoveries))
    return ["robot", name, "--robot", "fci", "--lab", str(lab), "--max-episode-steps", str(n_steps)]


def learn(sim, folder, bc_policy, output, n_timesteps, more=(), **kwargs):
    short = ["--n-bc-episodes", "2", "--q-init-steps", "20", "--updates", "8", "--save-freq", "40"]
    files = ["--policy", bc_policy, "--output", str(output), "--steps", str(n_timesteps)]
    return main([*command("learn", sim, folder, **kwargs), *files, *short, "--learner", "episodes", *more])


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def in_episode(number, do, monkeypatch):
    """Something happens to the server at the third step of an episode."""
    real_reset, real_step, count = EpisodeFigures.reset, EpisodeFigures.step, {"episode": 0, "step": 0}

    def reset(self, **kwargs):
        count.update(episode=count["episode"] + 1, step=0)
        return real_reset(self, **kwargs)

    def step(self, action):
        count["step"] += 1
        if (count["episode"], count["step"]) == (number, 3):
            do()
        return real_step(self, action)

    monkeypatch.setattr(EpisodeFigures, "reset", reset)
    monkeypatch.setattr(EpisodeFigures, "step", step)


def test_a_server_that_dies_in_mid_episode_ends_the_episode_not_the_run(sim, folder, bc_policy, monkeypatch, quick_fit):
    def die_and_come_back():
        sim.kill()
        threading.Timer(1.0, sim.start).start()

    in_episode(3, die_and_come_back, monkeypatch)
    output = folder / "fault"
    more = ["--algo", "qgated_residual", "--demonstrations", str(folder / "demos.hdf5")]
    assert learn(sim, folder, bc_policy, output, 70, more) == 0
    model = load_model(output / "model.zip")
    assert isinstance(model, QGatedResidualSAC)
    figures, episodes = rows_of(output / "figures.csv"), rows_of(output / "episodes.csv")
    assert {row["phase"] for row in episodes} == {"bc", "online"}
    faults = [row["fault"] for row in figures if row["fault"]]
    assert len(faults) == 1
    assert any(text in faults[0] for text in ("s old", "fell silent", "did not return")), faults
    assert figures[-1]["fault"] == ""
    # every transition is on disk
    n_steps = sum(int(row["length"]) for row in episodes)
    assert sum(len(episode.steps) for episode in read_episodes(output / "transitions.log")) == n_steps


@pytest.mark.slow
def test_twenty_episodes_then_more_then_an_evaluation(sim, folder, bc_policy, capsys):
    output = folder / "run"
    assert learn(sim, folder, bc_policy, output, 400) == 0
    episodes, figures = rows_of(output / "episodes.csv"), rows_of(output / "figures.csv")
    assert len(figures) == len(episodes) >= 400 // 30
    assert {row["phase"] for row in episodes} == {"bc", "online"}
    assert [row["fault"] for row in figures] == [""] * len(figures)
    assert sum(int(row["success"]) for row in figures) >= 1
    n_steps = sum(int(row["length"]) for row in episodes)
    # every transition is on disk
    assert sum(len(episode.steps) for episode in read_episodes(output / "transitions.log")) == n_steps
    assert learn(sim, folder, bc_policy, output, n_steps + 30, more=["--resume"]) == 0
    assert "Going on from step" in capsys.readouterr().out
    model = ["--model", str(output / "model.zip"), "--episodes", "2"]
    assert main([*command("evaluate", sim, folder), *model]) == 0
    assert "of 2 episodes" in capsys.readouterr().out


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_run_with_a_message_and_whole_files(
    sim, folder, bc_policy, monkeypatch, capsys, quick_fit
):
    in_episode(3, sim.freeze, monkeypatch)
    output = folder / "end"
    began_s = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        learn(sim, folder, bc_policy, output, 200, max_recoveries=1)
    assert time.monotonic() - began_s < 100
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "Look for their cause" in error
    assert "The arm was stopped and the files are closed" in error
    n_steps = sum(len(episode.steps) for episode in read_episodes(output / "transitions.log"))
    assert 10 < n_steps < 80
    assert rows_of(output / "figures.csv")[-1]["fault"]
    assert not [thread for thread in threading.enumerate() if thread.name in ("watchdog", "robotiq")]
    sim.thaw()
