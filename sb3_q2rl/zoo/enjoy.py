"""``python -m sb3_q2rl.zoo.enjoy``: rl_zoo3's enjoy with our algorithms, whether the start-up hook is on or off."""

from rl_zoo3.enjoy import enjoy

from sb3_q2rl.zoo.registration import register

if __name__ == "__main__":
    register()
    enjoy()
