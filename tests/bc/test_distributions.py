"""The squashed Gaussian against torch's own pieces, numerical integration and sampling."""

import numpy as np
import pytest
import torch as th
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from sb3_q2rl.bc.distributions import TanhNormal, entropy_nats, mode, step_from


def make(n: int = 4, dim: int = 3, spread: float = 1.0) -> TanhNormal:
    generator = th.Generator().manual_seed(0)
    loc = spread * th.randn(n, dim, generator=generator)
    return TanhNormal(loc, 0.05 + th.rand(n, dim, generator=generator))


def test_log_prob_is_torchs_and_survives_saturation():
    ours, actions = make(), make().sample()
    theirs = TransformedDistribution(ours.gaussian, TanhTransform())
    th.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions), atol=2e-4, rtol=1e-4)
    saturated = TanhNormal(th.full((1, 2), 30.0), th.full((1, 2), 0.5))  # float32: tanh(30) = 1, its inverse infinite
    step = step_from(saturated, deterministic=True)
    assert th.isfinite(step.log_prob).all()
    th.testing.assert_close(step.log_prob + step.entropy, th.ones(1), atol=1e-3, rtol=0)  # D/2, as without tanh


@pytest.mark.parametrize(("scale", "tolerance"), [(0.05, 1e-4), (1.0, 1e-4), (3.0, 1e-3)])
@pytest.mark.parametrize("loc", [0.0, 1.0, 4.0])
def test_entropy_is_the_integral(loc, scale, tolerance):
    z = np.linspace(-12, 12, 200_001)
    u = loc + scale * z
    weights = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    log_slope = 2 * (np.log(2) - u - np.logaddexp(0, -2 * u))
    expected = 0.5 * np.log(2 * np.pi * np.e * scale**2) + (log_slope * weights).sum()
    entropy = TanhNormal(th.full((1, 1), loc), th.full((1, 1), scale)).entropy().item()
    assert entropy == pytest.approx(expected, abs=tolerance)


def test_log_prob_and_entropy_cancel_over_samples():
    distribution = make(n=1, dim=4)
    total = th.stack([sum(step_from(distribution, False)[1:3]) for _ in range(4000)])
    assert abs(total.mean().item()) < 4 * (total.std() / len(total) ** 0.5).item()


def test_modes():
    distribution = make()
    th.testing.assert_close(mode(distribution), distribution.gaussian.mean.tanh())
    gaussian = Independent(Normal(th.zeros(2, 3), 0.1), 1)
    th.testing.assert_close(mode(gaussian), th.zeros(2, 3))
    th.testing.assert_close(entropy_nats(gaussian), gaussian.entropy())
