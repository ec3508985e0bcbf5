"""It runs as SB3's algorithms do: every kind of environment, every option, every way to call it."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from worlds import HORIZON, GoalReachEnv, NoDensity, ReachEnv, WalkHome, gaussian, reach, small_model

from sb3_q2rl import Demonstrations, QGatedSAC
from sb3_q2rl.common.buffers import BCHerReplayBuffer
from sb3_q2rl.q2rl.policies import GatedSACPolicy

pytestmark = pytest.mark.usefixtures("quick_fit")

NOISE = NormalActionNoise(np.zeros(2), np.full(2, 0.1))


def parameters(model):
    return th.cat([value.flatten() for value in model.policy.state_dict().values() if isinstance(value, th.Tensor)])


@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric")  # the scale of 2 is on purpose
@pytest.mark.parametrize("kind", ["flat", "dict", "image", "goal"])
def test_the_little_worlds_are_sound(kind):
    check_env(GoalReachEnv() if kind == "goal" else ReachEnv(kind))


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("kind", ["flat", "dict", "image"])
def test_observations_of_every_kind(kind, n_envs):
    model = small_model(reach(kind, n_envs))
    before = parameters(model)
    model.learn(60 * n_envs)
    assert model.num_timesteps == 60 * n_envs
    assert model.has_started
    assert model._n_updates > 0
    after = parameters(model)
    assert th.isfinite(after).all()
    assert not th.equal(before, after)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"use_sde": True, "sde_sample_freq": 4},
        {"action_noise": NOISE},
        {"action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(2), np.full(2, 0.1))},
        {"ent_coef": "auto"},
        {"ent_coef": 0.1, "target_entropy": -2},
        {"policy_delay": 4, "gradient_steps": 4},
        {"gradient_steps": -1, "train_freq": 2},
        {"train_freq": (3, "step"), "gradient_steps": 2},
        {"keep_bc_episodes": False},
        {"rl_deterministic": True, "bc_deterministic": False},
        {"bc_policy": NoDensity()},
        {"bc_loss_weight": 0.0, "bc_temperature": 10.0},
        {"bc_loss_weight": lambda progress: 0.3 * progress},
        {"truncation_tail": "zero", "n_target_critics": 1, "gamma": 1.0},
        {"learning_rate": lambda progress: 1e-3 * progress, "actor_learning_rate": 1e-4, "q_init_steps": 0},
        {"policy_kwargs": {"net_arch": {"pi": [8, 8], "qf": [16]}, "layer_norm": False, "n_critics": 2}},
    ],
    ids=lambda options: "-".join(options),
)
def test_options(options, n_envs):
    model = small_model(reach(n_envs=n_envs), **options)
    model.learn(60 * n_envs)
    assert model.has_started
    assert th.isfinite(parameters(model)).all()
    for deterministic in (True, False):
        for obs in (np.zeros(2, np.float32), np.zeros((5, 2), np.float32)):
            action, _ = model.predict(obs, deterministic=deterministic)
            assert action.shape == obs.shape


@pytest.mark.parametrize("keep", [True, False])
def test_bc_episodes_stay_in_the_buffer_or_not(keep):
    model = small_model(reach(n_envs=2), keep_bc_episodes=keep)
    model.learn(100)
    assert (model.replay_buffer.size() == 50) == keep


def test_train_freq_in_episodes():
    model = small_model(train_freq=(1, "episode"), gradient_steps=-1)
    model.learn(60)
    assert model.has_started
    # As many critic steps as environment steps since the estimate, the call that made it included
    assert model._n_updates <= 60


def test_gradient_steps_follow_the_environment_steps():
    model = small_model(reach(n_envs=3), gradient_steps=-1)
    updates = []

    def note(local, _):
        updates.append((local["self"].has_started, local["self"]._n_updates))
        return True

    model.learn(90, note)
    gated = [n for has_started, n in updates if has_started]
    assert np.diff(gated).tolist() == [3] * (len(gated) - 1)


@pytest.mark.parametrize("kind", ["flat", "dict", "goal"])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_vec_normalize(kind, n_envs):
    env = VecNormalize(reach(kind, n_envs), norm_reward=False)
    model = small_model(env, **({"replay_buffer_class": HerReplayBuffer} if kind == "goal" else {}))
    model.learn(60 * n_envs)
    assert th.isfinite(parameters(model)).all()
    action, _ = model.predict(env.reset(), deterministic=True)
    assert action.shape == (n_envs, 2)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("keep", [True, False])
def test_her_asks_the_bc_policy_about_the_new_goals(n_envs, keep):
    model = small_model(
        reach("goal", n_envs),
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 3, "goal_selection_strategy": "final"},
        keep_bc_episodes=keep,
    )
    assert isinstance(model.replay_buffer, BCHerReplayBuffer)
    model.learn(100 * n_envs)
    batch = model._sample_batch(200)
    goal = batch.observations["desired_goal"]
    assert (goal.abs().sum(dim=1) > 0).float().mean() > 0.3  # the world's own goal is always the origin
    th.testing.assert_close(batch.bc_actions, (goal - batch.observations["observation"]).clamp(-1, 1))


def test_worker_processes():
    model = small_model(reach(n_envs=2, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}))
    model.learn(80)
    assert model.has_started
    model.env.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda env, bc: QGatedSAC(env, bc_policy=bc),
        lambda env, bc: QGatedSAC(env, bc_policy=bc, policy_kwargs={"n_critics": 2}),
        lambda env, bc: QGatedSAC("MlpPolicy", env, bc_policy=bc),
        lambda env, bc: QGatedSAC("MlpPolicy", env, bc),
        lambda env, bc: QGatedSAC(GatedSACPolicy, env, bc_policy=bc),
        lambda env, bc: QGatedSAC(env=env, bc_policy=bc),
        # as rl-zoo3 does
        lambda env, bc: QGatedSAC(policy="MlpPolicy", env=env, bc_policy=bc, tensorboard_log=None, seed=1, verbose=0),
    ],
)
def test_ways_to_call_it(make):
    model = make(ReachEnv(), WalkHome())
    assert model.get_env().num_envs == 1
    assert model.predict(np.zeros(2, np.float32))[0].shape == (2,)


def test_environment_by_its_registered_id(tmp_path):
    gym.register("LittleReach-v0", partial(ReachEnv, "dict"))
    checkpoint = gaussian("dict").save(tmp_path / "bc.pt")
    for make in (partial(QGatedSAC, "LittleReach-v0"), partial(QGatedSAC, "MultiInputPolicy", "LittleReach-v0")):
        model = make(bc_policy=checkpoint)
        assert isinstance(model.observation_space, spaces.Dict)
    del gym.registry["LittleReach-v0"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("flat", "MlpPolicy"), ("dict", "MultiInputPolicy"), ("goal", "MultiInputPolicy"), ("image", "CnnPolicy")],
)
def test_the_observation_space_chooses_the_policy_class(kind, name):
    assert type(small_model(reach(kind)).policy) is QGatedSAC.policy_aliases[name]


def test_callbacks_and_progress_bar(tmp_path):
    callbacks = [
        EvalCallback(reach(seed=5), eval_freq=40, n_eval_episodes=2, verbose=0),
        CheckpointCallback(40, str(tmp_path), save_replay_buffer=True),
    ]
    model = small_model()
    model.learn(90, callbacks, progress_bar=True)
    assert len(list(tmp_path.iterdir())) == 4
    small_model().learn(500, StopTrainingOnMaxEpisodes(5))


def test_learning_in_pieces():
    model = small_model(reach(n_envs=2))
    for _ in range(5):
        model.learn(40, reset_num_timesteps=False)
    assert model.num_timesteps == 200
    assert model.replay_buffer.size() == 100
    whole = small_model(reach(n_envs=2))
    whole.learn(200)
    th.testing.assert_close(parameters(model), parameters(whole), rtol=0, atol=0)


def test_estimation_may_span_several_pieces():
    model = small_model(n_bc_episodes=4)
    with pytest.warns(UserWarning, match="1 of 4 BC episodes finished|2 of 4 BC episodes finished"):
        model.learn(HORIZON + 3)
    assert not model.has_started
    model.learn(4 * HORIZON, reset_num_timesteps=False)
    assert model.has_started


class Notes(KVWriter):
    def __init__(self):
        self.seen: dict[str, list] = {}

    def write(self, key_values, key_excluded, step=0):
        for key, value in key_values.items():
            self.seen.setdefault(key, []).append(value)

    def close(self):
        pass


# One table for the users: the README's must name all of these
OUR_KEYS = [
    "rollout/rl_action_fraction", "rollout/q_rl", "rollout/q_bc", "rollout/q_gap",
    "q_estimation/v_r2", "q_estimation/v_rmse", "q_estimation/v_steps", "q_estimation/seconds",
    "train/critic_loss", "train/actor_loss", "train/bc_loss", "train/q_mean", "train/policy_entropy", "train/n_updates",
]  # fmt: skip


def test_logger_keys():
    model = small_model(n_bc_episodes=8)
    notes = Notes()
    model.set_logger(Logger(None, [notes]))
    model.learn(250)
    for key in [*OUR_KEYS, "rollout/ep_rew_mean", "rollout/success_rate", "time/total_timesteps"]:
        assert key in notes.seen, key
        assert np.isfinite(notes.seen[key]).all(), key
    assert len(notes.seen["q_estimation/v_r2"]) == 1
    assert notes.seen["rollout/rl_action_fraction"][0] == 0  # the first lines were all the BC policy's
    fractions = np.array(notes.seen["rollout/rl_action_fraction"])
    assert ((fractions >= 0) & (fractions <= 1)).all()


def test_same_seed_same_run():
    def run(seed):
        model = small_model(reach(n_envs=2, seed=seed), bc_deterministic=False, action_noise=NOISE, seed=seed)
        model.learn(120)
        return parameters(model)

    first = run(3)
    th.testing.assert_close(run(3), first, rtol=0, atol=0)
    assert not th.equal(run(4), first)


def test_predict_adds_no_noise():
    """Action noise explores. SB3's predict() never added it, and may be asked about any number of observations."""
    model = small_model(
        reach(n_envs=3), action_noise=NormalActionNoise(np.zeros(2), np.full(2, 5.0)), rl_deterministic=True
    )
    model.learn(120)
    obs = np.random.default_rng(0).uniform(-1, 1, (7, 2)).astype(np.float32)
    np.testing.assert_array_equal(model.predict(obs)[0], model.predict(obs, deterministic=True)[0])
    assert model.predict(obs[0])[0].shape == (2,)


