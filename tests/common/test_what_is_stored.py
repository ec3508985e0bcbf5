"""What an environment or a file hands over is looked at before it is stored or learnt from."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.save_util import save_to_pkl
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from test_buffers import ACT, OBS, fill
from worlds import HORIZON, ReachEnv, WalkHome, gaussian, one_demonstration, reach, small_model

from sb3_q2rl.bc.distributions import TanhNormal
from sb3_q2rl.bc.memoryless import MemorylessBCPolicy
from sb3_q2rl.bc.readers.network import Rescaled
from sb3_q2rl.common.buffers import BCReplayBuffer
from sb3_q2rl.q2rl import QGatedSAC

pytestmark = [
    pytest.mark.usefixtures("quick_fit"),
    pytest.mark.filterwarnings("ignore:learn\\(\\) ended before anything was learnt"),
]


class Broken(gym.Wrapper):
    """In its second episode something is not a number."""

    def __init__(self, kind, at):
        super().__init__(ReachEnv(kind))
        self.at, self.n_resets, self.t = at, 0, 0

    def reset(self, **kwargs):
        self.n_resets, self.t = self.n_resets + 1, 0
        return super().reset(**kwargs)

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        self.t += 1
        if self.n_resets == 2:
            if self.at == "executed":
                info["executed_action"] = np.array([np.nan, 0.0])
            elif self.at == "shape":
                info["executed_action"] = np.zeros(3)
            elif (self.at == "end") == (terminated or truncated) and self.t > 1:
                (obs["position"] if isinstance(obs, dict) else obs)[0] = np.nan
        return obs, reward, terminated, truncated, info


@pytest.mark.parametrize("kind", ["flat", "dict"])
@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("middle", "gave an observation.* with 1 of 2 numbers NaN or infinite. One such"),
        ("end", "gave an observation.* with 1 of 2 numbers NaN or infinite at the end of an episode"),
        ("executed", r"executed action \[nan, 0.0\]; expected 2 finite numbers"),
        ("shape", r"executed action \[0.0, 0.0, 0.0\]; expected 2 finite numbers"),
    ],
)
def test_what_is_not_a_number_is_refused_before_it_is_stored(kind, at, message):
    model = small_model(DummyVecEnv([lambda: Broken(kind, at)]), gaussian(kind))
    with pytest.raises(ValueError, match=message):
        model.learn(4 * HORIZON)
    buffer = model.replay_buffer
    stored = buffer.next_observations["position"] if kind == "dict" else buffer.next_observations
    assert np.isfinite(stored).all()
    assert np.isfinite(buffer.actions).all()


def test_the_episodes_of_the_estimate_are_those_that_began_first():
    buffer = BCReplayBuffer(90, OBS, ACT, n_envs=3)
    fill(buffer, 5, 3, [2, 5, 9])  # 2 + 1 + 0 have ended
    assert buffer.n_bc_episodes == 3
    assert len(buffer.first_bc_episodes(2)) == 2
    assert buffer.first_bc_episodes(3) == [], "the third environment's began before the first one's second"
    assert buffer.first_bc_episodes(4) == []
    buffer = BCReplayBuffer(90, OBS, ACT, n_envs=3)
    fill(buffer, 9, 3, [2, 5, 9])
    first = buffer.first_bc_episodes(4)
    assert [(rows[0], len(rows), columns[0]) for rows, columns in first] == [(0, 2, 0), (0, 5, 1), (0, 9, 2), (2, 2, 0)]


class Lottery(gym.Env):
    """Half of the episodes succeed after 3 steps, the others end after 12."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.wins = 0, self.np_random.random() < 0.5
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        won = self.wins and self.t == 3
        return np.zeros(1, np.float32), float(won), won, self.t == 12, {"is_success": won}


def test_many_environments_do_not_make_success_more_likely():
    buffer = BCReplayBuffer(20_000, Lottery.observation_space, Lottery.action_space, n_envs=16)
    envs = [Lottery() for _ in range(16)]
    obs = np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])
    shares, taken = [], 40
    for _ in range(60):
        buffer.reset()
        for env in envs:
            env.reset()
        while not (episodes := buffer.first_bc_episodes(taken)):
            steps = [env.step(np.zeros(1)) for env in envs]
            dones = np.array([step[2] or step[3] for step in steps])
            infos = [{"TimeLimit.truncated": step[3], "bc_step": (0.0, 0.0, 0.0, True)} for step in steps]
            buffer.add(obs, obs, np.zeros((16, 1)), np.array([step[1] for step in steps]), dones, infos)
            for env in np.flatnonzero(dones):
                envs[env].reset()
        assert len(episodes) == taken
        shares.append(np.mean([buffer.rewards[rows[-1], columns[-1]] for rows, columns in episodes]))
    assert np.mean(shares) == pytest.approx(0.5, abs=3 * np.sqrt(0.25 / taken / len(shares)))


