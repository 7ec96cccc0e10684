import pytest
import torch

from strategies.btf import BTF
from strategies.patchcore import PatchCore
from toolkit.cloud import PointCloud
from toolkit.errors import HyperparameterError
from toolkit.ops import coreset
from toolkit.stream import CloudList

TOKENS = {"features": "point_mae", "weights": "random", "groups": 200, "group_size": 32}


def part(seed, bump=0.0, turned=False, points=2500):
    """A random scan of a body without symmetry, with a bump on one side, in a random pose if asked for."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(points, 3, generator=generator), dim=1)
    x, y, z = unit.unbind(1)
    radius = 1 + 0.35 * x - 0.25 * y * z + 0.3 * (4 * x * y).sin() * z
    centre = torch.nn.functional.normalize(torch.tensor([0.3, 0.8, 0.5]), dim=0)
    strength = (-((unit - centre).norm(dim=1) / 0.15).square()).exp()
    pos = unit * torch.tensor([30.0, 20.0, 16.0]) * (radius * (1 + bump * strength))[:, None]
    if turned:
        turn = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
        pos = pos @ (turn * torch.linalg.det(turn)).t() + 50 * torch.randn(3, generator=generator)
    return PointCloud(pos, category="part", sample_id=f"part{seed}"), strength > 0.3


def trained(clouds, **options):
    strategy = PatchCore(**options)
    strategy.meet(clouds)
    strategy.fit(CloudList("x", range(len(clouds)), lambda i: strategy.prepared(clouds[i]), [0] * len(clouds)))
    return strategy


@pytest.mark.parametrize("options", [{}, {"features": "raw+fpfh"}, TOKENS], ids=lambda o: o.get("features", "fpfh"))
def test_a_bump_scores_higher_than_its_normal_twin_in_any_pose(options, tmp_path):
    strategy = trained([part(seed, turned=True)[0] for seed in range(3)], **options)
    normal, (dented, where) = part(50, turned=True)[0], part(50, bump=0.15, turned=True)
    before, after = strategy.score(normal).check(normal), strategy.score(dented).check(dented)
    margin = 1.1 if options is TOKENS else 1.5  # random weights tell little
    assert after.object > (1.05 if options is TOKENS else 1.2) * before.object
    assert after.point[where].mean() > margin * after.point[~where].mean()

    torch.save(strategy.state(), tmp_path / "state.pt")
    other = PatchCore(**options)
    other.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.score(dented).point, after.point)


def test_bank_is_the_greedy_coreset_of_all_features():
    clouds = [part(seed)[0] for seed in range(2)]
    strategy = trained(clouds, bank_size=150, lof=0)
    every = torch.cat([strategy.prepared(cloud).feature for cloud in clouds])
    assert torch.equal(strategy.bank_["part"][:, :-1], every[coreset(every, 150, seed=0).sort().values])
    query = strategy.prepared(part(9)[0]).feature
    found = trained(clouds, bank_size=150, lof=0, smooth=1, spread=1).score(part(9)[0])
    farthest = torch.cdist(query, strategy.bank_["part"][:, :-1]).amin(1).max()
    assert float(found.point.max()) == pytest.approx(float(farthest), rel=1e-4)


def test_whole_bank_of_fpfh_is_btf():
    clouds = [part(seed)[0] for seed in range(2)]
    mine, theirs = trained(clouds, bank_size=0), BTF(bank_size=0)
    theirs.load_state(mine.state())
    assert torch.equal(mine.score(part(9)[0]).point, theirs.score(part(9)[0]).point)


def test_registration_makes_coordinates_comparable():
    clouds = [part(seed, turned=True)[0] for seed in range(3)]
    with_it, without = (trained(clouds, features="raw+fpfh", register=r) for r in (None, False))
    seen = with_it.prepared(part(50, turned=True)[0]).feature[:, 33:]
    bank = with_it.bank_["part"][:, 33:-1]
    voxel_weight = with_it.raw_weight
    assert torch.cdist(seen, bank).amin(1).max() < 2 * voxel_weight  # a neighbour within two voxels everywhere
    loose = without.prepared(part(50, turned=True)[0]).feature[:, 33:]
    assert torch.cdist(loose, without.bank_["part"][:, 33:-1]).amin(1).max() > 4 * voxel_weight
    assert with_it.templates_.keys() == {"part"} and not without.templates_


def test_template_is_that_of_the_first_task_and_survives_restart():
    strategy = trained([part(0)[0]], features="raw+fpfh")
    key, template = strategy.prepare_key(part(5)[0]), strategy.templates_["part"]
    strategy.meet([part(1, turned=True)[0]])
    strategy.restart()
    assert strategy.templates_["part"] is template and strategy.prepare_key(part(5)[0]) == key
    other = trained([part(1)[0]], features="raw+fpfh")
    assert other.prepare_key(part(5)[0]) != key


def test_tokens_depend_on_the_weights_and_not_on_the_pose():
    first, second = PatchCore(**TOKENS), PatchCore(**{**TOKENS, "seed": 1})
    cloud, other = part(0)[0], part(0)[0]
    assert first.prepare_key(cloud) != second.prepare_key(cloud)
    described = first.prepared(cloud)
    assert described.feature.shape == (200, 3 * 192) and torch.cdist(described.pos, cloud.pos).amin(1).max() < 2
    other.pos = cloud.pos + 1000  # the grid starts at the lowest corner, so it moves along
    assert torch.allclose(first.prepared(other).feature, described.feature, atol=0.02)


def test_few_points_give_few_tokens():
    strategy = trained([part(0, points=300)[0]], **{**TOKENS, "groups": 5000})
    found = strategy.score(part(1, points=250)[0])
    assert found.point.shape == (250,) and found.point.std() > 0


def test_wrong_hyperparameters():
    for options in ({"features": "rgb"}, {"groups": 0}, {"frame": "x"}, {"features": "point_mae", "backbone": "paper"}):
        with pytest.raises(HyperparameterError):
            PatchCore(**options)
