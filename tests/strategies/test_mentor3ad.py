import pytest
import torch

from strategies.mentor3ad import Mentor3AD
from toolkit.cloud import CloudBatch, PointCloud
from toolkit.data.mvtec3dad import MVTec3DAD
from toolkit.errors import CloudError, HyperparameterError
from toolkit.nn import mentor as parts
from toolkit.nn.dino import Dino

QUICK = dict(groups=250, group_size=24, samples=250, pairs=64, hidden=48, embed=24, mentor=8, layers=(0,), nearby=12,
             voxel=0.03, epochs=40, lr=3e-3)  # fmt: skip


def part(seed, bump=0.0, points=2500, stain=False):
    """A random scan of a body without symmetry, with a bump or a stain on one side; blue to red along x."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(points, 3, generator=generator), dim=1)
    x, y, z = unit.unbind(1)
    radius = 1 + 0.35 * x - 0.25 * y * z + 0.3 * (4 * x * y).sin() * z
    centre = torch.nn.functional.normalize(torch.tensor([0.3, 0.8, 0.5]), dim=0)
    strength = (-((unit - centre).norm(dim=1) / 0.2).square()).exp()
    pos = unit * torch.tensor([30.0, 20.0, 16.0]) * (radius * (1 + bump * strength))[:, None]
    rgb = torch.stack([(1 + x) / 2, torch.full_like(x, 0.4), (1 - x) / 2], 1)
    rgb = torch.where((strength > 0.3)[:, None] & stain, torch.tensor([0.0, 1.0, 0.0]), rgb)
    rgb = (rgb + 0.02 * torch.randn(rgb.shape, generator=generator)).clamp(0, 1)
    return PointCloud(pos, rgb=rgb, category="part", sample_id=f"part{seed}"), strength > 0.3


def trained(clouds, **options):
    """Train without Avalanche's loop: the same steps on the same clouds."""
    strategy = Mentor3AD(**{**QUICK, **options})
    strategy.meet(clouds)
    strategy._raw = clouds
    optimizer = torch.optim.AdamW(strategy.model.parameters(), strategy.lr)
    strategy.model.train()
    for _ in range(strategy.epochs):
        batch = CloudBatch.collate([strategy.augment(strategy.prepared(c)) for c in clouds])
        loss = strategy.loss_of(strategy.model(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    strategy.keep_voters(clouds)
    return strategy


@pytest.fixture(scope="module")
def clouds():
    return [part(seed)[0] for seed in range(4)]


def test_a_bump_scores_higher_than_its_normal_twin(clouds):
    strategy = trained(clouds)
    normal, (dented, where) = strategy.score(part(50)[0]), part(50, bump=0.2)
    found = strategy.score(dented).check(dented)
    assert found.object > 1.3 * normal.object
    assert found.point[where].mean() > 2 * found.point[~where].mean()


def test_a_stain_shows_where_colour_is_a_view(clouds):
    strategy = trained(clouds, first="color", second="fpfh")
    stained, where = part(50, stain=True)
    found, normal = strategy.score(stained), strategy.score(part(50)[0])
    assert found.object > 1.5 * normal.object
    assert found.point[where].mean() > 3 * found.point[~where].mean()


def test_each_network_is_trained_without_its_held_out_clouds(clouds):
    strategy = Mentor3AD(**QUICK)
    strategy.meet(clouds)
    assert sorted(strategy.held_out_.values()) == [0, 0, 1, 1]
    alone = [c for c in clouds if strategy.held_out_[c.sample_id] == 0]
    batch = CloudBatch.collate([strategy.augment(strategy.prepared(c)) for c in alone])
    strategy.loss_of(strategy.model(batch)).backward()
    first, second = strategy.model.pairs
    assert all(p.grad is None for p in first.parameters()) and all(p.grad is not None for p in second.parameters())


def test_a_class_with_one_cloud_is_seen_by_both_networks(clouds):
    strategy = trained(clouds[:1], epochs=2)
    assert strategy.held_out_ == {"part0": 2} and strategy.voters_["part"].shape == (250, 6)
    assert strategy.score(part(9)[0]).point.std() > 0


def test_voters_of_the_training_clouds_come_from_the_network_that_has_not_seen_them(clouds):
    strategy = trained(clouds, epochs=2)
    described = strategy.prepared(clouds[0])
    with torch.no_grad():
        expected = strategy.model.voters(described, strategy.held_out_["part0"])
    assert torch.allclose(strategy.voters_["part"][:250, 3:], expected, atol=1e-6)
    assert torch.allclose(strategy.voters_["part"][:250, :3], described.placed)


def test_mentor_off_is_cfm_with_its_two_voters(clouds):
    strategy = trained(clouds, mentor=0, vote="product", statistics="global", epochs=3)
    assert {n.split(".")[2] for n, _ in strategy.model.named_parameters()} == {"to_first", "to_second"}
    assert strategy.voters_["part"].shape[1] == 3 + 2
    described = strategy.prepared(part(9)[0])
    rows = strategy.voters_["part"][:, 3:]
    with torch.no_grad():
        voters = torch.stack([strategy.model.voters(described, n) for n in range(2)]).mean(0)
        found = strategy.standardised_voters(described, "part")
    assert torch.allclose(found, (voters - rows.mean(0)) / rows.std(0), atol=1e-5)
    assert parts.vote(found, "product").shape == (250,)


def test_the_object_score_is_the_mean_of_the_highest_places(clouds):
    strategy = trained(clouds, epochs=2, smooth=1, top_share=0.1)
    cloud = part(9)[0]
    described = strategy.prepared(cloud)
    with torch.no_grad():
        place = parts.vote(strategy.standardised_voters(described, "part"), "mixed")
    assert strategy.score(cloud).object == pytest.approx(float(place.topk(25).values.mean()), rel=1e-5)


@pytest.mark.slow
def test_a_million_points(clouds):
    strategy = trained(clouds, epochs=2)
    many = part(3, points=1_000_000)[0]
    assert strategy.score(many).check(many).point.std() > 0


def test_dino_tokens_come_from_the_pixels_of_the_places(tmp_path):
    torch.manual_seed(0)
    model = Dino(dim=64, depth=1, patch=8, grid=4)
    torch.save(model.state_dict(), tmp_path / "dino.pth")
    side = 48
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pos = torch.stack([column, row, 3 * (column / 9.0).sin() + row / 7], -1).flatten(0, 1).float()
    rgb = torch.zeros(side * side, 3)
    rgb[:, 0] = (column.flatten() > 23).float()
    cloud = PointCloud(pos, rgb=rgb, category="sheet", sample_id="s", pixel=torch.arange(side * side),
                       image_height=side, image_width=side)  # fmt: skip
    strategy = Mentor3AD(**{**QUICK, "first": "dino", "second": "fpfh", "dino": str(tmp_path / "dino.pth")})
    strategy.meet([cloud])
    found = strategy.prepared(cloud)
    assert found.first.shape == (250, 64)
    left, right = found.pos[:, 0] < 16, found.pos[:, 0] > 32
    apart = (found.first[left].mean(0) - found.first[right].mean(0)).norm()
    assert apart > 3 * found.first[left].std(0).norm()
    with pytest.raises(CloudError, match="images"):
        strategy.prepare(part(0)[0])


def test_wrong_hyperparameters(clouds):
    wrong = ({"first": "fpfh", "second": "fpfh"}, {"first": "dino"}, {"mentor_dropout": 1.0}, {"vote": "x"},
             {"pairs": 1}, {"groups": 0})  # fmt: skip
    for options in wrong:
        with pytest.raises(HyperparameterError):
            Mentor3AD(**{**QUICK, **options})
    strategy = Mentor3AD(**{**QUICK, "first": "color"})
    bare = PointCloud(clouds[0].pos, category="part", sample_id="bare")
    with pytest.raises(CloudError, match="no colours"):
        strategy.prepare(bare)


@pytest.mark.slow
def test_colour_and_shape_of_real_range_images(scans):
    """MVTec 3D-AD's cable gland: four training images and two of each kind to test, a check that it runs and points."""
    from sklearn.metrics import roc_auc_score

    data = MVTec3DAD(root=str(scans.parent / "mvtec3d_sample"), remove_background=True)
    strategy = trained([data.load(s) for s in data.select(split="train")], first="color", second="tokens", epochs=100)
    found = [(data.load(s), s) for s in data.select(split="test")]
    maps = [(cloud, strategy.score(cloud.unlabelled())) for cloud, _ in found]
    point = roc_auc_score(torch.cat([c.point_y for c, _ in maps]).bool(), torch.cat([m.point for _, m in maps]))
    assert point > 0.6
