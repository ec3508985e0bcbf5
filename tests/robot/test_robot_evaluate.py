"""``robot evaluate`` and the person beside the robot."""

from argparse import Namespace

from gymnasium.wrappers import TimeLimit

from sb3_q2rl.bc import GaussianBCPolicy
from sb3_q2rl.envs.franka.franka_env import FrankaEnv
from sb3_q2rl.envs.franka.operators import Signals
from sb3_q2rl.envs.franka.tasks import find_task
from sb3_q2rl.q2rl import QGatedSAC
from sb3_q2rl.robot import evaluate
from sb3_q2rl.robot.dry_run import DryRunRobot


class Person:
    """Agrees, and says nothing else."""

    def __init__(self, lines):
        self.lines = lines

    def poll(self):
        return Signals()

    def ask(self, message):
        self.lines.append("asked")

    def close(self):
        pass


def test_after_the_last_episode_nobody_is_asked_and_nothing_moves(monkeypatch, capsys):
    lines = []
    robot = DryRunRobot(find_task("peg_insertion").start, period_s=0.0, say=lines.append)
    env = TimeLimit(FrankaEnv(robot=robot, operator=Person(lines)), 3)
    policy = GaussianBCPolicy(14, 7, net_arch=(8,)).eval().requires_grad_(False)
    model = QGatedSAC("MlpPolicy", env, bc_policy=policy, buffer_size=10)
    lines.clear()
    steps, step = [], env.step
    env.step = lambda action: (steps.append(len(lines)), step(action))[1]
    monkeypatch.setattr(evaluate, "load_model", lambda path: model)
    monkeypatch.setattr(evaluate, "make_env", lambda args: env)
    monkeypatch.setattr(env, "close", lambda: lines.append(capsys.readouterr().out))
    assert evaluate.run(Namespace(model="model.zip", episodes=2, who="model", seed=0)) == 0
    assert lines.count("asked") == 2
    assert len(steps) == 6
    after = lines[steps[-1] :]
    assert len(after) == 2  # the last step's command, then it is closed
    assert "success 0.00" in after[1]  # by then it has been told what was counted
    assert "of 2 episodes" in after[1]
    FrankaEnv.close(env.unwrapped)
