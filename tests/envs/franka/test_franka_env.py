"""FrankaEnv on a robot that does what it is told: actions, observations, people, faults."""

import pickle
import time
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from toy_robot import ToyRobot

from sb3_q2rl.envs.franka.config import FrankaConfig, task_limits
from sb3_q2rl.envs.franka.franka_actions import action_of, target_of
from sb3_q2rl.envs.franka.franka_env import FrankaEnv, observation_slices
from sb3_q2rl.envs.franka.operators import Signals
from sb3_q2rl.envs.franka.robot import Command, RobotError
from sb3_q2rl.envs.franka.rotations import angle_between, from_rotation_vector, from_tilt_and_yaw, product
from sb3_q2rl.envs.franka.tasks import PEG_INSERTION
from sb3_q2rl.envs.franka.transition_log import read_episodes

STAY = np.zeros(7, np.float32)
UP = np.array([0, 0, 1, 0, 0, 0, 0], np.float32)
ROBOT_ONLY = observation_slices("peg_insertion", objects=False)


class ScriptedOperator:
    """Gives the signals of a list, one a poll, and counts the questions."""

    def __init__(self) -> None:
        self.signals: list[Signals] = []
        self.questions: list[str] = []
        self.is_closed = False

    def poll(self) -> Signals:
        return self.signals.pop(0) if self.signals else Signals()

    def ask(self, message: str) -> None:
        self.questions.append(message)

    def close(self) -> None:
        self.is_closed = True


def real_env(robot: ToyRobot | None = None, **kwargs) -> FrankaEnv:
    kwargs = {"limits": task_limits(PEG_INSERTION, call_limit_s=0.3, watchdog_s=5.0), **kwargs}
    return FrankaEnv("peg_insertion", ToyRobot() if robot is None else robot, **kwargs)


def test_nothing_is_opened_before_reset():
    robot = ToyRobot()
    env = real_env(robot, record_to="never/written")
    assert robot.calls == []
    env.close()
    assert robot.calls == []
    with pytest.raises(gym.error.ResetNeeded):
        env.step(STAY)


def test_an_episode():
    robot = ToyRobot((0.45, 0.05, 0.1))
    env = real_env(robot)
    observation, info = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    assert info == {"is_success": False, "force_n": 0.0}
    start = PEG_INSERTION.start
    assert (np.abs(observation[ROBOT_ONLY["robot_pos"]] - start.position_m) <= PEG_INSERTION.start_spread_m).all()
    assert np.abs(observation[ROBOT_ONLY["robot_rot"]])[:2].max() < 1e-6
    before = robot.pose.position_m
    observation, reward, terminated, truncated, info = env.step(UP)
    np.testing.assert_allclose(robot.pose.position_m - before, [0, 0, 0.015], atol=1e-9)
    np.testing.assert_allclose(observation[ROBOT_ONLY["robot_pos"]], robot.pose.position_m, atol=1e-6)
    assert (reward, terminated, truncated) == (-1.0, False, False)
    assert info == {"is_success": False, "force_n": 0.0}
    env.close()
    assert robot.calls[-2:] == ["stop", "close"]
    assert robot.standing.is_set()
    env.reset()
    env.step(STAY)
    env.close()


def test_steps_count_from_the_target_and_lead_the_tool_by_a_bound():
    """A tool that never follows: an obstacle."""
    robot = ToyRobot()
    env = real_env(robot)
    env.reset(seed=0)
    robot.follows = 0.0
    stands = robot.pose.position_m[2]
    ahead, executed = [], []
    for _ in range(5):
        observation, _, _, _, info = env.step(-UP)
        ahead.append(observation[ROBOT_ONLY["target_offset"]][2])
        executed.append(info.get("executed_action", -UP)[2])
    np.testing.assert_allclose(ahead, [-0.015, -0.03, -0.03, -0.03, -0.03], atol=1e-6)
    np.testing.assert_allclose(executed, [-1, -1, 0, 0, 0], atol=1e-6)
    # letting go begins at the target, not at the far end of what was asked
    env.step(UP)
    assert robot.sent[-1].position_m[2] == pytest.approx(stands - 0.015)
    env.close()


