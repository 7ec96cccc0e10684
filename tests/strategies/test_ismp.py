import numpy as np
import pytest
import torch

from strategies.ismp import ISMP, _carried
from toolkit.cloud import PointCloud
from toolkit.errors import HyperparameterError
from toolkit.nn.bank import bank_bytes
from toolkit.nn.registered import unit_sphere
from toolkit.nn.shapes import random_rotation
from toolkit.stream import CloudList

SMALL = {"groups": 300, "group_size": 24, "layers": (-1,)}


def vessel(seed, rib=0.0, bump=0.0, points=5000, name="vessel"):
    """A closed box with a plate in its upper half, tilted by ``rib``; a bump on one side. Also where the bump is."""
    generator = torch.Generator().manual_seed(seed)
    walls = torch.rand(points, 3, generator=generator) - 0.5
    side = torch.randint(6, (points,), generator=generator)
    walls[torch.arange(points), side % 3] = (side >= 3).float() - 0.5
    plate = torch.rand(points // 4, 3, generator=generator) - 0.5
    plate[:, 2] = 0.15 + rib * plate[:, 0]
    pos = torch.cat([walls, 0.8 * plate]) * torch.tensor([30.0, 20.0, 14.0])
    where = (pos - torch.tensor([15.0, 3.0, 1.0])).norm(dim=1)
    strength = (-(where / 3).square()).exp()
    pos[:, 0] += 2.5 * bump * strength
    return PointCloud(pos, category=name, sample_id=f"{name}{seed}"), strength > 0.3


def turned(cloud, seed):
    rng = np.random.default_rng(seed)
    other = cloud.clone_shallow()
    other.pos = (cloud.pos.double() @ torch.from_numpy(random_rotation(rng)) + 40 * torch.from_numpy(rng.normal(size=3))
                 ).float()  # fmt: skip
    return other


def trained(clouds, strategy=None, **options):
    strategy = strategy or ISMP(**{**SMALL, **options})
    strategy.meet(clouds)
    with torch.no_grad():
        rows = CloudList("x", range(len(clouds)), lambda i: strategy.prepared(clouds[i]), [0] * len(clouds))
        strategy.fit(rows)
    return strategy


@pytest.fixture(scope="module")
def plain():
    return trained([vessel(seed)[0] for seed in range(3)])


def test_a_bump_scores_higher_and_is_found_in_any_pose(plain):
    before, (cloud, where) = plain.score(turned(vessel(50)[0], 1)), vessel(51, bump=1.0)
    after = plain.score(turned(cloud, 2))
    assert after.object > before.object + 1
    assert after.point[where].mean() > after.point[~where].mean() + 1


def test_normal_clouds_score_about_zero_because_scales_are_held_out(plain):
    """Mean 0 and deviation 1 of both parts on clouds that the banks have not seen; their mean deviates less."""
    point = plain.score(vessel(60)[0]).point
    assert abs(float(point.mean())) < 0.5 and 0.3 < float(point.std()) < 1.5


def test_parts_of_the_score_are_those_of_the_formula(plain):
    cloud = vessel(51, bump=1.0)[0]
    part = plain.prepared(cloud)
    model, scales = plain._known("vessel")
    relative, local = plain._local(model, part)
    place = (plain._place(model, part) - scales.place_mean) / scales.place_scale
    inside = plain._inside(model, part) / scales.inside_scale
    assert torch.isclose(inside * scales.inside_scale, torch.cdist(part.inside[None], model.inside).min())
    whole = ((relative.max() ** 2 + inside**2).sqrt() - scales.local_mean) / scales.local_scale
    found = plain.score(cloud)
    assert found.object == pytest.approx(float(0.5 * whole + 0.5 * place.max()), rel=1e-4)
    nearest = torch.cdist(part.place, model.place).amin(1)
    near_neighbours = torch.cdist(part.pos, part.pos).topk(plain.smooth, largest=False).indices
    assert torch.allclose(plain._place(model, part), nearest[near_neighbours].mean(1), atol=1e-4)
    described = (local - scales.local_mean) / scales.local_scale / 2 + place / 2
    away, row = torch.cdist(cloud.pos[:200], part.pos).min(1)
    at_points = found.point[:200][away < 1e-3]  # where a point is a described one, it has its score
    assert torch.allclose(at_points, described[row[away < 1e-3]], atol=0.05)


def test_global_vector_sees_what_is_inside_and_weighs_in_the_object_score_only(plain):
    normal, tilted = (plain.prepared(c) for c in (vessel(50)[0], vessel(52, rib=0.5)[0]))
    model, _ = plain._known("vessel")
    assert plain._inside(model, tilted) > 1.3 * plain._inside(model, normal)
    without = ISMP(**SMALL, inside_weight=0.0)
    without.load_state(plain.state())
    a, b = plain.score(vessel(52, rib=0.5)[0]), without.score(vessel(52, rib=0.5)[0])
    assert a.object > b.object and torch.equal(a.point, b.point)


def test_carried_points_follow_the_cloud():
    cloud = turned(vessel(0)[0], 5)
    placed = unit_sphere(turned(cloud, 6).pos)
    assert torch.allclose(_carried(cloud.pos, cloud.pos, placed), placed, atol=1e-4)


def test_filter_of_the_first_task_stays_and_banks_share_the_budget():
    first = trained([vessel(seed)[0] for seed in range(2)], policy="quota", budget="300KB")
    kept, scale = first.kept_, first.scale_
    trained([vessel(seed, bump=3.0, name="other")[0] for seed in range(2)], first)
    assert torch.equal(first.kept_, kept) and torch.equal(first.scale_, scale)
    assert first.bank_.keys() == first.places_.keys() == first.calibration_.keys() == {"vessel", "other"}
    assert 250_000 < bank_bytes(first.bank_) + bank_bytes(first.places_) <= 300_000
    replaced = trained([vessel(0)[0]], policy="overwrite", budget="300KB")
    trained([vessel(0, name="other")[0]], replaced)
    assert replaced.bank_.keys() == replaced.places_.keys() == replaced.insides_.keys() == {"other"}
    unseen = vessel(3, name="unseen")[0]
    assert first.score(unseen).check(unseen).point.std() > 0


def test_state_round_trip(plain, tmp_path):
    torch.save(plain.state(), tmp_path / "state.pt")
    other = ISMP(**SMALL)
    other.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    cloud = vessel(51, bump=1.0)[0]
    assert torch.equal(other.score(cloud).point, plain.score(cloud).point)


def test_wrong_hyperparameters():
    for options in ({"groups": 0}, {"frame": "x"}, {"slice_axis": 3}, {"place_weight": 1.5}, {"feature_filter": "x"}):
        with pytest.raises(HyperparameterError):
            ISMP(**options)
