"""What a user can get wrong, and what the message says about it."""

import dataclasses
from contextlib import nullcontext
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from test_run import demonstrations
from worlds import HORIZON, ReachEnv, WalkHome, gaussian, reach, small_model

from sb3_q2rl import BCStep, QGatedSAC
from sb3_q2rl.bc import GaussianBCPolicy
from sb3_q2rl.common.offline_to_online import OfflineToOnlineSAC

pytestmark = pytest.mark.usefixtures("quick_fit")


class Says(WalkHome):
    """Answers with whatever it was told to."""

    def __init__(self, **fields):
        super().__init__()
        self.fields = fields

    def step(self, obs, state, episode_start, deterministic=False) -> BCStep:
        return super().step(obs, state, episode_start, deterministic)._replace(**self.fields)


# ---------------------------------------------------------------- the BC policy


def test_bc_policy_of_another_observation():
    policy = GaussianBCPolicy(39, 2, net_arch=(8,)).eval()
    with pytest.raises(ValueError, match=r"`bc_policy` cannot act on this environment's observations .*\(39,\)"):
        small_model(bc_policy=policy)
    with pytest.raises(ValueError, match=r"`bc_policy` cannot act .*clock.*which the observation lacks"):
        small_model(reach("goal"), gaussian("dict"))


def test_bc_policy_of_another_action():
    policy = GaussianBCPolicy(2, 7, net_arch=(8,)).eval()
    with pytest.raises(
        ValueError, match=r"actions of shape \(7,\), but .* wants \(2,\)\. Is it the policy of another robot"
    ):
        small_model(bc_policy=policy)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"actions": th.full((2, 2), th.nan)}, "action of NaN"),
        ({"actions": th.full((2, 2), 3.0)}, r"magnitude 3; expected finite numbers in \[-1, 1\]"),
        ({"log_prob": th.tensor([0.0, th.inf])}, "log-probability that is not finite"),
        ({"entropy": th.tensor([th.nan, 0.0])}, "entropy that is not finite"),
    ],
)
def test_unsound_answers_of_the_bc_policy(fields, message):
    with pytest.raises(ValueError, match=f"`bc_policy` gave an? .*{message}"):
        small_model(bc_policy=Says(**fields))


@pytest.mark.parametrize("steps", [8, 60])
def test_a_bc_policy_that_breaks_in_the_middle_of_the_run(steps):
    policy = Says()
    model = small_model(bc_policy=policy, n_bc_episodes=4)
    with pytest.warns(UserWarning, match="before anything was learnt") if steps == 8 else nullcontext():
        model.learn(steps)
    policy.fields = {"actions": th.full((1, 2), th.nan)}
    with pytest.raises(ValueError, match="`bc_policy` gave an action of NaN"):
        model.learn(10, reset_num_timesteps=False)
    with pytest.raises(ValueError, match="`bc_policy` gave an action of NaN"):
        model.predict(np.zeros(2, np.float32))


def test_missing_or_strange_bc_policy(tmp_path):
    with pytest.raises(ValueError, match="`bc_policy` is missing: Q2RL starts from one"):
        QGatedSAC(ReachEnv())
    with pytest.raises(TypeError, match=r"`bc_policy` is a int; expected the name of a shipped policy, the path"):
        small_model(bc_policy=3)
    with pytest.raises(ValueError, match=r"mapping of \['path'\]; expected `path_or_name` and .*observation_keys"):
        small_model(bc_policy={"path": "model.pth"})
    with pytest.raises(FileNotFoundError, match="no BC checkpoint .*nowhere.pt.*adroit-door-human"):
        small_model(bc_policy=tmp_path / "nowhere.pt")


def test_damaged_and_hostile_checkpoints(tmp_path):
    file = gaussian().save(tmp_path / "bc.pt")
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ValueError, match="damaged"):
        small_model(bc_policy=file)

    canary = tmp_path / "canary"

    class Hostile:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    th.save({"format": GaussianBCPolicy.FORMAT, "config": Hostile()}, file)
    with pytest.raises(ValueError, match="could execute code"):
        small_model(bc_policy=file)
    assert not canary.exists()


def test_recurrent_bc_policy_with_hindsight():
    with pytest.raises(ValueError, match=r"`bc_policy` is recurrent and `replay_buffer_class` relabels goals"):
        small_model(reach("goal"), WalkHome(is_recurrent=True), replay_buffer_class=HerReplayBuffer)


# ---------------------------------------------------------------- the environment


class Spaces(ReachEnv):
    def __init__(self, action_space):
        super().__init__()
        self.action_space = action_space


