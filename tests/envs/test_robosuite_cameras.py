"""Images of the robomimic tasks: upright, robosuite's own view, nothing lost by leaving out what is out of sight."""

import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gym_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sb3_q2rl.envs  # noqa: F401

pytest.importorskip("robosuite", reason="needs the extra `robosuite`")

from sb3_q2rl.envs.robomimic import RobomimicEnv, RobomimicImageEnv
from sb3_q2rl.envs.robosuite_cameras import HIDDEN_GROUP, Cameras
from sb3_q2rl.envs.robosuite_fast import import_robosuite

KEYS = [
    "agentview_image",
    "robot0_eye_in_hand_image",
    "robot0_eef_pos",
    "robot0_eef_quat",
    "robot0_gripper_qpos",
]


@pytest.fixture(scope="module")
def lift() -> Iterator[RobomimicImageEnv]:
    try:
        env: Any = gym.make("RobomimicLiftImage-v0").unwrapped
    except RuntimeError as error:
        pytest.skip(f"no OpenGL on this machine: {error}")
    yield env
    env.close()


def test_checkers_are_silent(lift: RobomimicImageEnv) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(lift)
        gym_check_env(lift, skip_render_check=True)
    assert isinstance(lift.observation_space, gym.spaces.Dict)
    assert sorted(lift.observation_space.spaces) == sorted(KEYS)
    observation, _ = lift.reset(seed=0)
    assert list(observation) == KEYS
    for key in KEYS[:2]:
        assert observation[key].shape == (84, 84, 3)
        assert observation[key].dtype == np.uint8
        assert observation[key].std() > 20, "the picture is blank"


def test_view_is_robosuites_upright(lift: RobomimicImageEnv) -> None:
    """Shadows, reflections and multisampling make little of a difference; standing on its head makes a large one."""
    observation, _ = lift.reset(seed=4)
    cameras = {"camera_names": ["agentview", "robot0_eye_in_hand"], "camera_heights": 84, "camera_widths": 84}
    arguments = {**lift.env_args["env_kwargs"], "use_camera_obs": True, "has_offscreen_renderer": True, **cameras}
    plain = import_robosuite().make("Lift", **arguments)
    plain.rng.bit_generator.state = np.random.default_rng(4).bit_generator.state
    readings = plain.reset()
    for key in KEYS[:2]:
        theirs = readings[key][::-1].astype(float)  # robosuite's images stand on their heads
        assert np.abs(observation[key] - theirs).mean() < 4
        assert np.abs(observation[key][::-1] - theirs).mean() > 20
    # Neither renderer disturbs the other in one process
    np.testing.assert_array_equal(lift.reset(seed=4)[0]["agentview_image"], observation["agentview_image"])
    stepped, *_ = plain.step(np.zeros(7))
    assert np.abs(stepped["agentview_image"].astype(float) - readings["agentview_image"]).mean() < 4
    plain.close()
    np.testing.assert_array_equal(lift.reset(seed=4)[0]["agentview_image"], observation["agentview_image"])


def test_the_scene_is_where_it_should_be(lift: RobomimicImageEnv) -> None:
    observation, _ = lift.reset(seed=0)
    image = observation["agentview_image"].astype(int)
    assert image[50:].mean() > 200, "the white table is below"
    assert image[:12].mean() < 160, "the wall and the robot are above"
    red = (image[..., 0] - image[..., 1:].max(axis=-1)) > 60
    rows, columns = np.nonzero(red)
    assert 15 < len(rows) < 200, "a red cube of some pixels"
    before = rows.mean(), columns.mean()
    # The camera looks from the front: a cube nearer to it, at larger x, is lower in the picture
    state = lift.get_state()
    model = lift.simulator.model
    address = 1 + model.jnt_qposadr[model.body_jntadr[model.body("cube_main").id]]
    state[address : address + 2] += [0.1, 0.0]
    nearer = lift.set_state(state)["agentview_image"].astype(int)
    rows, columns = np.nonzero((nearer[..., 0] - nearer[..., 1:].max(axis=-1)) > 60)
    assert rows.mean() > before[0] + 5
    assert abs(columns.mean() - before[1]) < 3


