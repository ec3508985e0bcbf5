"""What every algorithm must do, whatever its paper adds. Another algorithm is one more line in ALGORITHMS."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import VecNormalize
from worlds import HORIZON, ReachEnv, WalkHome, gaussian, reach

from sb3_q2rl import Demonstrations, QGatedResidualSAC, QGatedSAC, QGatedTQC
from sb3_q2rl.baselines import CQL, IBRL, RLPD, WSRL, CalQL

SMALL: dict[str, Any] = {"batch_size": 16, "buffer_size": 3000, "train_freq": 1, "gradient_steps": 1, "policy_delay": 1}
NETWORKS: dict[str, Any] = {"net_arch": [16], "n_critics": 3}


def demonstrations(kind: str = "flat", n_episodes: int = 4) -> Demonstrations:
    """Whole episodes of WalkHome's mode."""
    env, bc = ReachEnv(kind), WalkHome()
    rows = []
    for episode in range(n_episodes):
        obs, _ = env.reset(seed=episode)
        over = False
        while not over:
            batch = {k: th.as_tensor(v[None]) for k, v in obs.items()} if kind == "dict" else th.as_tensor(obs[None])
            action = bc.step(batch, None, None, deterministic=True).actions[0].numpy()
            next_obs, reward, terminated, truncated, _ = env.step(2 * action)
            rows.append((obs, next_obs, action, reward, terminated, truncated))
            obs, over = next_obs, terminated or truncated
    columns = [list(values) for values in zip(*rows, strict=True)]

    def stack(parts: list[Any]) -> Any:
        return {k: np.stack([part[k] for part in parts]) for k in parts[0]} if kind == "dict" else np.stack(parts)

    terminated, truncated = np.array(columns[4]), np.array(columns[5])
    return Demonstrations(
        observations=stack(columns[0]),
        next_observations=stack(columns[1]),
        actions=np.stack(columns[2]),
        rewards=np.array(columns[3], np.float32),
        terminated=terminated,
        truncated=truncated,
        episode_ends=np.flatnonzero(terminated | truncated) + 1,
    )


def kind_of(env: Any) -> str:
    return env.get_attr("kind")[0]


