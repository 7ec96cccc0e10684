"""DUS-Net: what the nets are shown, the losses, and that it finds what was pushed out of place."""

import pytest
import torch

from strategies.dusnet import DUSNet, DUSOutput, spread
from tests.strategies.test_po3ad import blob, experience
from toolkit.cloud import CloudBatch, PointCloud
from toolkit.errors import HyperparameterError
from toolkit.nn.placed import plane_gap
from toolkit.ops import chamfer, emd, knn
from toolkit.ops.emd import matching

QUICK = dict(network="tiny", registration=False, groups=48, group_size=12, expand=4, parts=32, smooth=8)


def away(pos, cloud):
    """(M,) distance of points from the nearest of a cloud."""
    return knn(cloud, pos, 1)[1][:, 0]


@pytest.fixture(scope="module")
def trained():
    strategy = DUSNet(**QUICK, epochs=16, skip=True, batch_size=2)
    strategy.train(experience())
    strategy.model.eval()
    return strategy


def test_pushed_points_score_higher(trained):
    bad, good = trained.score(blob(10, 0.15).unlabelled()), trained.score(blob(11).unlabelled())
    mask = blob(10, 0.15).point_y
    assert bad.object > 1.3 * good.object
    assert bad.point[mask].mean() > 3 * bad.point[~mask].mean()


def test_order_of_points_changes_the_order_of_scores_only(trained):
    cloud = blob(10, 0.15).unlabelled()
    turn = torch.randperm(len(cloud.pos), generator=torch.Generator().manual_seed(0))
    other = PointCloud(cloud.pos[turn], category="blob", sample_id="turned")
    a, b = trained.score(cloud), trained.score(other)
    assert torch.allclose(a.point[turn], b.point, atol=1e-4) and abs(a.object - b.object) < 1e-4


def test_a_cloud_that_is_its_reconstruction_scores_zero():
    strategy = DUSNet(**{**QUICK, "smooth": 1}, distance="point", calibrate=False)
    cloud = blob(3).unlabelled()
    prepared = strategy.prepared(cloud)
    strategy.reconstruct = lambda p: p.pos
    assert strategy.score(cloud).point.abs().max() == 0
    strategy.reconstruct = lambda p: p.pos[:, :] + torch.tensor([2.0, 0, 0])
    far = torch.cdist(prepared.pos, prepared.pos + torch.tensor([2.0, 0, 0])).amin(1)
    assert torch.allclose(strategy.score(cloud).point, far, atol=1e-5)


def test_every_point_of_the_template_is_expected_once():
    strategy = DUSNet(**QUICK)
    strategy.meet([blob(0)])
    middle, start, axes = strategy.expected(blob(1).pos, "blob")
    placed = strategy.prepared(blob(0)).pos
    expected, wanted = (middle[:, None] + start).flatten(0, 1), spread(placed, 48 * 4)
    assert torch.allclose(expected[matching(expected, wanted).argsort()], wanted, atol=1e-5)
    assert start.norm(dim=-1).max() < 0.5
    assert torch.allclose(axes @ axes.transpose(1, 2), torch.eye(3).expand_as(axes), atol=1e-5)
    # Of an unknown class, and by the literal reading, the cloud itself says where its patches are.
    for other in (
        strategy.expected(blob(1).pos, "cube"),
        DUSNet(**QUICK, anchors="cloud").expected(blob(1).pos, "blob"),
    ):
        assert away(other[0], blob(1).pos).max() == 0 and other[1].abs().max() == 0


@pytest.mark.parametrize("anchors", ["template", "cloud"])
def test_centres_to_be_predicted_are_those_of_the_clean_cloud(anchors):
    strategy = DUSNet(**QUICK, anchors=anchors, rotation=0, shift=0, amplitude_low=0.1, amplitude_high=0.12)
    strategy.meet([blob(0)])
    clean = strategy.prepared(blob(1))
    made = strategy.augment(clean)
    if anchors == "cloud":
        assert away(made.centre[0], clean.pos).max() < 1e-6
        assert 0.02 < (made.centre[0] - made.middle[0]).norm(dim=1).max() < 0.25
    else:
        assert plane_gap(clean.pos, clean.normal, made.centre[0]).norm(dim=1).mean() < 0.004
    assert away(made.target[0], clean.pos).max() < 1e-6
    # Patches are cut from the noisy cloud.
    patch = (made.patch[0] + made.middle[0][:, None]).flatten(0, 1)
    assert away(patch, clean.pos).max() > 0.02


