import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from toolkit.nn.disentangle import (
    between_groups,
    correlation,
    hsic,
    kl_to_normal,
    reversed_gradient,
    total_correlation,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_against_torch():
    mean, logvar = draw(5, 3), draw(5, 3, seed=1)
    expected = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(torch.zeros(5, 3), 0.1)).sum(1)
    assert torch.allclose(kl_to_normal(mean, logvar, 0.1), expected, rtol=1e-4)
    assert torch.allclose(kl_to_normal(torch.zeros(1, 4), torch.zeros(1, 4)), torch.zeros(1))


def test_total_correlation_against_a_loop():
    mean, logvar = draw(6, 3), 0.3 * draw(6, 3, seed=1)
    code = mean + 0.5 * draw(6, 3, seed=2)
    total = 0.0
    for a in range(6):
        density = [Normal(mean[b], (logvar[b] / 2).exp()).log_prob(code[a]).exp() for b in range(6)]
        joint = sum(float(d.prod()) for d in density) / 6
        parts = [sum(float(d[j]) for d in density) / 6 for j in range(3)]
        total += (math.log(joint) - sum(math.log(p) for p in parts)) / 6
    assert float(total_correlation(code, mean, logvar)) == pytest.approx(total, rel=1e-4)


def test_total_correlation_is_small_for_independent_and_large_for_copied_codes():
    base = draw(256, 2)
    free, logvar = base, torch.full((256, 2), -1.0)
    copied = base[:, :1].expand(-1, 2).contiguous()
    one, other = (float(total_correlation(m + 0.6 * draw(256, 2, seed=5), m, logvar)) for m in (free, copied))
    assert other > 0.3 and other > 3 * abs(one)


def test_hsic_against_matrices():
    a, b = draw(12, 2), draw(12, 3, seed=1)

    def gram(x):
        square = torch.stack([torch.stack([((p - q) ** 2).sum() for q in x]) for p in x])
        width = square[~torch.eye(12, dtype=torch.bool)].median()
        return (-square / width).exp()

    h = torch.eye(12) - 1 / 12
    assert float(hsic(a, b)) == pytest.approx(float(torch.trace(gram(a) @ h @ gram(b) @ h)) / 121, rel=1e-4)
    circle = torch.linspace(0, 6.28, 60)  # uncorrelated, yet not independent
    x, y = circle.cos()[:, None], circle.sin()[:, None]
    assert hsic(x, y) > 3 * hsic(draw(60, 1, seed=3), draw(60, 1, seed=4)) and correlation(x, y) < 1e-3


def test_correlation_closed_forms():
    x = draw(50, 1)
    assert float(correlation(x, torch.cat([3 * x + 1, -x], 1))) == pytest.approx(2, rel=1e-4)
    plus = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    across = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    assert float(correlation(plus, across)) == pytest.approx(0, abs=1e-6)
    total_hsic, total = between_groups([plus, across, 2 * plus])
    assert float(total) == pytest.approx(1, rel=1e-5) and float(total_hsic) > 0


def test_reversed_gradient():
    x = draw(4).requires_grad_()
    (3 * reversed_gradient(x)).sum().backward()
    assert torch.equal(x.grad, torch.full((4,), -3.0)) and torch.equal(reversed_gradient(x), x)
