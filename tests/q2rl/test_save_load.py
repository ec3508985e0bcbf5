"""A saved model is whole: it plays alone, goes on as if nothing had happened, and accepts another BC policy."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from test_run import demonstrations, parameters
from worlds import HORIZON, WalkHome, gaussian, reach, small_model

from sb3_q2rl import RLPD, QGatedResidualSAC, QGatedSAC, QGatedTQC
from sb3_q2rl.bc import adapter

pytestmark = pytest.mark.usefixtures("quick_fit")


def observations(env, n=6):
    """What the model would be given in this environment."""
    collected = [env.reset()]
    for _ in range(n):
        actions = np.array([env.action_space.sample() for _ in range(env.num_envs)])
        collected.append(env.step(actions)[0])
    return collected


@pytest.mark.parametrize(
    ("kind", "normalize"),
    [
        ("flat", False),
        ("flat", True),
        ("dict", False),
        ("dict", True),
        ("goal", False),
        ("goal", True),
        ("image", False),
    ],
)
def test_plays_alike_after_loading_without_environment_or_checkpoint(tmp_path, kind, normalize):
    env = reach(kind, 2)
    env = VecNormalize(env, norm_reward=False) if normalize else env
    bc = WalkHome() if kind == "image" else gaussian(kind).save(tmp_path / "bc.pt")
    options = {"replay_buffer_class": HerReplayBuffer} if kind == "goal" else {}
    model = small_model(env, bc, **options)
    model.learn(100)
    if normalize:
        env.training = False
    model.save(tmp_path / "model")
    if kind == "image":  # an object of the user's own: the zip cannot know its weights
        loaded = QGatedSAC.load(tmp_path / "model", bc_policy=WalkHome(), device="cpu", env=reach(kind, 2))
    else:
        (tmp_path / "bc.pt").unlink()
        lent = {"env": env} if kind == "goal" else {}  # SB3's hindsight buffer needs one
        loaded = QGatedSAC.load(tmp_path / "model", device="cpu", **lent)
    assert loaded.has_started
    for obs in observations(env):
        for who in ("model", "rl", "bc"):
            expected, _ = model.predict(obs, deterministic=True, who=who)
            np.testing.assert_allclose(loaded.predict(obs, deterministic=True, who=who)[0], expected, atol=1e-6)


def test_a_model_that_only_plays_is_small(tmp_path):
    model = small_model(bc_policy=gaussian(), buffer_size=10**8)
    model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").stat().st_size < 300_000
    loaded: Any = QGatedSAC.load(tmp_path / "model", device="cpu")
    assert loaded.replay_buffer.observations.nbytes < 10**6


@pytest.mark.parametrize("options", [{}, {"ent_coef": "auto", "policy_delay": 2, "gradient_steps": 2}])
@pytest.mark.parametrize("first", [40, 100], ids=["while estimating", "online"])
def test_save_load_continue_equals_uninterrupted(tmp_path, first, options):
    def go_on(model):
        model.set_random_seed(7)
        model.get_env().seed(7)
        model._last_obs = None  # both start from a reset, as a loaded model must
        model.learn(100, reset_num_timesteps=False)
        return model

    model = small_model(reach(n_envs=2), gaussian(), n_bc_episodes=5, **options)
    with pytest.warns(UserWarning, match="ended before anything was learnt") if first < 4 * HORIZON else nullcontext():
        model.learn(first)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = QGatedSAC.load(tmp_path / "model", env=reach(n_envs=2), device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.num_timesteps == model.num_timesteps
    a, b = go_on(model), go_on(loaded)
    assert a.has_started
    assert a.num_timesteps == b.num_timesteps == first + 100
    th.testing.assert_close(parameters(a), parameters(b), rtol=0, atol=0)
    size = a.replay_buffer.size()
    np.testing.assert_array_equal(a.replay_buffer.actions[:size], b.replay_buffer.actions[:size])
    assert a.replay_buffer.n_bc_episodes == b.replay_buffer.n_bc_episodes


def loaded_with_another(tmp_path, bc_policy):
    """A model, and what is loaded of it with another BC policy; its replay buffer is in ``buffer``."""
    model = small_model(bc_policy=WalkHome(skill=1.0))
    model.learn(80)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    with pytest.warns(UserWarning, match="another BC policy"):
        loaded = QGatedSAC.load(tmp_path / "model", env=reach(), bc_policy=bc_policy, device="cpu")
    return model, loaded


def test_another_bc_policy_is_asked_about_the_old_experience(tmp_path):
    _, loaded = loaded_with_another(tmp_path, WalkHome(skill=-0.5))
    loaded.load_replay_buffer(tmp_path / "buffer")
    buffer = loaded.replay_buffer
    size = buffer.size()
    expected = np.clip(0.5 * buffer.observations[:size, 0], -1, 1)
    np.testing.assert_allclose(buffer.bc_actions[:size, 0], expected, atol=1e-6)
    _, recurrent = loaded_with_another(tmp_path, WalkHome(skill=-0.5, is_recurrent=True))
    with pytest.warns(UserWarning, match="cannot be asked about single observations"):
        recurrent.load_replay_buffer(tmp_path / "buffer")


def test_another_bc_policy_is_estimated_anew(tmp_path):
    model, loaded = loaded_with_another(tmp_path, WalkHome(skill=0.2))
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert not loaded.has_started
    assert loaded.replay_buffer.size() == model.replay_buffer.size()
    assert loaded.replay_buffer.n_bc_episodes == 0  # the old one's episodes are experience, not the new one's estimate
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.has_started
    used = [rows for rows, _ in loaded.replay_buffer.bc_episodes()]
    assert min(rows.min() for rows in used) >= model.replay_buffer.size()
    # ... and that was it: the next load is an ordinary one
    loaded.save(tmp_path / "second")
    again = QGatedSAC.load(tmp_path / "second", env=reach(), bc_policy=WalkHome(skill=0.2), device="cpu")
    assert again.has_started
    obs = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(again.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])


def test_the_same_bc_policy_is_not_estimated_anew(tmp_path):
    model = small_model(bc_policy=WalkHome(skill=0.7))
    model.learn(60)
    model.save(tmp_path / "model")
    assert QGatedSAC.load(tmp_path / "model", bc_policy=WalkHome(skill=0.7), device="cpu").has_started


def test_a_foreign_bc_policy_is_remembered_by_its_file(tmp_path, monkeypatch):
    """Weights of a kind that we cannot write are not in the zip: the file must be there, and unchanged."""
    file = tmp_path / "foreign.txt"
    file.write_text("0.5")
    read = {"text": lambda file: WalkHome(skill=float(file.path.read_text())) if file.path.suffix == ".txt" else None}
    monkeypatch.setattr(adapter, "_READERS", read)
    model = small_model(bc_policy=file)
    model.learn(60)
    model.save(tmp_path / "model")
    assert QGatedSAC.load(tmp_path / "model", device="cpu").has_started
    file.write_text("0.6")
    with pytest.raises(ValueError, match=r"foreign.txt` has changed .*load\(path, bc_policy="):
        QGatedSAC.load(tmp_path / "model", device="cpu")
    with pytest.warns(UserWarning, match="another BC policy"):
        assert not QGatedSAC.load(tmp_path / "model", bc_policy=file, device="cpu").has_started
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"foreign.txt`.*Pass it again: `load\(path, bc_policy=...\)`"):
        QGatedSAC.load(tmp_path / "model", device="cpu")


def test_an_object_of_the_users_own_must_be_given_again(tmp_path):
    model = small_model()
    model.save(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match=r"`WalkHome`.*bc_policy=..."):
        QGatedSAC.load(tmp_path / "model", device="cpu")


def test_options_can_be_changed_when_loading(tmp_path):
    small_model(bc_policy=gaussian(), bc_temperature=1.0).save(tmp_path / "model")
    loaded = QGatedSAC.load(tmp_path / "model", env=reach(), device="cpu", bc_temperature=5.0, bc_loss_weight=0.1)
    assert loaded.policy.q_estimate.bc_temperature == 5.0
    assert loaded.bc_loss_weight == 0.1
    with pytest.raises(ValueError, match="policy_delay"):
        QGatedSAC.load(tmp_path / "model", device="cpu", policy_delay=7)
    with pytest.raises(TypeError, match=r"unknown `bc_los_weight`\. Did you mean `bc_loss_weight`\?"):
        QGatedSAC.load(tmp_path / "model", device="cpu", bc_los_weight=0.1)
    with pytest.raises(ValueError, match=r"GatedSACPolicy, which QGatedResidualSAC cannot use; .*that saved it"):
        QGatedResidualSAC.load(tmp_path / "model", device="cpu")


class MyQGatedSAC(QGatedSAC):
    """A user's own."""