def test_losses_are_those_of_the_parts():
    strategy = DUSNet(**QUICK, repulsion=0.0, unit=0.1, emd_block=64)
    g = torch.Generator().manual_seed(0)
    a, b, c, d = (torch.randn(2, n, 3, generator=g) for n in (10, 10, 50, 50))
    squared = float((a - b).square().sum(-1).mean())
    both = sum(float(chamfer(x, y)) for x, y in zip(a, b)) / 2
    cosine = float((1 - torch.nn.functional.cosine_similarity(a, b, dim=-1)).mean())
    assert float(strategy.down_loss(a, b)) == pytest.approx(100 * (squared + both) + cosine, rel=1e-4)
    moved = sum(float(emd(x, y)) for x, y in zip(c, d)) / 2
    assert float(strategy.up_loss(c, d)) == pytest.approx(100 * moved, rel=1e-4)
    strategy.model.net.growing = False
    assert strategy.loss_of(DUSOutput(a, c, b, d)).item() == pytest.approx(strategy.down_loss(a, b).item(), rel=1e-5)
    strategy.dense_loss = "chamfer"
    assert float(strategy.up_loss(c, d)) == pytest.approx(
        50 * sum(float(chamfer(x, y)) for x, y in zip(c, d)), rel=1e-4
    )
    strategy.repulsion = 1.0
    assert strategy.up_loss(0 * c, d) > DUSNet(**QUICK, repulsion=0.0, unit=0.1, dense_loss="chamfer").up_loss(0 * c, d)


def test_down_net_first_then_both():
    strategy = DUSNet(**QUICK, epochs=4, down_share=0.5)
    before = [p.detach().clone() for p in strategy.model.net.up.parameters()]
    seen = []

    def watch(after=strategy._after_training_epoch, **kwargs):
        after(**kwargs)
        now = strategy.model.net.up.parameters()
        seen.append(any(bool((a - b).abs().max() > 1e-3) for a, b in zip(before, now)))

    strategy._after_training_epoch = watch
    strategy.train(experience(2))
    assert seen[:2] == [False, False] and seen[3] and strategy.model.net.growing


def test_training_brings_centres_nearer_to_the_clean_ones(trained):
    clean = trained.prepared(blob(20))
    trained.generator.manual_seed(1)
    batch = CloudBatch.collate([trained.augment(clean) for _ in range(8)])
    with torch.no_grad():
        error = trained.model(batch).centre - batch.centre
    assert error.square().sum(-1).mean() < 0.7 * (batch.middle - batch.centre).square().sum(-1).mean()


def test_dense_clouds_are_thinned_and_scored_in_full(trained):
    few = DUSNet(**QUICK, points=500)
    cloud = blob(5, count=3000).unlabelled()
    prepared = few.prepared(cloud)
    assert 100 < len(prepared.pos) < 3000 and prepared.raw.shape == prepared.pos.shape
    few.model.eval()
    assert few.score(cloud).check(cloud).point.std() > 0


def test_paper_preset():
    with torch.device("meta"):
        net = DUSNet(**DUSNet.of_preset("paper")).model.net
    assert net.down.transformer.output.weight.shape == (256, 256) and len(net.down.transformer.decoder) == 4
    assert net.up.predict[-1].weight.shape == (3 * 4, 128) and not net.anchored


def test_noise_at_test_follows_the_seed():
    strategy = DUSNet(**QUICK, noise_at_test="jitter", calibrate=False)
    torch.nn.init.normal_(strategy.model.net.down.centre[-1].weight)
    plain = DUSNet(**QUICK, calibrate=False)
    plain.model.load_state_dict(strategy.model.state_dict())
    prepared = strategy.prepared(blob(1))
    first = strategy.reconstruct(prepared)
    assert torch.equal(first, strategy.reconstruct(prepared)) and not torch.equal(first, plain.reconstruct(prepared))


def test_wrong_arguments_are_named():
    for wrong in ({"anchors": "none"}, {"top_share": 2.0}, {"down_share": -1.0}, {"groups": 1}, {"emd_block": 1}):
        with pytest.raises(HyperparameterError, match=next(iter(wrong))):
            DUSNet(**wrong)
