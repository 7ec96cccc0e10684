"""BGAD's loss; what it shares with DevNet and DRA is in test_open_set_heads.py."""

import pytest
import torch

from strategies.bgad import BGAD, LikelihoodOutput
from tests.strategies.open_set import make


def test_loss_of_bgad_against_a_loop():
    strategy = make(BGAD, warm_up=0.0, quantile=0.25, margin=0.2, push=0.7, theta=0.3)
    value = torch.tensor([-0.1, -0.2, -0.3, -0.9, -1.0, -0.5, -0.4])
    share = torch.tensor([0, 0, 0, 0, 0.5, 0.9, 0.1])  # the last is neither normal nor abnormal
    normal = sorted(value[:4].tolist())
    boundary = normal[0] + 0.75 * (normal[1] - normal[0])  # a quarter of the way through four values
    likelihood = sum(torch.nn.functional.softplus(torch.tensor(-v)).item() for v in normal) / 4
    below = [boundary - v for v in normal if v <= boundary]
    above = [v - (boundary - 0.2) for v in (-1.0, -0.5) if v >= boundary - 0.2]
    expected = likelihood + 0.7 * (sum(below) / len(below) + sum(above) / len(above))
    assert strategy.loss_of(LikelihoodOutput(value[:, None], share)).item() == pytest.approx(expected, rel=1e-5)


def test_bgad_starts_with_normal_tokens_alone():
    strategy = make(BGAD, warm_up=0.5)
    value, share = torch.tensor([[-0.1], [-0.4]]), torch.tensor([0.0, 1.0])
    assert strategy.loss_of(LikelihoodOutput(value, share)).item() == pytest.approx(
        torch.nn.functional.softplus(torch.tensor(0.1)).item()
    )
