import pytest
import torch

from strategies.patch3d import Patch3D
from strategies.patchcore import PatchCore
from tests.strategies.test_patchcore import part
from toolkit.cloud import PointCloud
from toolkit.errors import HyperparameterError
from toolkit.nn.bank import bank_bytes
from toolkit.ops import bank_nearest
from toolkit.stream import CloudList


def trained(clouds, cls=Patch3D, **options):
    strategy = cls(**{"voxel": 0.03, **options})
    strategy.meet(clouds)
    strategy.fit(CloudList("x", range(len(clouds)), lambda i: strategy.prepared(clouds[i]), [0] * len(clouds)))
    return strategy


def turned_parts(count=2):
    return [part(seed, turned=True)[0] for seed in range(count)]


@pytest.mark.parametrize("lof", [0, 5])
def test_one_cell_is_patchcore_bit_for_bit(lof):
    clouds = turned_parts()
    mine = trained(clouds, cells=1, registration=False, bank_size=300, lof=lof)
    theirs = trained(clouds, PatchCore, bank_size=300, lof=lof)
    a, b = mine.score(part(9)[0]), theirs.score(part(9)[0])
    assert torch.equal(a.point, b.point) and a.object == b.object
    assert torch.equal(mine.bank_["part#0"], theirs.bank_["part"])


@pytest.mark.parametrize("matching", ["template", "hungarian"])
def test_a_point_is_judged_by_its_own_space_only(matching):
    """Against a naive loop: the distance to the nearest row of the one bank that the point's cell was matched to."""
    clouds = turned_parts()
    strategy = trained(clouds, cells=9, overlap=1, matching=matching, lof=0, smooth=1, spread=1)
    cloud = part(9, turned=True)[0]
    described = strategy.prepared(cloud)
    _, space = strategy.spaces(described)
    assert len(set(space.tolist())) == 9
    expected = []
    for feature, cell in zip(described.feature, space.tolist()):
        expected.append((strategy.bank_[f"part#{cell}"][:, :-1] - feature).norm(dim=1).min())
    assert strategy.score(cloud).object == pytest.approx(float(max(expected)), rel=1e-4)

    for key in strategy.bank_:  # what other spaces hold makes no difference
        if key != f"part#{int(space[0])}":
            strategy.bank_[key] = strategy.bank_[key] + 100
    nearest = bank_nearest(strategy.bank_[f"part#{int(space[0])}"][:, :-1].contiguous(), described.feature[:1])[0]
    exact = cloud.clone_shallow()
    exact.pos = described.pos
    here = (described.pos - described.pos[0]).norm(dim=1).argmin()
    strategy.prepared = lambda _: described
    assert float(strategy.score(exact).point[here]) == pytest.approx(float(nearest), rel=1e-4)


def test_overlap_searches_the_spaces_around_too():
    clouds = turned_parts()
    alone, shared = (trained(clouds, cells=16, overlap=n, lof=0, smooth=1) for n in (1, 3))
    cloud = part(9)[0]
    less = alone.score(cloud).point - shared.score(cloud).point
    assert less.min() > -1e-5 and less.mean() > 0.01
    assert sum(map(len, alone.bank_.values())) == sum(map(len, shared.bank_.values()))  # rows are not kept twice


@pytest.mark.parametrize("matching", ["template", "hungarian"])
def test_a_training_cloud_scores_zero_and_a_bump_more_than_its_twin(matching):
    clouds = turned_parts(3)
    plain = trained(clouds, cells=8, matching=matching, lof=0, bank_size=0)
    assert plain.score(clouds[1]).object == 0
    strategy = trained(clouds, cells=8, matching=matching, voxel=0.02)
    normal, (dented, where) = part(50, turned=True)[0], part(50, bump=0.15, turned=True)
    after = strategy.score(dented).check(dented)
    assert after.object > 1.2 * strategy.score(normal).object
    assert after.point[where].mean() > 1.5 * after.point[~where].mean()


def test_hungarian_matching_finds_renumbered_cells():
    strategy = trained(turned_parts(), cells=12)
    template = strategy.cells_["part"]
    turn = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(strategy.match({name: value[turn] for name, value in template.items()}, template), turn)
    more = {name: torch.cat([value, value[:1]]) for name, value in template.items()}  # 13 cells for 12
    assert strategy.match(more, template).tolist() == [*range(12), 0]


def test_cells_are_alike_from_scan_to_scan():
    """Registration brings the same places of two scans into the same space."""
    clouds = turned_parts()
    strategy = trained(clouds, cells=12)
    one, two = (strategy.prepared(c) for c in (part(5, turned=True)[0], part(6, turned=True)[0]))
    first, second = (strategy.spaces(p)[1] for p in (one, two))
    nearest = torch.cdist(one.placed, two.placed).argmin(1)
    assert (first == second[nearest]).float().mean() > 0.9
    strategy.matching = "hungarian"
    first, second = (strategy.spaces(p)[1] for p in (one, two))
    assert (first == second[nearest]).float().mean() > 0.5  # of 12 cells


def test_budget_holds_over_all_spaces_and_lost_ones_are_replaced():
    clouds = turned_parts()
    strategy = trained(clouds, cells=64, overlap=1, policy="fixed", budget="6KB")
    assert bank_bytes(strategy.bank_) <= 6000 and len(strategy.bank_) < 64
    assert strategy.score(part(9)[0]).point.std() > 0


def test_an_unknown_class_is_judged_by_the_class_it_matches():
    clouds = turned_parts()
    rod = PointCloud(torch.randn(2500, 3) * torch.tensor([30.0, 1.0, 1.0]), category="rod", sample_id="rod")
    strategy = trained([*clouds, rod], cells=8)
    for stranger, likely in ((part(9, turned=True)[0], "part"), (rod.clone_shallow(), "rod")):
        stranger.category = "?"
        assert strategy.spaces(strategy.prepared(stranger))[0] == likely


def test_other_features():
    clouds = turned_parts()
    for features, width in (("xyz", 3), ("fpfh+xyz", 36)):
        strategy = trained(clouds, cells=4, features=features)
        assert strategy.prepared(clouds[0]).feature.shape[1] == width
        assert strategy.score(part(9, turned=True)[0]).point.std() > 0


def test_wrong_hyperparameters():
    for options in ({"cells": 0}, {"matching": "x"}, {"features": "rgb"}, {"overlap": 0}):
        with pytest.raises(HyperparameterError):
            Patch3D(**options)
