"""DRA's losses; what it shares with DevNet and BGAD is in test_open_set_heads.py."""

import pytest
import torch

from strategies.dra import DRA, HeadsOutput
from tests.strategies.open_set import make
from toolkit.nn.token_base import KNOWN, NORMAL, PSEUDO, deviation_loss


def test_each_head_of_dra_is_blind_to_what_is_not_its_own():
    strategy = make(DRA, top_share=1e-6, token_weight=0.0)
    kind = torch.tensor([NORMAL, KNOWN, PSEUDO])
    ptr, holistic = torch.tensor([0, 2, 4, 6]), torch.tensor([4.0, 0.5, 0.2])
    scores = torch.tensor([[0.1, 0.2, 0.3], [0, 0, 0], [3.0, 9.0, 2.0], [1, 1, 1], [9.0, 4.0, 1.0], [1, 1, 1]])

    def of(values, wrong):
        return deviation_loss(torch.tensor(values), torch.tensor(wrong)).item()

    expected = of([4.0, 0.5, 0.2], [True, False, False])  # deviates on normal clouds
    expected += of([0.1, 3.0], [False, True]) + of([0.2, 4.0], [False, True])  # seen, pseudo
    expected += of([0.3, 2.0, 1.0], [False, True, True])  # composite
    assert strategy.loss_of(HeadsOutput(scores, torch.zeros(6), ptr, holistic, kind)).item() == pytest.approx(
        expected, rel=1e-5
    )
