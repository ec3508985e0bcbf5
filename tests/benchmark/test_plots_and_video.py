import gymnasium as gym
import numpy as np
import pytest
import torch as th
from PIL import Image
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from worlds import GoalReachEnv, ReachEnv, gaussian, reach, small_model

from sb3_q2rl.benchmark.pictures import draw_pictures
from sb3_q2rl.benchmark.plots import Run, learning_curve
from sb3_q2rl.benchmark.timelapse import TimelapseCallback
from sb3_q2rl.benchmark.video import (
    FRAME_COLORS,
    SUCCESS_COLOR,
    contact_sheet,
    record_episode,
    save_gif,
    side_by_side,
)
from sb3_q2rl.common.episode_log import EpisodeLogCallback
from sb3_q2rl.common.eval_callback import GateEvalCallback
from sb3_q2rl.q2rl import load_model

pytestmark = pytest.mark.usefixtures("quick_fit")


class RenderedReach(ReachEnv):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str = "rgb_array") -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> np.ndarray:
        return np.full((32, 40, 3), 200, np.uint8)


@pytest.fixture
def trained(tmp_path):
    model = small_model(reach(n_envs=2))
    callbacks = [
        EpisodeLogCallback(tmp_path / "episodes.csv"),
        GateEvalCallback(ReachEnv(), n_eval_episodes=3, eval_freq=50, csv_path=tmp_path / "evaluations.csv"),
    ]
    model.learn(200, callback=callbacks)
    return model, tmp_path


def test_episode_log_tells_phases_and_who_acted(trained):
    model, folder = trained
    run = Run.read(folder / "evaluations.csv", folder / "episodes.csv")
    table = run.episodes
    assert list(table.phase.unique()) == ["bc", "online"]
    assert (table[table.phase == "bc"].rl_action_fraction == 0).all()
    assert (table.phase == "bc").sum() >= model.n_bc_episodes
    # -1 a step, 0 for the step that arrives
    np.testing.assert_allclose(table.reward, -(table.length - table.is_success))
    assert run.switch == table[table.phase == "bc"].timesteps.max() <= run.evaluations.timesteps.iloc[0]


def test_episode_log_of_a_run_that_goes_on_keeps_what_was_before(trained):
    model, folder = trained
    before = (folder / "episodes.csv").read_text()
    model.learn(30, callback=EpisodeLogCallback(folder / "episodes.csv"), reset_num_timesteps=False)
    after = (folder / "episodes.csv").read_text()
    assert after.startswith(before)
    assert len(after) > len(before)


@pytest.mark.parametrize("n_runs", [1, 3])
def test_learning_curve_is_drawn(trained, n_runs):
    _, folder = trained
    run = Run.read(folder / "evaluations.csv", folder / "episodes.csv")
    path = learning_curve([run] * n_runs, folder / "plots" / "curve.png", "a title")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape[0] > 500
    assert (np.abs(pixels.astype(int) - [243, 234, 215]).sum(axis=2) < 6).mean() > 0.02  # the estimation phase


class WhoActs(BaseCallback):
    """The colours that the first environment's frames must have, an episode a list."""

    def __init__(self) -> None:
        super().__init__()
        self.episodes: list[list[tuple[int, int, int]]] = [[]]

    def _on_step(self) -> bool:
        color = FRAME_COLORS["rl" if self.model.decision.rl_acts[0] else "bc"]
        is_success = self.locals["infos"][0].get("is_success", False)
        self.episodes[-1].append(SUCCESS_COLOR if is_success else color)
        if self.locals["dones"][0]:
            self.episodes.append([])
        return True


def test_every_third_training_episode_is_filmed(tmp_path, monkeypatch):
    monkeypatch.setattr("sb3_q2rl.q2rl.q_gated_sac.max_gate", lambda q_rl, _: q_rl > q_rl.mean())  # one of two acts
    model, who = small_model(make_vec_env(RenderedReach, n_envs=2)), WhoActs()
    model.learn(300, callback=[TimelapseCallback(tmp_path, every=3, frame_every=1), who])
    films = sorted(tmp_path.glob("*.gif"))
    assert [path.stem for path in films[:3]] == ["episode_00000", "episode_00003", "episode_00006"]
    seen = set()
    for path, colors in zip(films, who.episodes[::3], strict=False):
        with Image.open(path) as gif:
            assert gif.n_frames == len(colors)
            for i, color in enumerate(colors):
                gif.seek(i)
                np.testing.assert_allclose(gif.convert("RGB").getpixel((2, 40)), color, atol=8)
        seen |= set(colors)
    assert seen == {FRAME_COLORS["bc"], FRAME_COLORS["rl"], SUCCESS_COLOR}
    with pytest.raises(ValueError, match="`render_mode` is None; filming needs 'rgb_array'"):
        small_model().learn(10, callback=TimelapseCallback(tmp_path))
    with pytest.raises(ValueError, match="must be 1 or more, got 0 and 2"):
        TimelapseCallback(tmp_path, every=0)