def test_a_buffer_that_cannot_hold_the_estimates_episodes():
    model = small_model(bc_policy=WalkHome(skill=0.01), n_bc_episodes=5, buffer_size=3 * HORIZON)
    with pytest.raises(
        ValueError, match=f"`buffer_size`={3 * HORIZON} is too small for the estimate: .* holds 3 whole"
    ):
        model.learn(8 * HORIZON)


def saved(tmp_path, **kwargs):
    model = small_model(bc_policy=gaussian(), **kwargs)
    model.learn(60)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    return model


@pytest.mark.parametrize(
    ("options", "n_envs", "message"),
    [
        ({}, 3, "`env` has 3 environments, but the replay buffer was filled by 1"),
        ({"n_steps": 1}, 1, "holds returns with `n_steps`=5, but the model has 1"),
        ({"gamma": 0.9}, 1, "holds returns with `gamma`=0.99, but the model has 0.9"),
    ],
)
def test_a_replay_buffer_that_does_not_fit_is_refused_and_the_own_is_kept(tmp_path, options, n_envs, message):
    saved(tmp_path)
    loaded = QGatedSAC.load(tmp_path / "model", env=reach(n_envs=n_envs), device="cpu", **options)
    own = loaded.replay_buffer
    with pytest.raises(ValueError, match=message):
        loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer is own


def test_the_replay_buffer_of_another_algorithm(tmp_path):
    model = saved(tmp_path)
    theirs = SAC("MlpPolicy", reach(), buffer_size=50).replay_buffer
    assert type(theirs) is ReplayBuffer
    save_to_pkl(tmp_path / "theirs.pkl", theirs)
    with pytest.raises(ValueError, match="is a ReplayBuffer, but QGatedSAC learns from a BCReplayBuffer"):
        model.load_replay_buffer(tmp_path / "theirs.pkl")


def test_an_environment_of_another_scale_than_before(tmp_path):
    model = small_model(VecNormalize(reach(), norm_reward=False), gaussian())
    model.learn(60)
    model.save(tmp_path / "model")
    for give in (lambda env: QGatedSAC.load(tmp_path / "model", env=env, device="cpu"), model.set_env):
        with pytest.raises(ValueError, match="VecNormalize had scaled, but `env` is not wrapped"):
            give(reach())
        with pytest.raises(ValueError, match="norm_reward"):
            give(VecNormalize(reach()))
    before = model.get_env()
    assert model.get_vec_normalize_env() is before, "what was refused is not half taken"


def test_demonstrations_that_come_too_late_are_told(tmp_path):
    saved(tmp_path)
    with pytest.warns(UserWarning, match="`demonstrations` are put in the replay buffer when the gate opens"):
        QGatedSAC.load(tmp_path / "model", env=reach(), demonstrations=one_demonstration(), device="cpu")


class WrongScores(WalkHome):
    """An Independent is missing."""

    def step(self, *args, **kwargs):
        step = super().step(*args, **kwargs)
        return step._replace(log_prob=step.log_prob.unsqueeze(1).expand(-1, 2))


class HalfADensity(WalkHome):
    def step(self, *args, **kwargs):
        return super().step(*args, **kwargs)._replace(entropy=None)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (WrongScores(), r"'log_prob': \(2, 2\).* expected \(2,\) for both .*Independent"),
        (HalfADensity(), r"\{'log_prob': \(2,\)\}; expected \(2,\) for both"),
    ],
)
def test_scores_of_another_shape(policy, message):
    with pytest.raises(ValueError, match=message):
        small_model(bc_policy=policy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bc_temperature", -1.0),
        ("bc_temperature", float("nan")),
        ("q_init_steps", -5),
        ("n_bc_episodes", 2.5),
        ("batch_size", 0),
        ("buffer_size", 0),
        ("tau", 2.0),
        ("gamma", 1.5),
        ("image_shift", -2),
        ("actor_learning_rate", -1.0),
        ("learning_rate", float("inf")),
    ],
)
def test_numbers_that_no_learning_could_use(name, value):
    with pytest.raises(ValueError, match=f"`{name}` is {value}"):
        small_model(**{name: value})


def test_a_distribution_that_ends_within_the_action_space():
    """As d3rlpy's policies, whose [-1, 1] may be a part of ours: beyond it the density is no number."""

    class Half(MemorylessBCPolicy):
        def distribution(self, obs):
            inner = TanhNormal((-obs).clamp(-1, 1), th.full_like(obs, 0.3))
            return Rescaled(inner, th.full((2,), 0.5), th.zeros(2))

    model = small_model(bc_policy=Half())
    model.learn(60)
    values = [value for value in model.policy.state_dict().values() if isinstance(value, th.Tensor)]
    assert all(th.isfinite(value).all() for value in values if "return_range" not in str(value))