def test_the_executed_action_is_the_one_that_leads_there():
    robot = ToyRobot(follows=0.6)
    env = real_env(robot, limits=task_limits(PEG_INSERTION, max_step_m=0.01, max_step_rad=0.08, watchdog_s=5.0))
    env.reset(seed=1)
    rng = np.random.default_rng(1)
    n_changed = 0
    for _ in range(100):
        action = rng.uniform(-1, 1, 7).astype(np.float32)
        target = env.guard.target
        info = env.step(action)[4]
        executed = info.get("executed_action", action)
        n_changed += "executed_action" in info
        assert np.abs(executed).max() <= 1
        again = target_of(executed, target, 0.085, env.config, PEG_INSERTION.fixed_gripper_width_m)
        sent = robot.sent[-1]
        np.testing.assert_allclose(again.position_m, sent.position_m, atol=1e-6)
        assert angle_between(again.quaternion_xyzw, sent.quaternion_xyzw) < 1e-5
        assert again.gripper_width_m == sent.gripper_width_m
    assert n_changed > 50
    env.close()


def test_actions_and_targets_are_inverse():
    rng = np.random.default_rng(2)
    config = FrankaConfig(translation_scale_m=0.02, rotation_scale_rad=0.3)
    for _ in range(200):
        last = Command(rng.normal(size=3), from_tilt_and_yaw(rng.normal(size=3), np.array([1.0, 0, 0, 0])), 0.03)
        action = rng.uniform(-1, 1, 7)
        wanted = target_of(action, last, 0.085, config, None)
        np.testing.assert_allclose(action_of(action, last, wanted, wanted, config), action, atol=1e-9)
        turn = product(from_rotation_vector(0.3 * action[3:6]), last.quaternion_xyzw)
        assert angle_between(turn, wanted.quaternion_xyzw) < 1e-9
        assert wanted.gripper_width_m == (0.0 if action[6] > 0.5 else 0.085 if action[6] < -0.5 else 0.03)


def test_observed_rotations_are_continuous():
    """Neither the sign of a quaternion nor a turn through yaw 0 makes a jump."""
    robot = ToyRobot()
    env = real_env(robot)
    env.reset(seed=0)
    seen = []
    for i, yaw in enumerate(np.linspace(-0.6, 0.6, 41)):
        sign = -1 if i % 2 else 1
        turned = sign * from_tilt_and_yaw(np.array([0.1, 0, yaw]), env.limits.home_xyzw)
        robot.pose = replace(robot.pose, quaternion_xyzw=turned)
        env.guard.begin(robot.pose)
        seen.append(env.named_observation()["robot_rot"])
    assert np.linalg.norm(np.diff(seen, axis=0), axis=1).max() < 0.04
    env.close()


def test_optional_parts():
    config = FrankaConfig(observe_wrench=True, observe_joints=True)
    robot = ToyRobot()
    robot.changes = {"wrench": np.array([3.0, 4.0, 0, 0, 0, 1.0]), "joint_positions_rad": np.arange(7.0)}
    env = real_env(robot, config=config)
    observation, info = env.reset(seed=0)
    slices = observation_slices("peg_insertion", config, objects=False)
    assert observation.shape == (14 + 6 + 14,) == env.observation_space.shape
    np.testing.assert_array_equal(observation[slices["wrench"]], [3, 4, 0, 0, 0, 1])
    np.testing.assert_array_equal(observation[slices["joints"]][:7], np.arange(7))
    assert info["force_n"] == 5.0
    env.close()


def test_images():
    robot = ToyRobot()
    env = real_env(robot, obs_mode="image")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["state"].shape == (14,)
    robot.images = dict
    with pytest.raises(ValueError, match="no workspace_rgb and no wrist_rgb"):
        env.step(STAY)
    env.close()


def test_images_that_are_missing_are_told_before_anybody_is_asked_and_the_arm_moves():
    robot, operator = ToyRobot(), ScriptedOperator()
    robot.images = dict
    env = real_env(robot, obs_mode="image", operator=operator)
    with pytest.raises(ValueError, match="no workspace_rgb and no wrist_rgb"):
        env.reset()
    assert robot.sent == []
    assert operator.questions == []
    env.close()
    assert robot.calls[-2:] == ["stop", "close"]


def test_wrong_actions():
    env = real_env()
    env.reset()
    for action in (np.zeros(6), np.full(7, np.nan), np.array([np.inf, 0, 0, 0, 0, 0, 0])):
        with pytest.raises(ValueError, match="7 finite numbers"):
            env.step(action)
    info = env.step(np.array([0, 0, 5.0, 0, 0, 0, 0]))[4]
    np.testing.assert_allclose(info["executed_action"], UP, atol=1e-5)
    env.close()


# ---------------------------------------------------------------------- people