def rlpd(env: Any, policy_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    given = {"demonstrations": demonstrations(kind_of(env)), "learning_starts": 10, **SMALL, "seed": 0, **kwargs}
    return RLPD(env, policy_kwargs={**NETWORKS, **(policy_kwargs or {})}, device="cpu", **given)


def ibrl(env: Any, policy_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    bc = WalkHome() if kind_of(env) == "image" else gaussian(kind_of(env))
    given = {"bc_policy": bc, "n_bc_episodes": 3, **SMALL, "seed": 0, **kwargs}
    return IBRL(env, policy_kwargs={**NETWORKS, **(policy_kwargs or {})}, device="cpu", **given)


def ibrl_with_data(env: Any, **kwargs: Any) -> Any:
    return ibrl(env, **{"demonstrations": demonstrations(kind_of(env)), "softmax_beta": 1.0, **kwargs})


def cql(env: Any, policy_kwargs: dict[str, Any] | None = None, algorithm: type[CQL] = CQL, **kwargs: Any) -> Any:
    given = {"demonstrations": demonstrations(kind_of(env)), "pretrain_steps": 4, **SMALL, "seed": 0, **kwargs}
    given = {"n_action_samples": 2, **({} if algorithm is WSRL else {"learning_starts": 10}), **given}
    return algorithm(env, policy_kwargs={**NETWORKS, **(policy_kwargs or {})}, device="cpu", **given)


def cal_ql(env: Any, **kwargs: Any) -> Any:
    return cql(env, algorithm=CalQL, **kwargs)


def wsrl(env: Any, **kwargs: Any) -> Any:
    return cql(env, algorithm=WSRL, **{"warmup_steps": 30, **kwargs})


def qgated_residual(
    env: Any, policy_kwargs: dict[str, Any] | None = None, algorithm: type[QGatedSAC] = QGatedResidualSAC, **kwargs: Any
) -> Any:
    bc = WalkHome() if kind_of(env) == "image" else gaussian(kind_of(env))
    given = {"bc_policy": bc, "n_bc_episodes": 3, "q_init_steps": 3, **SMALL, "seed": 0, **kwargs}
    networks = {**NETWORKS, "value_net_arch": [16], "n_values": 2}
    return algorithm(env, policy_kwargs={**networks, **(policy_kwargs or {})}, device="cpu", **given)


def qgated_tqc(env: Any, policy_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    return qgated_residual(env, {"n_quantiles": 4, **(policy_kwargs or {})}, algorithm=QGatedTQC, **kwargs)


ALGORITHMS = [qgated_tqc, qgated_residual, rlpd, ibrl, ibrl_with_data, cql, cal_ql, wsrl]
pytestmark = [
    pytest.mark.usefixtures("quick_fit"),
    pytest.mark.filterwarnings("ignore:learn\\(\\) ended before anything was learnt"),
]
every_algorithm = pytest.mark.parametrize("make", ALGORITHMS, ids=lambda make: make.__name__)

Make = Callable[..., Any]


def parameters(model: Any) -> th.Tensor:
    return th.cat([value.flatten() for value in model.policy.state_dict().values() if isinstance(value, th.Tensor)])


@every_algorithm
@pytest.mark.parametrize("kind", ["flat", "dict", "image"])
def test_runs_on_observations_of_every_kind(make: Make, kind: str) -> None:
    model = make(reach(kind, n_envs=2))
    before = parameters(model)
    model.learn(90)
    assert model.num_timesteps == 90
    assert model._n_updates > 0
    assert th.isfinite(parameters(model)).all()
    assert not th.equal(before, parameters(model))


@every_algorithm
@pytest.mark.parametrize(
    "options",
    [
        {"policy_delay": 4, "gradient_steps": 4, "batch_size": 32},
        {"gradient_steps": -1, "train_freq": 2},
        {"n_steps": 1},
        {"n_steps": 4, "n_target_critics": 1},
        {"learning_rate": lambda progress: 1e-3 * progress, "actor_learning_rate": 1e-4},
        {"policy_kwargs": {"net_arch": {"pi": [8, 8], "qf": [16]}, "layer_norm": False, "n_critics": 2}},
    ],
    ids=lambda options: "-".join(options),
)
def test_options(make: Make, options: dict[str, Any]) -> None:
    model = make(reach(n_envs=3), **options)
    model.learn(120)
    assert model._n_updates > 0
    assert th.isfinite(parameters(model)).all()


@every_algorithm
@pytest.mark.parametrize("normalize", [False, True])
def test_plays_alike_after_loading_without_environment(make: Make, normalize: bool, tmp_path: Any) -> None:
    env: Any = reach(n_envs=2)
    env = VecNormalize(env, norm_reward=False) if normalize else env
    model = make(env)
    model.learn(60)
    if normalize:
        env.training = False
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", device="cpu")
    obs = env.reset()
    for who in ("model", "rl", "bc") if model._bc is not None else ("model", "rl"):
        expected, _ = model.predict(obs, deterministic=True, who=who)
        np.testing.assert_allclose(loaded.predict(obs, deterministic=True, who=who)[0], expected, atol=1e-6)


@every_algorithm
def test_only_those_that_are_there_are_asked(make: Make) -> None:
    model = make(reach())
    with pytest.raises(ValueError, match="`who` is 'gate', expected one of"):
        model.predict(np.ones(2, np.float32), who="gate")
    if model._bc is None:
        with pytest.raises(ValueError, match=f"this {type(model).__name__} has no BC policy"):
            model.predict(np.ones(2, np.float32), who="bc")


@every_algorithm
@pytest.mark.parametrize("n_target_critics", [0, -1, 4])
def test_as_many_target_critics_as_there_are(make: Make, n_target_critics: int) -> None:
    with pytest.raises(ValueError, match=f"`n_target_critics`={n_target_critics}: the TD target takes 1 to 3"):
        make(reach(), n_target_critics=n_target_critics)


def test_who_learns_nothing_says_so() -> None:
    with pytest.raises(RuntimeError, match="Not one episode of the BC policy ended within 5 steps"):
        ibrl(reach()).learn(5)
    with pytest.warns(UserWarning, match=r"before anything was learnt online: \d+ of 30 BC episodes finished"):
        ibrl(reach(), n_bc_episodes=30).learn(2 * HORIZON)
    with pytest.warns(UserWarning, match=r"learnt online: the 30 `warmup_steps` are not over"):
        wsrl(reach()).learn(20)
    with pytest.raises(ValueError, match=r"`warmup_steps`=600 are more than `buffer_size`=500 can hold"):
        wsrl(reach(), warmup_steps=600, buffer_size=500)


@every_algorithm
def test_parameters_make_another_model_act_alike(make: Make) -> None:
    model, other = make(reach()), make(reach(), seed=7)
    model.learn(90)
    other.set_parameters(model.get_parameters())
    assert other.has_started
    obs = np.random.default_rng(0).uniform(-1, 1, (64, 2)).astype(np.float32)
    np.testing.assert_allclose(model.predict(obs, deterministic=True)[0], other.predict(obs, deterministic=True)[0])


@every_algorithm
def test_runs_in_tensorboard_have_its_name(make: Make, tmp_path: Any) -> None:
    model = make(reach(), tensorboard_log=str(tmp_path))
    model.learn(30)
    names = {path.name for path in tmp_path.iterdir()}
    assert f"{type(model).__name__}_1" in names


@every_algorithm
def test_predicts_one_and_many(make: Make) -> None:
    model = make(reach(n_envs=2))
    model.learn(60)
    for deterministic in (True, False):
        one, _ = model.predict(np.ones(2, np.float32), deterministic=deterministic)
        many, _ = model.predict(np.ones((5, 2), np.float32), deterministic=deterministic)
        assert one.shape == (2,)
        assert many.shape == (5, 2)
        assert np.abs(many).max() <= 2
    again, _ = model.predict(np.ones((5, 2), np.float32), deterministic=True)
    first, _ = model.predict(np.ones(2, np.float32), deterministic=True)
    np.testing.assert_allclose(again, np.tile(first, (5, 1)), atol=1e-6)


@every_algorithm
@pytest.mark.parametrize("first", [26, 80])
def test_save_load_continue_equals_uninterrupted(make: Make, first: int, tmp_path: Any) -> None:
    def go_on(model: Any) -> Any:
        model.set_random_seed(7)
        model.get_env().seed(7)
        model._last_obs = None  # both start from a reset, as a loaded model must
        return model.learn(60, reset_num_timesteps=False)

    model = make(reach(n_envs=2))
    model.learn(first)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = type(model).load(tmp_path / "model", env=reach(n_envs=2), device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    a, b = go_on(model), go_on(loaded)
    assert a.num_timesteps == b.num_timesteps == first + 60
    th.testing.assert_close(parameters(a), parameters(b), rtol=0, atol=0)
    size = a.replay_buffer.size()
    np.testing.assert_array_equal(a.replay_buffer.actions[:size], b.replay_buffer.actions[:size])


def test_demonstrations_of_no_known_kind() -> None:
    with pytest.raises(TypeError, match="`demonstrations` is a list; expected Demonstrations, the path"):
        RLPD(reach(), demonstrations=[demonstrations("flat")])


@every_algorithm
def test_seed_decides(make: Make) -> None:
    runs = [parameters(make(reach(n_envs=2), seed=seed).learn(60)) for seed in (1, 1, 2)]
    assert th.equal(runs[0], runs[1])
    assert not th.equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("algorithm", "missing"), [(RLPD, "demonstrations"), (IBRL, "bc_policy")], ids=["rlpd", "ibrl"]
)
def test_what_is_missing_is_named(algorithm: Any, missing: str) -> None:
    with pytest.raises(ValueError, match=f"`{missing}` is missing"):
        algorithm(reach())


@pytest.mark.parametrize("algorithm", [CQL, CalQL, WSRL])
def test_an_offline_phase_without_data_is_refused(algorithm: Any) -> None:
    with pytest.raises(ValueError, match="`demonstrations` are missing"):
        algorithm(reach()).learn(10)


@every_algorithm
def test_demonstrations_of_another_task_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="`demonstrations` have observations of shape"):
        make(reach("flat"), demonstrations=demonstrations("dict"))