def test_frames_have_the_colour_of_who_acts(trained):
    model, folder = trained
    env = RenderedReach()
    bc = record_episode(model, env, seed=0, who="bc", every=1)
    rl = record_episode(model, env, seed=0, who="rl", every=1)
    assert bc.frames[0].getpixel((0, 0)) == FRAME_COLORS["bc"]
    assert rl.frames[0].getpixel((0, 0)) == FRAME_COLORS["rl"]
    for episode in (bc, rl):
        assert (episode.frames[-1].getpixel((0, 0)) == SUCCESS_COLOR) == episode.is_success
    images = side_by_side(bc, rl, hold=2)
    assert len(images) == max(len(bc.frames), len(rl.frames)) + 2
    assert Image.open(save_gif(images, folder / "a.gif")).size == (2 * bc.frames[0].width, bc.frames[0].height)


class Diary(RenderedReach):
    """Notes what was seen and done."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []

    def step(self, action):
        self.seen.append(self._observe())
        self.actions.append(action)
        return super().step(action)


def test_an_episode_of_samples_can_be_shown_again(trained):
    model, _ = trained
    diaries = []
    for seed in (0, 0, 1):
        env = Diary()
        record_episode(model, env, seed, who="rl", every=0, deterministic=False)
        diaries.append(np.array(env.actions))
    np.testing.assert_array_equal(diaries[0], diaries[1])
    assert not np.array_equal(diaries[0][0], diaries[2][0])


@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_model_of_normalised_observations_is_shown_as_it_acts(tmp_path, is_loaded):
    bc_policy = gaussian()
    model = small_model(VecNormalize(reach(n_envs=2), norm_reward=False), bc_policy)
    model.learn(100)
    if is_loaded:
        model.save(tmp_path / "model")
        model = load_model(tmp_path / "model", device="cpu")
    for who in ("bc", "rl"):
        env = Diary()
        record_episode(model, env, seed=0, who=who, every=0)
        raw = np.array(env.seen)
        shown = model.get_vec_normalize_env().normalize_obs(raw)
        assert np.abs(shown - raw).max() > 0.1
        expected, _ = model.predict(shown, deterministic=True, who=who)
        np.testing.assert_allclose(env.actions, expected, atol=1e-5)
        if who == "bc":
            step = bc_policy.step(th.as_tensor(raw), None, np.ones(len(raw), bool), True)
            np.testing.assert_allclose(env.actions, 2 * step.actions, atol=1e-5)  # its actions reach to 2


def test_contact_sheet_has_a_row_an_episode_and_ends_with_its_end(trained):
    model, _ = trained
    env = RenderedReach()
    rows = [record_episode(model, env, seed=0, who=who, every=1, size=64) for who in ("bc", "model")]
    width, height = rows[0].frames[0].size
    assert width == 64 + 16  # the frame around it
    sheet = contact_sheet(rows, columns=3)
    assert sheet.size == (3 * width, 2 * height)
    for y, row in enumerate(rows):
        assert sheet.getpixel((0, y * height)) == row.frames[0].getpixel((0, 0))
        assert sheet.getpixel((3 * width - 1, y * height)) == row.frames[-1].getpixel((0, 0))


def test_pictures_show_first_where_bc_fails_and_the_gate_succeeds(trained, monkeypatch):
    model, folder = trained
    gym.register("RenderedReach-v0", RenderedReach)
    shown = []
    original = record_episode

    def spy(model, env, seed, who="model", every=4):
        episode = original(model, env, seed, who, every)
        if every > 0:
            shown.append((seed, who))
        elif who == "bc":  # all succeed here: let one fail
            episode = episode._replace(is_success=seed != 2_004)
        return episode

    monkeypatch.setattr("sb3_q2rl.benchmark.pictures.record_episode", spy)
    pictures = draw_pictures(model, "RenderedReach-v0", folder / "pictures", n_episodes=5, n_shown=1)
    assert shown == [(2_004, "bc"), (2_004, "model")]
    assert all(path.stat().st_size > 0 for path in pictures)


class Untold(RenderedReach):
    """It does not say whether it succeeded."""

    def step(self, action):
        return (*super().step(action)[:-1], {"steps": self.t})


class OtherActions(RenderedReach):
    def __init__(self, render_mode: str = "rgb_array") -> None:
        super().__init__(render_mode)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("world", "numbers", "message"),
    [
        (RenderedReach, {"n_episodes": 0}, r"`n_episodes` is 0 and `n_shown` 2 .*at least 1"),
        (RenderedReach, {"n_shown": 0}, r"`n_shown` 0 \(--episodes, --shown\); expected at least 1"),
        (Untold, {}, r"info has no `is_success`, .* It has \['steps'\]"),
        (GoalReachEnv, {}, r"observation space Dict\(.* learns from Box.*same wrappers"),
        (OtherActions, {}, r"acts in Box\(-2.*actions are Box\(-1"),
    ],
)
def test_pictures_of_what_cannot_be_played(tmp_path, world, numbers, message):
    gym.register("Unplayable-v0", world)
    with pytest.raises(ValueError, match=message):
        draw_pictures(small_model(), "Unplayable-v0", tmp_path, **numbers)
    assert not list(tmp_path.iterdir())