def demonstrations(kind="flat", n_episodes=4):
    env, bc = ReachEnv(kind), WalkHome()
    rows = []
    for episode in range(n_episodes):
        obs, _ = env.reset(seed=episode)
        over = False
        while not over:
            batch = {k: th.as_tensor(v[None]) for k, v in obs.items()} if kind != "flat" else th.as_tensor(obs[None])
            action = bc.step(batch, None, None, deterministic=True).actions[0].numpy()
            next_obs, reward, terminated, truncated, _ = env.step(2 * action)
            rows.append((obs, next_obs, action, reward, terminated, truncated))
            obs, over = next_obs, terminated or truncated
    obs, next_obs, actions, rewards, terminated, truncated = zip(*rows, strict=True)

    def stack(parts):
        return {k: np.stack([part[k] for part in parts]) for k in parts[0]} if kind != "flat" else np.stack(parts)

    ends = np.flatnonzero(np.array(terminated) | np.array(truncated)) + 1
    return Demonstrations(
        observations=stack(obs),
        next_observations=stack(next_obs),
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
        terminated=np.array(terminated),
        truncated=np.array(truncated),
        episode_ends=ends,
        source="scripted",
    )


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("kind", "n_envs"), [("flat", 1), ("flat", 3), ("dict", 2)])
def test_with_data(kind, n_envs, keep):
    demos = demonstrations(kind)
    model = small_model(reach(kind, n_envs), demonstrations=demos, keep_bc_episodes=keep)
    model.learn(60 * n_envs)
    buffer = model.replay_buffer
    rows = buffer.observations if kind == "flat" else buffer.observations["position"]
    stored = rows[: buffer.size()].reshape(-1, 2)
    shown = demos.observations if kind == "flat" else demos.observations["position"]
    for obs in shown:  # every demonstrated step is in the buffer, beside what was collected
        assert (np.abs(stored - obs).max(axis=1) < 1e-6).any()
    assert buffer.size() > len(demos) / n_envs + 5
    assert buffer.n_bc_episodes >= 3 * keep