def test_a_person_ends_episodes():
    operator = ScriptedOperator()
    env = real_env(operator=operator)
    env.reset()
    assert len(operator.questions) == 1
    operator.signals = [Signals(), Signals(success=True)]
    _, reward, terminated, truncated, info = env.step(STAY)
    assert (reward, terminated, truncated, info["is_success"]) == (4.0, True, False, True)
    env.reset()
    operator.signals = [Signals(failure=True)]
    _, reward, terminated, truncated, info = env.step(STAY)
    assert (reward, terminated, truncated, info["is_success"]) == (-1.0, False, True, False)
    assert "robot_error" not in info
    env.close()
    assert operator.is_closed


def test_a_person_acts():
    operator = ScriptedOperator()
    env = real_env(operator=operator)
    env.reset()
    target = env.guard.target.position_m
    operator.signals = [Signals(action=np.array([0, 0, 3.0, 0, 0, 0, 0]))]
    info = env.step(-UP)[4]
    np.testing.assert_allclose(info["intervene_action"], UP, atol=1e-6)
    np.testing.assert_allclose(info["executed_action"], UP, atol=1e-6)
    np.testing.assert_allclose(env.guard.target.position_m - target, [0, 0, 0.015], atol=1e-9)
    assert "intervene_action" not in env.step(STAY)[4]
    env.close()


@pytest.mark.parametrize("when", [0, 1])
def test_a_person_stops_the_arm_and_is_asked_before_it_moves_again(when):
    operator, robot = ScriptedOperator(), ToyRobot()
    env = real_env(robot, operator=operator)
    env.reset()
    n_sent = len(robot.sent)
    operator.signals = [Signals()] * when + [Signals(stop=True)]
    _, _, terminated, truncated, info = env.step(STAY)
    assert (terminated, truncated) == (False, True)
    assert "a person stopped the arm" in info["robot_error"]
    assert len(robot.sent) == n_sent + when
    assert robot.standing.is_set()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(STAY)
    env.reset()
    assert "a person stopped the arm" in operator.questions[1]
    assert robot.calls.count("recover") == 1
    env.step(STAY)
    env.close()


def test_a_stop_is_heard_while_a_reset_moves_the_arm():
    operator, robot = ScriptedOperator(), ToyRobot((0.45, -0.1, 0.1))
    env = real_env(robot, operator=operator)
    # the person stops the first reset at its 11th command, and the second one after its last
    operator.signals = [Signals()] * 10 + [Signals(stop=True)]
    sent_when_asked = []
    ask = operator.ask

    def asked(message):
        ask(message)
        sent_when_asked.append(len(robot.sent))
        if len(operator.questions) == 3:
            robot.pose = PEG_INSERTION.start
            env.guard.move = lambda *args, **kwargs: operator.signals.append(Signals(stop=True))
        if len(operator.questions) == 4:
            del env.guard.move

    operator.ask = asked
    env.reset()
    assert sent_when_asked == [0, 10, 10, 10, 10]
    prepare, stopped = "Prepare the next episode", "a person stopped the arm"
    for question, words in zip(operator.questions, [prepare, stopped, prepare, stopped, prepare], strict=True):
        assert words in question
    assert robot.calls.count("recover") == 2
    env.step(STAY)
    env.close()


def test_a_person_may_take_their_time_between_episodes():
    operator, robot = ScriptedOperator(), ToyRobot()
    env = real_env(robot, operator=operator, limits=task_limits(PEG_INSERTION, watchdog_s=0.1))
    env.reset()
    standing = []

    def prepare(message):
        standing.append(robot.standing.is_set())
        time.sleep(0.3)

    operator.ask = prepare
    for signals in (Signals(success=True), Signals(failure=True), Signals()):  # the last one: a time limit
        operator.signals = [signals]
        env.step(STAY)
        env.reset()
    assert standing == [True] * 3
    assert robot.calls.count("recover") == 0
    env.close()


# ---------------------------------------------------------------------- faults


def test_a_fault_truncates_and_the_next_reset_recovers():
    robot = ToyRobot()
    env = real_env(robot)
    observation, _ = env.reset()
    robot.changes = {"wrench": np.array([0, 0, 90.0, 0, 0, 0])}
    after, reward, terminated, truncated, info = env.step(UP)
    assert (reward, terminated, truncated) == (-1.0, False, True)
    assert "90.0 N" in info["robot_error"]
    assert info["force_n"] == 90.0
    # nothing was executed, and nothing new was measured
    np.testing.assert_array_equal(info["executed_action"], STAY)
    np.testing.assert_array_equal(after, observation)
    assert robot.standing.is_set()
    robot.changes = {}
    env.reset()
    assert robot.calls.count("recover") == 1
    assert "robot_error" not in env.step(STAY)[4]
    env.close()


