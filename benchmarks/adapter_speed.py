"""
What a step of a BC policy costs through the adapter, for 1 and 8 environments, against its own library's call for one:
``python benchmarks/adapter_speed.py``.

One process, one thread, the sides in turn. Both start from NumPy observations and end with NumPy actions. Ours also
gives the log-probability and the entropy. Networks have the sizes of each library's defaults and random weights.
A new kind is a function that returns a :class:`Sides`, entered in ``KINDS``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pandas as pd
import torch as th

from sb3_q2rl.bc import BCPolicy, BCPolicyAdapter

RESULTS = Path(__file__).parent / "results" / "adapter_speed.csv"
N_ENVS = (1, 8)


class Sides(NamedTuple):
    """
    :param network: one line about its size
    :param policy: ours
    :param observe: n -> a batch of n observations as environments give them
    :param original: one call of the original for one environment, from its observation to its action
    """

    network: str
    policy: BCPolicy
    observe: Callable[[int], Any]
    original: Callable[[], Any]


def robomimic(folder: Path, algo: dict[str, Any], network: str, images: bool = False) -> Sides:
    """:param algo: what to switch on in robomimic's default configuration"""
    from sb3_q2rl.bc.readers.robomimic_import import import_robomimic

    import_robomimic()
    from robomimic.algo import algo_factory
    from robomimic.config import config_factory
    from robomimic.utils import file_utils, obs_utils, train_utils

    shapes: dict[str, tuple[int, ...]] = {"robot0_eef_pos": (3,), "robot0_eef_quat": (4,), "robot0_gripper_qpos": (2,)}
    cameras = ("agentview_image", "robot0_eye_in_hand_image") if images else ()
    shapes |= dict.fromkeys(cameras, (3, 84, 84)) if images else {"object": (10,)}
    config = config_factory("bc")
    with config.unlocked():
        config.algo.update(algo)
        config.observation.modalities.obs.low_dim = [key for key in shapes if key not in cameras]
        config.observation.modalities.obs.rgb = list(cameras)
        core = {"backbone_class": "ResNet18Conv", "pool_class": "SpatialSoftmax", "feature_dimension": 64}
        config.observation.encoder.rgb.core_kwargs.update(core)
    obs_utils.initialize_obs_utils_with_config(config)
    model = algo_factory("bc", config, shapes, 7, th.device("cpu"))
    path = folder / "model.pth"
    metadata = {"all_shapes": shapes, "ac_dim": 7, "all_obs_keys": list(shapes), "use_images": images}
    train_utils.save_model(model, config, {"env_name": "Lift", "env_version": "1.5.2"}, metadata, str(path))
    rollout, _ = file_utils.policy_from_checkpoint(device=th.device("cpu"), ckpt_path=str(path))
    rollout.start_episode()

    def observe(n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        return {
            key: rng.integers(0, 256, (n, 84, 84, 3), dtype=np.uint8)
            if key in cameras
            else rng.uniform(-1, 1, (n, *shape)).astype(np.float32)
            for key, shape in shapes.items()
        }

    frames = (config.algo.transformer.context_length,) if config.algo.transformer.enabled else ()
    one = {key: value[0] for key, value in observe(1).items()}

    def original() -> Any:
        seen = {key: obs_utils.process_obs(value, obs_key=key) for key, value in one.items()}
        with th.no_grad():
            return rollout({key: np.broadcast_to(value, (*frames, *value.shape)).copy() for key, value in seen.items()})

    return Sides(network, BCPolicyAdapter.from_robomimic(path), observe, original)


class Nowhere(gym.Env):
    """Only its spaces count."""

    observation_space = gym.spaces.Box(-1, 1, (23,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (7,), np.float32)


def sb3(folder: Path, name: str, network: str, live: bool = False) -> Sides:
    """:param live: the object through the adapter, not its file"""
    import stable_baselines3

    model = getattr(stable_baselines3, name)("MlpPolicy", Nowhere(), device="cpu")
    model.save(folder / "model.zip")
    policy = BCPolicyAdapter.from_sb3(model if live else folder / "model.zip")

    def observe(n: int) -> np.ndarray:
        return np.random.default_rng(0).uniform(-1, 1, (n, 23)).astype(np.float32)

    one = observe(1)[0]
    return Sides(network, policy, observe, lambda: model.predict(one))


GMM, RNN, TRANSFORMER = {"gmm": {"enabled": True}}, {"rnn": {"enabled": True}}, {"transformer": {"enabled": True}}
KINDS: dict[str, Callable[[Path], Sides]] = {
    "robomimic BC-GMM": lambda folder: robomimic(folder, GMM, "1024x1024"),
    "robomimic BC-RNN-GMM": lambda folder: robomimic(folder, {**RNN, **GMM}, "LSTM 400x2, 1024x1024"),
    "robomimic BC-Transformer-GMM": lambda folder: robomimic(folder, {**TRANSFORMER, **GMM}, "512x6, window 10"),
    "robomimic BC-RNN-GMM image": lambda folder: robomimic(
        folder, {**RNN, **GMM}, "2 ResNet18 of 84x84, LSTM 400x2, 1024x1024", images=True
    ),
    "SB3 PPO file": lambda folder: sb3(folder, "PPO", "64x64"),
    "SB3 PPO object": lambda folder: sb3(folder, "PPO", "64x64", live=True),
    "SB3 SAC file": lambda folder: sb3(folder, "SAC", "256x256"),
    "SB3 SAC object": lambda folder: sb3(folder, "SAC", "256x256", live=True),
    "SB3 TD3 file": lambda folder: sb3(folder, "TD3", "400x300"),
}


def ours(sides: Sides, n: int) -> Callable[[], Any]:
    """One step for n environments that goes on from the last one."""
    obs = sides.observe(n)
    start, state = np.zeros(n, dtype=bool), None

    def step() -> np.ndarray:
        nonlocal state
        tensors: Any = {k: th.as_tensor(v) for k, v in obs.items()} if isinstance(obs, dict) else th.as_tensor(obs)
        result = sides.policy.step(tensors, state, start)
        state = result.state
        return result.actions.numpy()

    return step


def microseconds(call: Callable[[], Any], seconds: float) -> float:
    n, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        call()
        n += 1
    return (time.perf_counter() - begin) / n * 1e6


def measure(sides: Sides, repeats: int, seconds: float) -> dict[str, Any]:
    calls = {"original_us": sides.original, **{f"ours_us_n{n}": ours(sides, n) for n in N_ENVS}}
    for call in calls.values():
        call()
    rounds = pd.DataFrame([{k: microseconds(call, seconds) for k, call in calls.items()} for _ in range(repeats)])
    one, many = (rounds[f"ours_us_n{n}"] for n in N_ENVS)
    return {
        **rounds.median().round().astype(int).to_dict(),
        "ours_us_per_env_step_n8": round(float((many / N_ENVS[1]).median())),
        "n8_to_n1": round(float((many / one).median()), 2),
        "n1_to_original": round(float((one / rounds["original_us"]).median()), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="rounds over all sides; the table has the medians")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each side in a round")
    parser.add_argument("--only", default="", help="measure the kinds with this in their name; other rows stay")
    args = parser.parse_args()
    th.set_num_threads(1)
    rows = pd.read_csv(RESULTS).set_index("kind").T.to_dict() if RESULTS.is_file() else {}
    for kind, make in KINDS.items():
        if args.only not in kind:
            continue
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            sides = make(Path(folder))
        rows[kind] = {"network": sides.network, **measure(sides, args.repeats, args.seconds)}
        print(kind, rows[kind], flush=True)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).T.rename_axis("kind").to_csv(RESULTS)


if __name__ == "__main__":
    main()
