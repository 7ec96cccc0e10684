"""What DevNet, DRA and BGAD share: heads on frozen tokens that learn from known defects and pseudo anomalies."""

import pytest
import torch

from strategies.bgad import BGAD
from tests.strategies.open_set import MADE, make
from tests.strategies.shapes import body, train_on
from toolkit.nn.token_base import NORMAL, PSEUDO

every = pytest.mark.parametrize("cls", MADE, ids=lambda c: c.__name__)


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
