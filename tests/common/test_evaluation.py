"""Success is counted rightly, for the right actor, and evaluating changes nothing about the run."""

import csv
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from scipy.stats import binomtest
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import ConvertCallback
from stable_baselines3.common.vec_env import VecNormalize
from worlds import ReachEnv, WalkHome, Witness, gaussian, one_demonstration, reach, small_model

from sb3_q2rl import QGatedSAC
from sb3_q2rl.baselines import RLPD
from sb3_q2rl.common.checkpoint import resume, save_checkpoint
from sb3_q2rl.common.episode_log import EpisodeLogCallback
from sb3_q2rl.common.eval_callback import GateEvalCallback
from sb3_q2rl.common.evaluation import Evaluation, evaluate
from sb3_q2rl.common.files import read_table

pytestmark = pytest.mark.usefixtures("quick_fit")


class Every(gym.Wrapper):
    """Success is the lot of every third episode, whatever is done."""

    episode = 0

    def reset(self, **kwargs):
        self.episode += 1
        return self.env.reset(**kwargs)

    def step(self, action):
        obs, reward, terminated, truncated, _ = self.env.step(action)
        return obs, reward, terminated, truncated, {"is_success": self.episode % 3 == 0}


def test_counts_the_last_step_of_each_episode():
    result = evaluate(small_model(), Every(ReachEnv()), n_episodes=9)
    assert (result.n_success, result.n_episodes) == (3, 9)
    assert result.success_rate == result.mean_share == pytest.approx(1 / 3)


def test_a_task_of_parts_counts_those_that_were_done():
    class Half(gym.Wrapper):
        def step(self, action):
            obs, reward, terminated, truncated, _ = self.env.step(action)
            return obs, reward, terminated, truncated, {"is_success": False, "success": 0.5}

    result = evaluate(small_model(), Half(ReachEnv()), n_episodes=3)
    assert (result.success_rate, result.mean_share) == (0.0, 0.5)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_tells_good_from_bad(n_envs):
    good = evaluate(small_model(bc_policy=WalkHome(1.0)), reach(n_envs=n_envs), 10)
    bad = evaluate(small_model(bc_policy=WalkHome(-1.0)), reach(n_envs=n_envs), 10)
    assert (good.success_rate, bad.success_rate) == (1.0, 0.0)
    assert good.mean_reward > bad.mean_reward == -12


@pytest.mark.parametrize(("n_success", "n"), [(0, 10), (10, 10), (3, 20), (97, 200)])
def test_interval_is_wilsons(n_success, n):
    expected = binomtest(n_success, n).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(Evaluation(n_success, n, 0.0, 0.0).interval(), expected, atol=1e-6)


def test_who_acts_is_who_was_asked():
    model = small_model(bc_policy=WalkHome(1.0))
    model.learn(60)
    with th.no_grad():  # an actor that runs away, and critics that trust it, or do not
        model.actor.mu.weight.zero_()
        model.actor.mu.bias.fill_(3.0)
    rl, bc = evaluate(model, reach(), 8, "rl"), evaluate(model, reach(), 8, "bc")
    assert rl.success_rate < 0.5
    assert bc.success_rate == 1.0
    for q_mean, expected in ((1e6, rl), (-1e6, bc)):
        model.critic.q_mean.fill_(q_mean)
        assert evaluate(model, reach(), 8, "model") == expected


def test_errors():
    model = small_model()
    with pytest.raises(ValueError, match=r"no `is_success`.*Add it in a wrapper"):
        evaluate(model, Silent(ReachEnv()), 1)
    with pytest.raises(ValueError, match="`n_episodes` is 0"):
        evaluate(model, reach(), 0)
    normalized = small_model(VecNormalize(reach(), norm_reward=False))
    with pytest.raises(ValueError, match="`env` is not wrapped in VecNormalize"):
        evaluate(normalized, reach(), 1)
    with pytest.raises(ValueError, match="`env` is wrapped in VecNormalize, other than"):
        evaluate(model, VecNormalize(reach(), norm_reward=False), 1)


class Silent(gym.Wrapper):
    def step(self, action):
        return (*self.env.step(action)[:4], {})