def test_a_model_of_another_algorithm_is_refused(tmp_path):
    QGatedTQC(env=reach(), bc_policy=gaussian(), policy_kwargs={"n_critics": 2}, device="cpu").save(tmp_path / "tqc")
    with pytest.raises(ValueError, match=r"saved by QGatedTQC, and QGatedSAC cannot load it\. Use QGatedTQC\.load"):
        QGatedSAC.load(tmp_path / "tqc", device="cpu")
    small_model(bc_policy=gaussian(), algorithm=QGatedResidualSAC).save(tmp_path / "residual")
    with pytest.raises(ValueError, match=r"QGatedResidualSAC\.load"):
        QGatedSAC.load(tmp_path / "residual", device="cpu")
    small_model(bc_policy=gaussian()).save(tmp_path / "sac")
    with pytest.raises(ValueError, match=r"saved by QGatedSAC, and RLPD cannot load it"):
        RLPD.load(tmp_path / "sac", device="cpu")
    MyQGatedSAC.load(tmp_path / "sac", device="cpu").save(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"saved by MyQGatedSAC, and QGatedSAC cannot load it"):
        QGatedSAC.load(tmp_path / "mine", device="cpu")


def test_demonstrations_wait_in_the_saved_model_until_they_are_used(tmp_path):
    demos = demonstrations()
    model = small_model(reach(), gaussian(), demonstrations=demos)
    model.save(tmp_path / "early")
    loaded: Any = QGatedSAC.load(tmp_path / "early", env=reach(), device="cpu")
    loaded.learn(4 * HORIZON)
    assert loaded.has_started
    stored = loaded.replay_buffer.observations[: loaded.replay_buffer.size()].reshape(-1, 2)
    assert all((np.abs(stored - obs).max(axis=1) < 1e-6).any() for obs in demos.observations)


def test_normalisation_statistics_travel_with_the_model(tmp_path):
    env: Any = VecNormalize(reach(n_envs=2), norm_reward=False)
    model = small_model(env, gaussian())
    model.learn(100)
    obs = env.reset()
    model.save(tmp_path / "model")
    bc_actions, _ = model.predict(obs, deterministic=True, who="bc")
    env.obs_rms.mean += 3  # the training environment goes on to change; the file does not
    loaded = QGatedSAC.load(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(loaded.predict(obs, deterministic=True, who="bc")[0], bc_actions, atol=1e-5)


def test_seeds_are_set_when_loading(tmp_path):
    model = small_model(bc_policy=gaussian())
    model.learn(60)
    model.save(tmp_path / "model")

    def run():
        set_random_seed(99)
        loaded = QGatedSAC.load(tmp_path / "model", env=reach(), device="cpu", seed=5)
        loaded.learn(60, reset_num_timesteps=True)
        return parameters(loaded)

    th.testing.assert_close(run(), run(), rtol=0, atol=0)
