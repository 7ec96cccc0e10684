"""DevNet, DRA and BGAD: the heads on frozen tokens that learn from known defects and pseudo anomalies."""

import pytest
import torch

from strategies.bgad import BGAD, LikelihoodOutput
from strategies.devnet import DevNet, ScoreOutput
from strategies.dra import DRA, HeadsOutput
from tests.strategies.shapes import body, train_on
from toolkit.nn.token_base import KNOWN, NORMAL, PSEUDO, deviation_loss

SIZES = dict(groups=150, group_size=16, layers=(-1, 1), pseudo=3)
MADE = {
    DevNet: dict(epochs=60, hidden=32),
    DRA: dict(epochs=60, hidden=32),
    BGAD: dict(epochs=60, hidden=48, couplings=4),
}
every = pytest.mark.parametrize("cls", MADE, ids=lambda c: c.__name__)


def make(cls, **more):
    return cls(**{**SIZES, **MADE[cls], **more})


@every
@pytest.mark.parametrize("known", [False, True], ids=["pseudo", "known"])
def test_a_bump_scores_higher_than_its_normal_twin(cls, known):
    clouds = [body(seed)[0] for seed in range(4)]
    if known:
        cloud, where = body(9, bump=0.2)
        cloud.y, cloud.point_y = 1, where
        clouds.append(cloud)
    strategy = train_on(make(cls), clouds)
    normal, (dented, where) = body(50)[0], body(50, bump=0.2)
    before, after = strategy.score(normal).check(normal), strategy.score(dented).check(dented)
    assert after.object > before.object
    assert after.point[where].mean() > after.point[~where].mean() + after.point[~where].std()


@every
def test_gradients_reach_every_weight(cls):
    from toolkit.cloud import CloudBatch

    strategy = make(cls, warm_up=0.0) if cls is BGAD else make(cls)
    normal, (bent, where) = body(0)[0], body(1, bump=0.2)
    bent.y, bent.point_y = 1, where
    strategy.meet([normal, bent])
    if cls is BGAD:  # a new flow is a permutation: its first layers get gradients once the last ones have moved
        for net in strategy.model.flow.nets:
            torch.nn.init.normal_(net[2].weight, std=0.1)
    ready = strategy.prepared(normal)
    parts = [strategy._example(ready, NORMAL, torch.zeros(len(ready.tokens)))]
    parts += [strategy._example(c, PSEUDO, c.share, ready) for c in strategy._copies_of(ready)]
    parts.append(strategy.augment(strategy.prepared(bent)))
    strategy.loss_of(strategy.model(CloudBatch.collate(parts))).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in strategy.model.parameters())


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


def test_loss_of_devnet_is_the_deviation_of_the_highest_absolute_scores():
    strategy = make(DevNet, top_share=0.5, token_weight=0.7)
    scores, share = torch.tensor([[1.0], [-3.0], [0.5], [0.0]]), torch.tensor([0.1, 0.9, 0.0, 0.0])
    output = ScoreOutput(scores, share, torch.tensor([0, 2, 4]), torch.tensor([KNOWN, NORMAL]))
    expected = deviation_loss(torch.tensor([3.0, 0.5]), torch.tensor([True, False]))
    normal = deviation_loss(torch.tensor([0.5, 0.0]), torch.tensor([False, False]))
    wrong = deviation_loss(torch.tensor([3.0]), torch.tensor([True]))  # the token with a tenth defective is left out
    assert torch.allclose(strategy.loss_of(output), expected + 0.7 * (normal + wrong) / 2)


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
