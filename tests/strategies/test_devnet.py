"""DevNet's loss; what it shares with DRA and BGAD is in test_open_set_heads.py."""

import torch

from strategies.devnet import DevNet, ScoreOutput
from tests.strategies.open_set import make
from toolkit.nn.token_base import KNOWN, NORMAL, deviation_loss


def test_loss_of_devnet_is_the_deviation_of_the_highest_absolute_scores():
    strategy = make(DevNet, top_share=0.5, token_weight=0.7)
    scores, share = torch.tensor([[1.0], [-3.0], [0.5], [0.0]]), torch.tensor([0.1, 0.9, 0.0, 0.0])
    output = ScoreOutput(scores, share, torch.tensor([0, 2, 4]), torch.tensor([KNOWN, NORMAL]))
    expected = deviation_loss(torch.tensor([3.0, 0.5]), torch.tensor([True, False]))
    normal = deviation_loss(torch.tensor([0.5, 0.0]), torch.tensor([False, False]))
    wrong = deviation_loss(torch.tensor([3.0]), torch.tensor([True]))  # the token with a tenth defective is left out
    assert torch.allclose(strategy.loss_of(output), expected + 0.7 * (normal + wrong) / 2)
