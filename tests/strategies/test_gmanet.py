"""GMANet: what the contract suite does not see."""

import math

import pytest
import torch

from strategies.gmanet import DiscrepancyOutput, GMANet
from tests.strategies.shapes import body, finds_the_bump, train_on
from toolkit.cloud import CloudBatch
from toolkit.errors import HyperparameterError
from toolkit.nn.apprentice import Apprentice

SMALL = dict(weights="random", groups=48, group_size=24, widths=(16, 16), copies=2, epochs=2)


@pytest.fixture(scope="module")
def strategy():
    found = train_on(GMANet(**SMALL), [body(i)[0] for i in range(2)])
    found.model.eval()
    return found


def test_copies_keep_the_experts_tokens_and_rows_and_mark_changed_groups(strategy):
    whole = strategy.prepared(body(0)[0])
    assert not whole.wrong.any() and not whole.copied.any()
    copies = strategy._copies_of(whole)
    assert len(copies) == 2 and copies[0] is strategy._copies_of(whole)[0]
    assert not torch.equal(copies[0].grid, copies[1].grid)
    for copy in copies:
        assert torch.equal(copy.tokens, whole.tokens) and copy.copied.all()
        moved = (copy.grid - whole.grid).norm(dim=1) > 0
        assert 0 < moved.float().mean() < 0.6
        assert torch.equal(copy.pos, copy.grid[whole.rows])
        distance = torch.cdist(copy.pos, copy.grid, compute_mode="donot_use_mm_for_euclid_dist")
        near = distance.argsort(1)[:, :24]
        assert copy.wrong.tolist() == [bool(moved[rows].any()) for rows in near]
        assert 0 < copy.wrong.float().mean() < 1


def test_patches_do_not_change_when_the_cloud_is_turned_and_scaled():
    strategy = GMANet(**SMALL)
    cloud = body(0)[0]
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    turn = turn * torch.linalg.det(turn)
    other = cloud.clone_shallow()
    other.pos = 0.01 * cloud.pos @ turn.t() + 5
    a, b = strategy.prepare(cloud), strategy.prepare(other)
    close = (a.patch - b.patch).flatten(1).norm(dim=1) < 1e-2
    assert close.float().mean() > 0.9  # the others' frames are ambiguous
    assert float(a.patch.norm(dim=-1).mean()) == pytest.approx(1, abs=1e-4)


def test_loss_agrees_with_a_loop():
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(2, 40, 6, generator=generator), dim=2)
    wrong, copy = torch.rand(2, 40, generator=generator) < 0.4
    strategy = GMANet(**SMALL, gamma=1.5, alpha=0.7, clean_weight=0.3)
    found = strategy.loss_of(DiscrepancyOutput(unit[0], unit[1], wrong, copy))
    top = bottom = clean = 0.0
    for a, b, bad, changed in zip(unit[0], unit[1], wrong, copy):
        d = 1 - float(a @ b)
        if changed:
            weight = (0.7 if bad else 0.3) * (1 - math.exp(-d)) ** 1.5
            top, bottom = top + weight * d, bottom + weight
        else:
            clean += d / int((~copy).sum())
    assert float(found) == pytest.approx(top / bottom + 0.3 * clean, rel=1e-4)


def test_focal_weights_are_constants_of_the_gradient():
    angle = torch.tensor([0.5, 1.5], requires_grad=True)
    features = torch.stack([angle.cos(), angle.sin()], 1)
    target = torch.tensor([[1.0, 0.0]]).expand(2, 2)
    yes = torch.ones(2, dtype=torch.bool)
    GMANet(**SMALL).loss_of(DiscrepancyOutput(features, target, yes, yes)).backward()
    weight = [(1 - math.exp(-(1 - math.cos(a)))) ** 2 for a in (0.5, 1.5)]
    expected = [w / sum(weight) * math.sin(a) for w, a in zip(weight, (0.5, 1.5))]
    assert angle.grad.tolist() == pytest.approx(expected, rel=1e-4)


def test_whole_clouds_and_copies_are_drawn_at_the_rate_asked_for(strategy):
    whole = strategy.prepared(body(0)[0])
    drawn = [bool(strategy.augment(whole).copied.any()) for _ in range(200)]
    assert 0.65 < sum(drawn) / 200 < 0.85
    strategy.clean_rate = 1.0
    try:
        assert not any(bool(strategy.augment(whole).copied.any()) for _ in range(20))
    finally:
        strategy.clean_rate = 0.25


def test_a_cloud_answers_alike_alone_and_in_a_batch(strategy):
    clouds = [strategy.prepared(body(i)[0]) for i in range(2)]
    with torch.no_grad():
        alone = torch.cat([strategy.model(CloudBatch.collate([c])).features for c in clouds])
        together = strategy.model(CloudBatch.collate(clouds)).features
    assert torch.allclose(alone, together, atol=1e-5)


def test_gradients_reach_the_apprentice_and_the_expert_stays(strategy):
    before = {n: t.clone() for n, t in strategy._encoder.state_dict().items()}
    fresh = train_on(GMANet(**SMALL), [body(i)[0] for i in range(2)])
    assert all(torch.equal(t, before[n]) for n, t in fresh._encoder.state_dict().items())
    fresh.model.zero_grad()
    whole = fresh.prepared(body(0)[0])
    batch = CloudBatch.collate([fresh._copies_of(whole)[0], whole])
    fresh.loss_of(fresh.model(batch)).backward()
    assert [n for n, p in fresh.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_bump_scores_higher_than_its_surroundings():
    strategy = train_on(GMANet(**{**SMALL, "weights": "shipped", "groups": 128, "widths": (32, 32), "epochs": 15}),
                        [body(i)[0] for i in range(3)])  # fmt: skip
    assert finds_the_bump(strategy)


@pytest.mark.parametrize("wrong", [{"copies": 0}, {"gamma": -1}, {"points": 0}, {"calibrate": "x"}])
def test_bad_hyperparameters(wrong):
    with pytest.raises(HyperparameterError):
        GMANet(**{**SMALL, **wrong})


def test_paper_sizes():
    with torch.device("meta"):
        net = Apprentice(384, GMANet.presets["paper"]["widths"])
        shape = torch.empty(50, 32, 3), torch.empty(50, 3), torch.empty(2, 800, dtype=torch.long)
        assert net(*shape).shape == (50, 384)
