"""Actor and learner in two processes: whoever moves a robot never waits for gradients."""

from sb3_q2rl.asynchronous.callback import AsyncLearning

__all__ = ["AsyncLearning"]
