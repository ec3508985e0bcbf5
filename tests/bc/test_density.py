"""Densities of sampled actions, against the distribution that the samples came from."""

import math

import numpy as np
import pytest
import torch as th
from torch.distributions import Independent, Normal

from sb3_q2rl.bc.density import Density, gaussian_scores, kernel_scores


def draw(n: int = 2, k: int = 4000, dim: int = 2) -> tuple[th.Tensor, Independent]:
    th.manual_seed(0)
    source = Independent(Normal(th.randn(n, dim), 0.1 + th.rand(n, dim)), 1)
    return source.sample((k,)).transpose(0, 1), source


@pytest.mark.parametrize("score", [gaussian_scores, kernel_scores])
def test_log_density_plus_entropy_is_zero_on_average(score):
    samples, _ = draw(k=64)
    log_density, entropy = score(samples, 1e-6)
    assert log_density.shape == (2, 64)
    th.testing.assert_close((log_density + entropy.unsqueeze(1)).mean(dim=1), th.zeros(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("score", "tolerance"), [(gaussian_scores, 0.02), (kernel_scores, 0.06)])
def test_many_samples_give_the_true_density(score, tolerance):
    samples, source = draw()
    log_density, entropy = score(samples, 1e-6)
    th.testing.assert_close(entropy, source.entropy(), atol=tolerance, rtol=0)
    true = source.log_prob(samples.transpose(0, 1)).T
    assert (log_density - true).abs().mean() < 2 * tolerance


def test_kernel_density_is_the_mean_kernel_of_the_other_samples():
    samples, _ = draw(n=1, k=12)
    log_density, _ = kernel_scores(samples, 1e-6)
    points = samples[0].double().numpy()
    bandwidth = 12 ** (-1 / 6) * points.std(axis=0, ddof=1)
    for i, point in enumerate(points):
        others = np.delete(points, i, axis=0) / bandwidth
        kernel_mean = np.exp(-0.5 * np.square(others - point / bandwidth).sum(axis=1)).mean()
        expected = math.log(kernel_mean) - math.log(2 * math.pi) - np.log(bandwidth).sum()
        assert log_density[0, i].item() == pytest.approx(expected, abs=1e-3)


def test_two_modes_only_the_kernel_sees_the_gap():
    th.manual_seed(0)
    sides = th.where(th.rand(1, 400, 1) < 0.5, -0.8, 0.8)
    samples = th.cat([sides + 0.05 * th.randn(1, 400, 1), th.zeros(1, 1, 1)], dim=1)  # the last lies in between
    for score, sees in ((gaussian_scores, False), (kernel_scores, True)):
        log_density, _ = score(samples, 1e-6)
        assert bool(log_density[0, -1] < log_density[0, :-1].min()) == sees


def test_the_floor_holds():
    samples = th.zeros(1, 8, 3) + 1e-4 * th.randn(1, 8, 3)
    log_density, entropy = gaussian_scores(samples, 0.1)
    floor = Independent(Normal(th.zeros(1, 3), 0.1), 1)
    th.testing.assert_close(entropy, floor.entropy())
    assert (log_density <= floor.log_prob(th.zeros(1, 3)) + 1e-5).all()
    assert (kernel_scores(samples, 0.1)[0] <= floor.log_prob(th.zeros(1, 3)) + 1e-4).all()


def test_what_users_write():
    assert Density.of(None) == Density("none")
    assert Density.of("fixed") == Density("fixed", 0.1)
    assert Density.of({"kind": "kernel", "n_samples": 8}) == Density("kernel", n_samples=8)
    with pytest.raises(ValueError, match=r"'diffusion'; expected one of 'none', 'fixed', 'gaussian', 'kernel'"):
        Density.of("diffusion")
    with pytest.raises(ValueError, match=r"fields \['std'\]; known: kind, scale, n_samples"):
        Density.of({"std": 0.1})
    with pytest.raises(ValueError, match="is positive"):
        Density("fixed", scale=0.0)
    with pytest.raises(ValueError, match="at least 4"):
        Density("kernel", n_samples=2)