def test_get_and_set_parameters():
    model, other = small_model(seed=0), small_model(reach(seed=1), seed=1)
    model.learn(60)
    obs = np.random.default_rng(0).uniform(-1, 1, (9, 2)).astype(np.float32)
    assert not th.equal(parameters(other), parameters(model))
    other.set_parameters(model.get_parameters())
    assert other.has_started
    np.testing.assert_array_equal(other.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    with pytest.raises(ValueError, match="do not match"):
        other.set_parameters({"policy": model.policy.state_dict()})


def test_the_policy_alone_can_be_saved(tmp_path):
    model = small_model(bc_temperature=4.0)
    model.learn(60)
    model.policy.save(tmp_path / "policy")
    loaded = type(model.policy).load(tmp_path / "policy")
    assert loaded.q_estimate.bc_temperature == 4.0
    obs = np.ones((4, 2), np.float32)
    np.testing.assert_array_equal(
        loaded.predict(obs, deterministic=True)[0], model.policy.predict(obs, deterministic=True)[0]
    )


def test_the_bc_losss_weight_follows_its_schedule():
    model = small_model(bc_loss_weight=lambda progress_remaining: progress_remaining)
    model.learn(60)
    batch = model._sample_batch(32)

    def loss(progress_remaining: float) -> float:
        model._current_progress_remaining = progress_remaining
        th.manual_seed(0)
        return model._actor_loss(batch).item()

    th.manual_seed(0)
    policy_loss, bc_loss = model._policy_loss(batch).item(), model._bc_loss(batch).item()
    assert abs(policy_loss - bc_loss) > 0.1
    expected = [bc_loss, 0.25 * bc_loss + 0.75 * policy_loss, policy_loss]
    assert [loss(w) for w in (1.0, 0.25, 0.0)] == pytest.approx(expected)
    assert model.logger.name_to_value["train/bc_loss_weight"] == 0.0
