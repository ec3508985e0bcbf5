"""``python -m sb3_q2rl.zoo.train``: rl_zoo3's train with our algorithms, whether the start-up hook is on or off."""

from rl_zoo3.train import train

from sb3_q2rl.zoo.registration import register

if __name__ == "__main__":
    register()
    train()