def test_callback_evaluates_when_the_gate_opens_and_regularly(tmp_path):
    callback = GateEvalCallback(reach(n_envs=2), n_eval_episodes=4, eval_freq=40, csv_path=tmp_path / "a" / "eval.csv")
    model = small_model(n_bc_episodes=3)
    opened = []

    def watch(local, _):
        opened.append(local["self"].has_started)
        return True

    model.learn(200, [callback, ConvertCallback(watch)])
    steps = [row["timesteps"] for row in callback.history]
    assert steps[0] == opened.index(True)
    assert np.diff(steps).tolist() == [40] * (len(steps) - 1)
    assert len(steps) >= 4
    for row in callback.history:
        assert row["bc"] == callback.history[0]["bc"] == 1.0  # played once: it does not change
        for who in ("model", "rl", "bc"):
            assert 0 <= row[f"{who}_low"] <= row[who] <= row[f"{who}_high"] + 1e-9 <= 1 + 1e-9
    with open(tmp_path / "a" / "eval.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items()} for row in written] == callback.history


def test_callback_in_a_second_training_that_counts_anew():
    callback, model = GateEvalCallback(reach(), n_eval_episodes=1, eval_freq=30), small_model()
    model.learn(150, callback)
    n_rows = len(callback.history)
    model.learn(70, callback)
    assert len(callback.history) >= n_rows + 2


def test_callback_without_a_bc_policy(capsys):
    callback = GateEvalCallback(reach(), n_eval_episodes=1, eval_freq=30, verbose=1)
    RLPD(reach(), demonstrations=one_demonstration(), learning_starts=10, batch_size=40).learn(40, callback)
    assert callback.history
    assert not any("bc" in name for row in callback.history for name in row)
    assert "BC alone" not in capsys.readouterr().out


def test_callback_refuses_before_anything_is_learnt():
    for wrong in ({"n_eval_episodes": 0}, {"eval_freq": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            GateEvalCallback(reach(), **wrong)
    model = small_model()
    for env, message in (
        (reach("dict"), r"observation space Dict\(.* learns from Box.*same wrappers"),
        (VecNormalize(reach(), norm_reward=False), "`env` is wrapped in VecNormalize, other than"),
    ):
        with pytest.raises(ValueError, match=message):
            model.learn(10, GateEvalCallback(env))
    assert model.replay_buffer.pos == 0
    with pytest.raises(ValueError, match="not for SAC: use SB3's EvalCallback"):
        SAC("MlpPolicy", reach()).learn(10, GateEvalCallback(reach()))


def test_evaluating_does_not_change_the_run():
    def run(*callbacks):
        model = small_model(reach(n_envs=2), WalkHome(is_recurrent=True))
        model.learn(160, list(callbacks))
        return th.cat([parameter.flatten() for parameter in model.policy.parameters()])

    th.testing.assert_close(run(GateEvalCallback(reach(seed=9), 3, eval_freq=30)), run(), rtol=0, atol=0)


def test_callback_normalises_as_the_model_learns_and_does_not_learn_from_evaluation():
    env: Any = VecNormalize(reach(seed=0), norm_reward=False)
    eval_env: Any = VecNormalize(reach(seed=1), norm_reward=False)
    witness = Witness()
    model = small_model(env, witness)
    callback = GateEvalCallback(eval_env, 3, eval_freq=50)
    model.learn(150, callback)
    assert len(callback.history) >= 2
    callback.evaluate_now()
    np.testing.assert_allclose(eval_env.obs_rms.mean, env.obs_rms.mean)
    witness.seen.clear()
    evaluate(model, eval_env, 2)
    starts = th.cat(witness.seen).norm(dim=1)
    assert starts.max() == pytest.approx(1.0, abs=1e-3)  # as the world gave them: it starts on the unit circle
    assert eval_env.obs_rms.count == env.obs_rms.count


def test_rows_before_a_stop_are_kept(tmp_path):
    def callback():
        return GateEvalCallback(reach(seed=3), 2, eval_freq=40, csv_path=tmp_path / "eval.csv")

    model = small_model(bc_policy=gaussian())
    first = callback()
    model.learn(120, first)
    save_checkpoint(model, tmp_path / "run")
    model.learn(60, first, reset_num_timesteps=False)  # lost when the process dies here
    resumed = resume(QGatedSAC, tmp_path / "run", reach(), device="cpu")
    second = callback()
    resumed.learn(120, second, reset_num_timesteps=False)
    steps = [row["timesteps"] for row in second.history]
    assert steps == sorted(set(steps))
    assert np.diff(steps).tolist() == [40] * (len(steps) - 1)
    assert len(second.history) >= len([row for row in first.history if row["timesteps"] <= 120]) + 2


def test_a_row_that_a_kill_cut_short_stops_nobody(tmp_path):
    def callbacks():
        evaluations = GateEvalCallback(reach(seed=3), 2, eval_freq=40, csv_path=tmp_path / "eval.csv")
        return [evaluations, EpisodeLogCallback(tmp_path / "episodes.csv")]

    model = small_model()
    model.learn(100, callbacks())
    for name in ("eval.csv", "episodes.csv"):
        before = read_table(tmp_path / name)
        with open(tmp_path / name, "a") as file:
            file.write("99,0.")
        model.learn(80, callbacks(), reset_num_timesteps=False)
        after = read_table(tmp_path / name)
        assert len(after) > len(before)
        for row, kept in zip(before, after, strict=False):
            assert [float(row[key]) for key in row if key != "phase"] == [
                float(kept[key]) for key in row if key != "phase"
            ]


def test_a_dict_key_with_a_dot_is_refused():
    env = ReachEnv("dict")
    env.observation_space = spaces.Dict({"observation.state": spaces.Box(-1, 1, (2,), np.float32)})
    with pytest.raises(ValueError, match="observations named 'observation.state'; networks cannot be named with a dot"):
        small_model(env)