@pytest.mark.parametrize(
    "space",
    [spaces.Discrete(3), spaces.Box(-np.inf, np.inf, (2,)), spaces.MultiBinary(2)],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("named", [True, False])
def test_action_space_is_no_finite_box(space, named):
    make = partial(QGatedSAC, "MlpPolicy") if named else QGatedSAC
    with pytest.raises(ValueError, match=r"`env` has the action space .*; expected a Box with finite bounds"):
        make(Spaces(space), bc_policy=WalkHome())


def test_no_environment():
    for make in (QGatedSAC, partial(QGatedSAC, "MlpPolicy")):
        with pytest.raises(ValueError, match=r"`env` is missing: write QGatedSAC\(env, \.\.\.\)"):
            make(bc_policy=WalkHome())


def test_no_finished_episode():
    with pytest.raises(
        RuntimeError, match=r"Not one episode of the BC policy ended within 3 steps.*Raise `total_timesteps`"
    ):
        small_model().learn(3)


def test_a_callback_may_stop_the_estimation_phase():
    model = small_model().learn(100, lambda local, _: local["self"].num_timesteps < 3)
    assert model.num_timesteps == 3


def test_too_few_finished_episodes():
    with pytest.warns(UserWarning, match=r"ended before anything was learnt online: \d+ of 50 BC episodes finished"):
        small_model(n_bc_episodes=50).learn(3 * HORIZON)


class BadReward(gym.Wrapper):
    steps = 0

    def __init__(self, bad_step):
        super().__init__(ReachEnv())
        self.bad_step = bad_step

    def step(self, action):
        self.steps += 1
        obs, reward, *rest = self.env.step(action)
        return obs, float("nan") if self.steps == self.bad_step else reward, *rest


@pytest.mark.parametrize("bad_step", [3, 50])
def test_rewards_that_are_no_numbers(bad_step):
    model = small_model(BadReward(bad_step))
    with pytest.raises(ValueError, match="Environment 0 gave the reward nan; expected a finite number"):
        model.learn(100)
    assert np.isfinite(model.replay_buffer.rewards).all()


def test_normalised_rewards():
    with pytest.raises(
        ValueError, match=r"VecNormalize\(norm_reward=True\).*Use VecNormalize\(env, norm_reward=False\)"
    ):
        small_model(VecNormalize(reach()))


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy_delay": 3}, "`policy_delay`=3 must be at least 1 and divide `batch_size`=16"),
        ({"policy_delay": 0}, "`policy_delay`=0 must be at least 1"),
        (
            {"policy_delay": 4, "gradient_steps": 6},
            "`policy_delay`=4 must divide the gradient steps.*`gradient_steps=4`",
        ),
        (
            {"policy_delay": 4, "gradient_steps": -1},
            "`policy_delay`=4 must divide the gradient steps of one call.* are 1",
        ),
        ({"policy_delay": 2, "gradient_steps": -1, "train_freq": (1, "episode")}, "in episodes gives a varying number"),
        ({"gradient_steps": 0}, "`gradient_steps`=0 would never learn"),
        ({"n_bc_episodes": 0}, "`n_bc_episodes` is 0"),
        ({"n_bc_episodes": float("nan")}, "`n_bc_episodes` is nan; expected a whole number"),
        ({"q_init_steps": 2.5}, "`q_init_steps` is 2.5; expected a whole number"),
        ({"n_steps": "3"}, "`n_steps` is '3'; expected a whole number"),
        ({"policy_kwargs": {"bc_temperature": 5.0}}, "Pass it as `bc_temperature=...` alone"),
        ({"bc_loss_weight": 1.5}, "`bc_loss_weight` is 1.5"),
        ({"bc_loss_weight": lambda progress: 2 - progress}, r"`bc_loss_weight` is 1.5 with 0.5 of the steps remaining"),
        ({"bc_loss_weight": "lin_0.3"}, r"`bc_loss_weight` is 'lin_0\.3'.*schedule"),
        (
            {"replay_buffer_class": ReplayBuffer},
            "`replay_buffer_class`=ReplayBuffer does not store the BC policy's actions",
        ),
        ({"gamma": 1.0}, "`gamma` is 1.0: 'repeat_last' sums an endless tail"),
        ({"truncation_tail": "bootstrap"}, "`truncation_tail` is 'bootstrap', expected one of"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        small_model(**options)


def test_numbers_as_yaml_writes_them():
    model = small_model(n_bc_episodes=2e0, q_init_steps=1e1, batch_size=1.6e1, n_steps=2.0, policy_delay=1.0)
    model.learn(3 * HORIZON)
    assert model.has_started
    assert model.n_bc_episodes == 2
    assert model._n_updates > 0


@pytest.mark.parametrize("options", [{"optimize_memory_usage": True}])
def test_options_of_sac_that_would_be_ignored(tmp_path, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}[`=]"):
        OfflineToOnlineSAC(ReachEnv(), **options)
    with pytest.raises(TypeError, match=name):
        small_model(**options)
    small_model(bc_policy=gaussian()).save(tmp_path / "model")
    with pytest.raises(ValueError, match=f"`{name}[`=]"):
        QGatedSAC.load(tmp_path / "model", **options)


# ---------------------------------------------------------------- demonstrations


def test_demonstrations_with_nan():
    demos = demonstrations()
    rewards = demos.rewards.copy()
    rewards[3] = np.nan
    with pytest.raises(ValueError, match="rewards"):
        dataclasses.replace(demos, rewards=rewards)


def test_demonstrations_of_another_world():
    with pytest.raises(ValueError, match=r"`demonstrations` have observations of shape \(2,\), but .*clock"):
        small_model(reach("dict"), demonstrations=demonstrations())
    demos = demonstrations()
    wide = dataclasses.replace(demos, actions=np.zeros((len(demos), 3), np.float32))
    with pytest.raises(ValueError, match=r"`demonstrations` have 3-dimensional actions, but .*another robot"):
        small_model(demonstrations=wide)
    with pytest.raises(FileNotFoundError):
        small_model(demonstrations="nowhere.npz")


def test_demonstrations_with_hindsight():
    with pytest.raises(ValueError, match="`demonstrations` cannot be put in a `replay_buffer_class` that relabels"):
        small_model(reach("goal"), replay_buffer_class=HerReplayBuffer, demonstrations=demonstrations("goal"))


def test_more_demonstrations_than_the_buffer_holds():
    with pytest.raises(ValueError, match="do not fit in a replay buffer of 20.*Raise `buffer_size`"):
        small_model(demonstrations=demonstrations(), buffer_size=20)
