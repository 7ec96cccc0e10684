"""MC4AD: the symmetric loss, published sizes, and HQC from calibration to decision."""

import math

import pytest
import torch

from strategies.mc4ad import MC4AD, Decision, quality_control, symmetric_loss
from strategies.po3ad import PO3AD
from tests.strategies.test_po3ad import blob, experience
from toolkit.cloud import CloudBatch
from toolkit.nn.three_way import Costs


@pytest.fixture(scope="module")
def trained():
    strategy = MC4AD(registration=False, epochs=25, voxel=0.1, parts=32, passes=1, smooth=8, variants=6, da_gen="bump")
    strategy.train(experience())
    strategy.model.eval()
    return strategy


def test_symmetric_loss_equals_a_loop():
    g = torch.Generator().manual_seed(0)
    inner, outer = torch.randn(20, 3, generator=g), torch.randn(20, 3, generator=g)
    wanted = 0.0
    for a, b in zip(inner.tolist(), outer.tolist()):
        la, lb = (math.sqrt(sum(v * v for v in x)) for x in (a, b))
        wanted += sum(abs(u - v) for u, v in zip(a, b)) / (la + lb + 1e-6)
        wanted -= sum(u * v for u, v in zip(a, b)) / (la * lb)
    assert math.isclose(float(symmetric_loss(inner, outer)), wanted / 20, rel_tol=1e-5)
    assert math.isclose(float(symmetric_loss(inner, inner)), -1, rel_tol=1e-5)


def test_joint_force_is_the_mean_of_two_and_gradients_reach_all():
    strategy = MC4AD(network="tiny", registration=False, voxel=0.1, parts=32)
    strategy.meet([blob(0)])
    batch = CloudBatch.collate([strategy.augment(strategy.prepared(blob(i).unlabelled())) for i in range(2)])
    output = strategy.model(batch)
    assert output.forces.shape == (len(batch.pos), 6)
    assert torch.allclose(output.features, (output.forces[:, :3] + output.forces[:, 3:]) / 2)
    strategy.loss_of(output).backward()
    for name, parameter in strategy.model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_paper_preset_has_the_published_size():
    with torch.device("meta"):
        net = MC4AD(**MC4AD.of_preset("paper")).model
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 14.84
    assert net.head[-1].weight.shape == (6, 16) and len(net.unet.gates) == 4


def test_one_cloud_is_held_out_and_never_trained_on(trained):
    seen = []
    strategy = MC4AD(network="tiny", registration=False, voxel=0.1, parts=32, epochs=1, variants=2)
    strategy.meet = lambda clouds, meet=strategy.meet: (seen.extend(c.sample_id for c in clouds), meet(clouds))
    strategy.train(experience())
    assert sorted(seen) == ["0", "1", "2"] and [c.sample_id for c in strategy._held] == ["3"]
    few = MC4AD(network="tiny", registration=False, voxel=0.1, parts=32, epochs=1)
    few.train(experience(2))
    assert not hasattr(few, "hqc_")
    with torch.no_grad():
        assert few.decide(blob(9).unlabelled()).level == "none"


def test_pushed_points_score_higher_and_are_not_accepted(trained):
    bad, good = blob(10, 0.2).unlabelled(), blob(11).unlabelled()
    with torch.no_grad():
        scores, decisions = [trained.score(c) for c in (good, bad)], [trained.decide(c) for c in (good, bad)]
    mask = blob(10, 0.2).point_y
    assert scores[1].object > 1.3 * scores[0].object
    assert scores[1].point[mask].mean() > 3 * scores[1].point[~mask].mean()
    low, high = trained.thresholds("blob")
    assert 0 < low <= high and scores[1].object > low
    assert decisions[1].verdict != "accept" and decisions[0].probability < decisions[1].probability


def test_verdicts_follow_thresholds(trained):
    low, high = trained.thresholds("blob")
    calibration = trained.hqc_["blob"]["object"]
    at = lambda score: 1 / (1 + math.exp(-calibration["slope"] * math.log(score + 1e-9) - calibration["offset"]))  # noqa: E731
    assert math.isclose(at(low), trained.costs.beta, rel_tol=1e-4)
    assert math.isclose(at(high), trained.costs.alpha, rel_tol=1e-4)


def test_own_metrics_by_hand():
    verdicts = ["accept", "accept", "reject", "re-inspect", "reject"]
    decisions = [Decision(v, "object", 0.5) for v in verdicts]
    found = quality_control(decisions, [0, 1, 1, 1, 0], Costs(miss=4, false_alarm=2, inspection=1))
    assert found["reinspection_rate"] == pytest.approx(1 / 5)
    assert found["decided_error"] == pytest.approx(2 / 4)
    assert found["miss_rate"] == pytest.approx(1 / 3) and found["false_alarm_rate"] == pytest.approx(1 / 2)
    assert found["cost"] == pytest.approx((4 + 2 + 1) / 5)


def test_trunk_is_shared_with_po3ad():
    a, b = PO3AD(network="tiny").model.unet, MC4AD(network="tiny").model.unet
    own = {n for n, _ in b.named_parameters()} - {n for n, _ in a.named_parameters()}
    assert own and all(name.startswith("gates.") for name in own)