def all_faces(cameras: Cameras, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    with monkeypatch.context() as patch:
        patch.setattr(cameras, "_in_sight", lambda _: np.ones(cameras.model.ngeom, bool))
        return cameras.render()


@pytest.mark.parametrize("task", ["Lift", "Can", "Square"])
def test_leaving_out_what_is_out_of_sight_changes_no_pixel(
    lift: RobomimicImageEnv, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = lift if task == "Lift" else RobomimicImageEnv(task)
    env.reset(seed=1)
    assert env._eyes is not None
    env.action_space.seed(0)
    for _ in range(4):
        observation, *_ = env.step(env.action_space.sample())
        for image, whole in zip(list(observation.values())[:2], all_faces(env._eyes, monkeypatch), strict=True):
            assert image.std() > 20, "the picture is blank"
            np.testing.assert_array_equal(image, whole)
    hidden = [~env._eyes._in_sight(camera) for camera in env._eyes._ids]
    assert all(out.sum() > 20 for out in hidden), "there is something to leave out"
    assert env.simulator.model.geom_group.max() < HIDDEN_GROUP, "the groups are put back"
    if env is not lift:
        env.close()


def test_images_follow_a_model_that_was_loaded(lift: RobomimicImageEnv) -> None:
    lift.reset(seed=1)
    start, xml = lift.get_state(), lift.model_xml
    expected = lift.set_state(start)
    lift.reset(seed=2)
    loaded = lift.set_state(start, xml)
    again, _ = lift.reset(seed=1)
    for key in KEYS[:2]:
        np.testing.assert_array_equal(loaded[key], expected[key])
        np.testing.assert_array_equal(again[key], expected[key])


def test_physics_do_not_know_of_cameras(lift: RobomimicImageEnv) -> None:
    blind = RobomimicEnv("Lift")
    blind.reset(seed=9)
    lift.reset(seed=9)
    lift.action_space.seed(1)
    for _ in range(5):
        action = lift.action_space.sample()
        blind.step(action)
        lift.step(action)
        np.testing.assert_array_equal(blind.get_state(), lift.get_state())
    np.testing.assert_array_equal(blind.named_observation()["object"], lift.named_observation()["object"])
    blind.close()


def test_other_cameras_and_sizes_and_pickling(lift: RobomimicImageEnv) -> None:
    env = RobomimicImageEnv("Lift", camera_names=("sideview",), image_size=32)
    copy = pickle.loads(pickle.dumps(env))
    observation, _ = copy.reset(seed=3)
    assert observation["sideview_image"].shape == (32, 32, 3)
    np.testing.assert_array_equal(env.reset(seed=3)[0]["sideview_image"], observation["sideview_image"])
    env.close()
    copy.close()


def test_unknown_cameras_and_sizes_are_told_of(lift: RobomimicImageEnv) -> None:
    model, data = lift.simulator.model, lift.simulator.data
    with pytest.raises(ValueError, match=r"camera 'backview' does not exist.*frontview, .*agentview"):
        Cameras(model, data, ["backview"], 84, fast=True)
    for size in (0, 84.5):
        with pytest.raises(ValueError, match=f"at least 1; got {size}"):
            Cameras(model, data, ["agentview"], size, fast=True)


def test_pictures_for_people(lift: RobomimicImageEnv) -> None:
    env = gym.make("RobomimicLift-v0", render_mode="rgb_array", render_size=128)
    observation, _ = env.reset(seed=1)
    assert isinstance(observation, np.ndarray)
    picture: Any = env.render()
    assert picture.shape == (128, 128, 3)
    small, _ = lift.reset(seed=1)
    blocks = picture[:84, :84]
    assert blocks.shape == small["agentview_image"].shape
    assert abs(picture.mean() - small["agentview_image"].mean()) < 5
    env.close()


def test_human_mode_shows_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo's viewer needs a display; a stand-in takes its place."""
    import mujoco.viewer

    class Viewer:
        def __init__(self, model: Any, data: Any, **_: Any) -> None:
            self.m, self.n_frames, self.is_open = model, 0, True

        def sync(self) -> None:
            self.n_frames += 1

        def close(self) -> None:
            self.is_open = False

    opened: list[Viewer] = []

    def launch(*args: Any, **kwargs: Any) -> Viewer:
        opened.append(Viewer(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(mujoco.viewer, "launch_passive", launch)
    monkeypatch.setenv("DISPLAY", ":0")
    env = RobomimicEnv("Lift", render_mode="human")
    env.reset(seed=0)
    env.step(np.zeros(7))
    assert [viewer.n_frames for viewer in opened] == [2]
    xml = env.model_xml
    env.reset(seed=1)
    env.set_state(env.get_state(), xml)
    assert [viewer.is_open for viewer in opened] == [False, True]
    env.close()
    assert not opened[1].is_open


def test_human_mode_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if sys.platform != "linux":
        pytest.skip("other systems always have a display")
    env = RobomimicEnv("Lift", render_mode="human")
    with pytest.raises(RuntimeError, match='"human" needs a display.*"rgb_array"'):
        env.reset(seed=0)


def test_forgetting_to_close_is_quiet(lift: RobomimicImageEnv) -> None:
    program = (
        "import gymnasium, sb3_q2rl.envs\n"
        "env = gymnasium.make('RobomimicLiftImage-v0')\n"
        "env.reset(seed=0)\n"
        "env.step(env.action_space.sample())\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
