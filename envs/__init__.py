"""
Gymnasium environments with the reward and success conventions of offline-to-online reinforcement learning.
Importing this package registers them. A simulator is imported only when one of its environments is made.
"""

from gymnasium.envs.registration import register

# D4RL's time limits. Human demonstrations are longer: `gymnasium.make(..., max_episode_steps=400)` replays them.
register("AdroitHandDoorBinary-v0", entry_point="sb3_q2rl.envs.d4rl:AdroitHandDoorBinaryEnv", max_episode_steps=200)
register("AdroitHandPenBinary-v0", entry_point="sb3_q2rl.envs.d4rl:AdroitHandPenBinaryEnv", max_episode_steps=100)
