"""PO3AD: published sizes, and that it finds what was pushed out of place."""

import pytest
import torch

from strategies.po3ad import PO3AD
from toolkit.cloud import PointCloud
from toolkit.data.base import Sample
from toolkit.errors import HyperparameterError
from toolkit.stream import CloudExperience, CloudList


def blob(seed, bump=0.0, count=1200):
    """A rounded body about 0, with a bump of that height, 0.3 wide. No pose to find, so nothing is registered here."""
    g = torch.Generator().manual_seed(seed)
    half = torch.nn.functional.normalize(torch.randn(count // 2, 3, generator=g), dim=1)
    way = torch.cat([half, -half])
    high = bump * (1 - (way - torch.tensor([0.6, 0.0, 0.8])).norm(dim=1) / 0.3).clamp_min(0)
    size = 0.8 + 0.2 * way[:, :1].square() + 0.002 * torch.randn(count, 1, generator=g)
    return PointCloud(way * (size + high[:, None]), category="blob", sample_id=f"{seed}", point_y=high > 0.02)


def experience(count=4):
    samples = [Sample("blob", "train", f"blob/{i}", f"blob/{i}", y=0) for i in range(count)]
    clouds = CloudList("train/0", samples, lambda s: blob(int(s.sample_id.split("/")[1])), [0] * count)
    return CloudExperience(clouds, None, 0)


@pytest.fixture(scope="module")
def trained():
    strategy = PO3AD(registration=False, epochs=50, voxel=0.1, parts=32, passes=2, smooth=8)
    strategy.train(experience())
    strategy.model.eval()
    return strategy


def test_pushed_points_score_higher(trained):
    with torch.no_grad():
        bad, good = trained.score(blob(10, 0.15).unlabelled()), trained.score(blob(11).unlabelled())
    mask = blob(10, 0.15).point_y
    assert bad.object > 2 * good.object
    assert bad.point[mask].mean() > 3 * bad.point[~mask].mean()


def test_order_of_points_changes_the_order_of_scores_only(trained):
    cloud = blob(10, 0.15).unlabelled()
    turn = torch.randperm(len(cloud.pos), generator=torch.Generator().manual_seed(0))
    other = PointCloud(cloud.pos[turn], category="blob", sample_id="turned")
    with torch.no_grad():
        a, b = trained.score(cloud), trained.score(other)
    assert torch.allclose(a.point[turn], b.point, atol=1e-4) and abs(a.object - b.object) < 1e-4


def test_paper_preset_has_the_published_size():
    with torch.device("meta"):
        net = PO3AD(**{**PO3AD.of_preset("paper")}).model
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 37.86
    shapes = {tuple(p.shape) for p in net.unet.parameters()}
    assert {(125, 3, 32), (27, 256, 256), (8, 256, 256), (27, 384, 256), (32, 96)} <= shapes
    assert net.head[-1].weight.shape == (3, 16)


def test_published_loss_runs_on_the_published_inputs():
    strategy = PO3AD(network="tiny", inputs="xyz", registration=False, balanced=False, rotation=180, parts=32, epochs=1)
    strategy.train(experience(2))
    assert not strategy.surfaces_ and strategy.unit == 1.0
    with torch.no_grad():
        assert strategy.score(blob(3).unlabelled()).point.std() > 0


def test_wrong_arguments_are_named():
    for wrong in ({"keep": 0.0}, {"top_share": 2.0}, {"network": "large"}, {"inputs": "rgb"}, {"voxel": 0.0}):
        with pytest.raises(HyperparameterError, match=next(iter(wrong))):
            PO3AD(**wrong)