def test_a_fault_that_stays_ends_with_what_a_person_must_do(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    robot = ToyRobot()
    env = real_env(robot)
    env.reset()
    robot.changes = {"wrench": np.array([0, 0, 90.0, 0, 0, 0])}
    env.step(STAY)
    with pytest.raises(RobotError, match=r"90.0 N.*Look for their cause.*person_checked") as caught:
        env.reset()
    assert not caught.value.recoverable
    assert [wait for wait in waits if wait >= 1] == [1, 2, 4, 8, 16]
    assert robot.calls.count("recover") == 5
    with pytest.raises(RobotError, match="90.0 N"):
        env.reset()
    robot.changes = {}
    env.reset(options={"person_checked": True})
    env.step(STAY)
    env.close()


def test_with_an_operator_the_run_goes_on(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    robot, operator = ToyRobot(), ScriptedOperator()
    env = real_env(robot, operator=operator)
    env.reset()
    robot.changes = {"wrench": np.array([0, 0, 90.0, 0, 0, 0])}
    env.step(STAY)
    ask = operator.ask

    def mended(message):
        ask(message)
        if "faults within" in message:
            robot.changes = {}

    operator.ask = mended
    env.reset()
    assert any("5 faults within 600 s" in question for question in operator.questions)
    env.step(STAY)
    env.close()


def test_a_first_connection_that_fails_says_so_at_once():
    robot = ToyRobot()

    def refuse():
        raise RobotError("no route to host")

    robot.instead["connect"] = refuse
    env = real_env(robot)
    began_s = time.monotonic()
    with pytest.raises(RobotError, match="no route to host"):
        env.reset()
    assert time.monotonic() - began_s < 0.5
    del robot.instead["connect"]
    env.reset(options={"person_checked": True})
    env.close()


# ---------------------------------------------------------------------- recording


def test_every_transition_is_on_disk_at_once(tmp_path):
    robot, operator = ToyRobot(), ScriptedOperator()
    env = real_env(robot, operator=operator, obs_mode="image", record_to=tmp_path / "run.log")
    first, _ = env.reset(seed=5)
    operator.signals = [Signals(), Signals(), Signals(action=UP), Signals()]
    steps = [env.step(-UP), env.step(STAY)]
    operator.signals = [Signals(success=True)]
    steps.append(env.step(STAY))
    ((seed, about, episode),) = read_episodes(tmp_path / "run.log")  # the environment is still open
    assert seed == 5
    assert about == {**env.env_args, "reward_scale": 5.0, "reward_bias": -1.0}
    assert len(episode) == 3
    np.testing.assert_array_equal(episode[0].observation["state"], first["state"])
    np.testing.assert_array_equal(episode[0].observation["wrist_rgb"], first["wrist_rgb"])
    for transition, (observation, reward, terminated, truncated, _) in zip(episode, steps, strict=True):
        np.testing.assert_array_equal(transition.next_observation["state"], observation["state"])
        assert (transition.reward, transition.terminated, transition.truncated) == (reward, terminated, truncated)
    np.testing.assert_array_equal(episode[1].action, STAY)
    np.testing.assert_allclose(episode[1].executed, UP, atol=1e-6)
    assert [transition.info["intervened"] for transition in episode] == [False, True, False]
    assert episode[2].info["is_success"] is True
    env.close()


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"task": "tea"}, "`task` 'tea' does not exist"),
        ({"obs_mode": "pixels"}, "`obs_mode` must be"),
        ({"render_mode": "human"}, "`render_mode` must be"),
        ({"robot": "fci"}, "`robot` must be 'sim' or a robot"),
    ],
)
def test_wrong_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        FrankaEnv(**{"robot": ToyRobot(), **kwargs})


@pytest.mark.parametrize("field", ["translation_scale_m", "rotation_scale_rad", "control_hz"])
def test_wrong_scales(field):
    with pytest.raises(ValueError, match=f"`{field}` is 0: expected a positive number"):
        FrankaConfig(**{field: 0})


def test_configurations_travel():
    config = FrankaConfig(observe_wrench=True)
    assert pickle.loads(pickle.dumps(config)) == config
    limits = task_limits(PEG_INSERTION)
    assert pickle.loads(pickle.dumps(limits)) == limits
