import numpy as np
import pytest
import torch

from strategies.rif import RIF
from toolkit.cloud import PointCloud
from toolkit.errors import HyperparameterError
from toolkit.nn.shapes import random_rotation
from toolkit.stream import CloudList

SMALL = {"groups": 200, "bank_groups": 500, "group_size": 16, "smooth": 12}


def part(seed, bump=0.0, points=2500):
    """A random scan of a body without symmetry, with a bump on one side, and where the bump is."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(points, 3, generator=generator), dim=1)
    x, y, z = unit.unbind(1)
    radius = 1 + 0.35 * x - 0.25 * y * z + 0.2 * (3 * x * y).sin() * z
    centre = torch.nn.functional.normalize(torch.tensor([0.3, 0.8, 0.5]), dim=0)
    strength = (-((unit - centre).norm(dim=1) / 0.3).square()).exp()
    pos = unit * torch.tensor([30.0, 18.0, 12.0]) * (radius * (1 + bump * strength))[:, None]
    return PointCloud(pos, category="part", sample_id=f"part{seed}"), strength > 0.4


def turned(cloud, seed, double=False):
    rng = np.random.default_rng(seed)
    other = cloud.clone_shallow()
    pos = cloud.pos.double() @ torch.from_numpy(random_rotation(rng)) + torch.from_numpy(50 * rng.normal(size=3))
    other.pos = pos if double else pos.float()
    return other


def trained(clouds, **options):
    strategy = RIF(**{**SMALL, **options})
    strategy.meet(clouds)
    with torch.no_grad():
        rows = CloudList("x", range(len(clouds)), lambda i: strategy.prepared(clouds[i]), [0] * len(clouds))
        strategy.fit(rows)
    return strategy


def test_a_bump_scores_higher_in_any_pose():
    strategy = trained([turned(part(seed)[0], seed) for seed in range(3)])
    normal, (dented, where) = part(50)[0], part(51, bump=0.3)
    before, after = strategy.score(turned(normal, 7)), strategy.score(turned(dented, 8))
    assert after.object > 1.2 * before.object
    assert after.point[where].mean() > 1.5 * after.point[~where].mean()


@pytest.mark.parametrize("frame", ["pcm", "matched"])
def test_turning_a_cloud_changes_no_feature_beyond_rounding(frame):
    """In double precision to 1e-6 of the unit sphere; the network computes in single precision."""
    strategy = trained([part(seed)[0] for seed in range(2)], frame=frame)
    cloud = part(50)[0]
    own = turned(cloud, 1, double=True)
    other = turned(cloud, 2, double=True)
    with torch.no_grad():
        first, second = strategy.prepare(own), strategy.prepare(other)
    assert first.points.shape == second.points.shape
    assert float((first.points - second.points).abs().max()) < 1e-6
    assert torch.allclose(first.feature.float(), second.feature.float(), atol=2e-3)


def test_turning_and_noise_together():
    """What rotation invariance is worth on another, noisy scan: its scores do not depend on the pose it came in."""
    strategy = trained([part(seed)[0] for seed in range(3)])
    dented, where = part(51, bump=0.3)
    dented.pos = dented.pos + 0.1 * torch.randn(dented.pos.shape, generator=torch.Generator().manual_seed(0))
    found = [strategy.score(turned(dented, seed)).point for seed in range(3)]
    for other in found[1:]:
        assert torch.corrcoef(torch.stack([found[0], other]))[0, 1] > 0.95
    for point in found:
        assert point[where].mean() > 1.3 * point[~where].mean()


def test_without_a_frame_the_pose_matters():
    strategy = trained([part(seed)[0] for seed in range(2)], frame="none")
    cloud = part(50)[0]
    assert strategy.score(turned(cloud, 1)).object > 1.5 * strategy.score(cloud).object


def test_every_frame_of_a_training_cloud_is_in_the_bank():
    clouds = [part(seed)[0] for seed in range(2)]
    one, several = (trained(clouds, frame="pcm", scans=n, bank_groups=40, bank_size=0) for n in (1, 3))
    assert one.bank_["part"].shape == (80, 1025) and several.bank_["part"].shape == (240, 1025)
    assert not one.templates_ and trained(clouds).templates_.keys() == {"part"}
    assert torch.equal(several.bank_["part"][:40, :-1], one.bank_["part"][:40, :-1])


def test_recentred_features_do_not_tell_where_a_group_lies():
    points = part(0)[0].pos / 40
    row = torch.arange(0, 2500, 50)
    for recenter in (True, False):
        strategy = RIF(**SMALL, recenter=recenter)
        with torch.no_grad():
            same = torch.allclose(strategy._features(points, row), strategy._features(points + 1, row), atol=1e-2)
        assert same == recenter


def test_score_is_the_distance_to_the_nearest_feature():
    clouds = [part(seed)[0] for seed in range(2)]
    strategy = trained(clouds, bank_groups=80, groups=60, bank_size=0, smooth=1, around=0)
    rows = strategy.bank_["part"]
    assert rows.shape == (160, 1025) and (rows[:, -1] == 1).all()
    other = part(9)[0]
    own = strategy.prepared(other).feature
    away = torch.cdist(own.double(), rows[:, :-1].double()).amin(1)
    assert strategy.score(other).object == pytest.approx(float(away.max()), rel=1e-2)


def test_expected_distance_is_that_of_the_other_training_clouds():
    """Against a loop over clouds and rows."""
    clouds = [part(seed)[0] for seed in range(3)]
    strategy = trained(clouds, bank_groups=60, around=7, bank_size=0)
    feature, expected = strategy.bank_["part"][:, :-1].double(), strategy.bank_["part"][:, -1]
    place = torch.cat([strategy._seen(strategy.prepared(cloud), 0).pos for cloud in clouds]).double()
    away = torch.cat([
        torch.cdist(feature[own], feature[[i for i in range(180) if i not in own]]).amin(1)
        for own in (list(range(0, 60)), list(range(60, 120)), list(range(120, 180)))
    ])  # fmt: skip
    near = torch.cdist(place, place).topk(7, largest=False).indices
    assert torch.allclose(expected.double(), away[near].mean(1), rtol=1e-3)
    plain = trained(clouds, bank_groups=60, around=0, bank_size=0)
    assert (plain.bank_["part"][:, -1] == 1).all()
    assert (trained(clouds[:1], bank_groups=60).bank_["part"][:, -1] == 1).all()  # nothing to compare with
    assert (trained(clouds[:1] * 2, bank_groups=60).bank_["part"][:, -1] == 1).all()  # or no difference


def test_template_survives_restart_and_decides_the_cache_key():
    strategy = trained([part(0)[0]])
    key = strategy.prepare_key(part(5)[0])
    strategy.meet([turned(part(1)[0], 3)])
    strategy.restart()
    assert strategy.prepare_key(part(5)[0]) == key and not hasattr(strategy, "bank_")
    assert trained([part(1)[0]]).prepare_key(part(5)[0]) != key


def test_wrong_hyperparameters():
    for options in (
        {"frame": "pca"},
        {"groups": 0},
        {"basis": "near"},
        {"scans": 0},
        {"around": -1},
    ):
        with pytest.raises(HyperparameterError):
            RIF(weights="random", **options)
