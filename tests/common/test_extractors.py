import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor

from sb3_q2rl.common.extractors import CLIP, StandardizedExtractor


def test_vectors_are_standardised_images_are_not():
    space = spaces.Dict(
        {
            "v": spaces.Box(-np.inf, np.inf, (3,)),
            "i": spaces.Box(0, 255, (3, 36, 36), np.uint8),
            "d": spaces.Discrete(4),
        }
    )
    extractor = StandardizedExtractor(space, CombinedExtractor(space, normalized_image=False))
    assert extractor.keys == ["v"]
    obs = {
        "v": th.randn(500, 3) * th.tensor([1.0, 50.0, 0.0]) + th.tensor([0.0, -900.0, 7.0]),
        "i": th.rand(500, 3, 36, 36),
        "d": th.eye(4)[th.randint(4, (500,))],
    }
    extractor.set_statistics(obs)
    seen = []
    extractor.extractor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    extractor(obs)
    th.testing.assert_close(seen[0]["v"].mean(dim=0), th.zeros(3), atol=1e-3, rtol=0)
    th.testing.assert_close(seen[0]["v"].std(dim=0, correction=0), th.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0)
    assert seen[0]["i"] is obs["i"]
    assert seen[0]["d"] is obs["d"]


def test_far_observations_stay_bounded_and_statistics_are_saved():
    space = spaces.Box(-np.inf, np.inf, (2,))
    extractor = StandardizedExtractor(space, FlattenExtractor(space))
    extractor.set_statistics(th.randn(100, 2))
    assert extractor(th.tensor([[1e9, -1e9]])).tolist() == [[CLIP, -CLIP]]
    twin = StandardizedExtractor(space, FlattenExtractor(space))
    twin.load_state_dict(extractor.state_dict())
    obs = th.randn(5, 2)
    th.testing.assert_close(twin(obs), extractor(obs))
    assert not list(extractor.parameters())
