"""
Gymnasium environments with the reward and success conventions of offline-to-online reinforcement learning.
Importing this package registers them. A simulator is imported only when one of its environments is made.
"""

import re

from gymnasium.envs.registration import register

# D4RL's time limits. Human demonstrations are longer: `gymnasium.make(..., max_episode_steps=400)` replays them.
register("AdroitHandDoorBinary-v0", entry_point="sb3_q2rl.envs.d4rl:AdroitHandDoorBinaryEnv", max_episode_steps=200)
register("AdroitHandPenBinary-v0", entry_point="sb3_q2rl.envs.d4rl:AdroitHandPenBinaryEnv", max_episode_steps=100)
register("FrankaKitchenComplete-v0", entry_point="sb3_q2rl.envs.d4rl:FrankaKitchenCompleteEnv", max_episode_steps=280)

# The time limits of Q2RL and its baselines; robomimic's own rollouts of these tasks last 400 steps.
for _task, _max_episode_steps in {"Lift": 300, "Can": 300, "Square": 500}.items():
    for _suffix in ("", "Image"):
        register(
            f"Robomimic{_task}{_suffix}-v0",
            entry_point=f"sb3_q2rl.envs.robomimic:Robomimic{_suffix}Env",
            max_episode_steps=_max_episode_steps,
            kwargs={"task": _task},
        )

# The paper's time limits at 10 Hz
for _task, _max_episode_steps in {
    "PegInsertion": 200,
    "PipeAssembly": 400,
    "Kitting": 500,
    "KittingModified": 500,
}.items():
    for _suffix, _obs_mode in (("", "state"), ("Image", "image")):
        register(
            f"Franka{_task}{_suffix}-v0",
            entry_point="sb3_q2rl.envs.franka.franka_env:FrankaEnv",
            max_episode_steps=_max_episode_steps,
            kwargs={"task": re.sub(r"(?<!^)(?=[A-Z])", "_", _task).lower(), "obs_mode": _obs_mode},
        )
