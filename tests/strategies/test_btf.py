import resource

import open3d
import pytest
import torch

from scenarios.class_incremental import ClassIncremental
from strategies.btf import BTF
from toolkit.cloud import PointCloud
from toolkit.continual import Cumulative, FromScratch
from toolkit.data.synthetic import Synthetic
from toolkit.errors import HyperparameterError
from toolkit.nn.bank import bank_bytes
from toolkit.ops import normals
from toolkit.stream import CloudList, build


def ellipsoid(seed, points=3000, bump=0.0, category="egg"):
    """A random scan; with a bump around one place, whose points are the second value."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(points, 3, generator=generator), dim=1)
    pos = unit * torch.tensor([30.0, 20.0, 16.0])
    centre = torch.nn.functional.normalize(torch.tensor([0.3, 0.8, 0.5]), dim=0)
    strength = (-((unit - centre).norm(dim=1) / 0.12).square()).exp()
    pos = pos * (1 + bump * strength)[:, None]
    return PointCloud(pos, category=category, sample_id=f"{category}{seed}"), strength > 0.3


def trained(clouds, **options):
    strategy = BTF(**options)
    strategy.meet(clouds)
    strategy.fit(CloudList("x", range(len(clouds)), lambda i: strategy.prepared(clouds[i]), [0] * len(clouds)))
    return strategy


@pytest.fixture(scope="module")
def egg():
    return trained([ellipsoid(seed)[0] for seed in range(3)])


@pytest.fixture(scope="module")
def stream():
    parts = Synthetic(categories=["bolt", "bracket", "washer"], points=1200, train=2, test_normal=1, test_defective=1)
    clouds = {sample.sample_id: parts.load(sample) for sample in parts.samples}
    return build(ClassIncremental("even:3"), parts, load=lambda sample: clouds[sample.sample_id])


def test_a_bump_scores_higher_than_its_normal_twin(egg):
    normal, _ = ellipsoid(50)
    dented, where = ellipsoid(50, bump=0.08)
    before, after = egg.score(normal).check(normal), egg.score(dented).check(dented)
    assert after.object > 1.5 * before.object
    assert after.point[where].mean() > 2 * after.point[~where].mean()
    assert after.point[where].mean() > 2 * before.point[where].mean()


@pytest.mark.parametrize("options", [{"features": "raw"}, {"features": "both"}, {"lof": 0}, {"stride": 5}])
def test_variants_find_the_bump_as_well(options):
    strategy = trained([ellipsoid(seed)[0] for seed in range(3)], **options)
    dented, where = ellipsoid(50, bump=0.15)
    assert strategy.score(dented).object > strategy.score(ellipsoid(50)[0]).object
    point = strategy.score(dented).point
    assert point[where].mean() > point[~where].mean()


def test_pose_unit_and_order_of_points_do_not_matter_much(egg):
    cloud, _ = ellipsoid(50, bump=0.08)
    base = egg.score(cloud).point
    order = torch.randperm(len(base), generator=torch.Generator().manual_seed(0))
    shuffled = egg.score(PointCloud(cloud.pos[order], category="egg")).point
    assert torch.allclose(shuffled, base[order], rtol=1e-3, atol=1e-4)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    turn = turn * torch.linalg.det(turn)
    turned = egg.score(PointCloud(cloud.pos @ turn.t() + 100, category="egg")).point  # another grid, the same surface
    assert torch.corrcoef(torch.stack([base, turned]))[0, 1] > 0.8
    other = trained([PointCloud(ellipsoid(s)[0].pos / 32, category="egg") for s in range(3)])  # a power of 2 is exact
    assert torch.allclose(other.score(PointCloud(cloud.pos / 32, category="egg")).point, base, rtol=1e-3, atol=1e-4)


def test_published_settings_do_what_the_published_code_does():
    """Preset "paper": FPFH of every n-th point from the full cloud, plain 1-NN, copied to all points, re-weighted
    maximum; here with other strides, as the clouds are small."""
    clouds, (seen, _) = [ellipsoid(s, 1500)[0] for s in range(2)], ellipsoid(9, 1500, bump=0.1)
    strategy = trained(clouds, **{**BTF.of_preset("paper"), "voxel": 1.5, "stride": 7, "test_stride": 11})

    def plain(pos, step):
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(pos.double().numpy()))
        normal = normals(pos, k=30, radius=3.0)
        cloud.normals = open3d.utility.Vector3dVector(normal.double().numpy())
        search = open3d.geometry.KDTreeSearchParamHybrid(radius=7.5, max_nn=100)
        found = open3d.pipelines.registration.compute_fpfh_feature(cloud, search).data.T
        return torch.tensor(found, dtype=torch.float32)[::step]

    bank, query = torch.cat([plain(c.pos, 7) for c in clouds]), plain(seen.pos, 11)
    away = (query[:, None].double() - bank[None].double()).norm(dim=2)
    score, match = away.min(1)
    worst = score.argmax()
    around = (bank[match[worst]] - bank).norm(dim=1).argsort()[1:3]
    scale = 33**0.5
    weight = 1 - (score[worst] / scale).exp() / (away[worst, around] / scale).exp().sum()
    nearest = torch.cdist(seen.pos.double(), seen.pos[::11].double()).argmin(1)
    found = strategy.score(seen)
    assert torch.allclose(found.point.double(), score[nearest], atol=1e-3)
    assert found.object == pytest.approx(float(weight * score[worst]), rel=1e-4)
    # Sorting a cloud changes nothing: every n-th point of the file is meant.
    order = torch.randperm(len(seen.pos), generator=torch.Generator().manual_seed(0))
    placed = PointCloud(seen.pos[order], category="egg", file_order=order.int())
    assert torch.allclose(strategy.score(placed).point, found.point[order], atol=1e-3)


@pytest.mark.parametrize("policy", ["growing", "fixed", "quota", "overwrite"])
def test_three_tasks(stream, policy, tmp_path):
    strategy = BTF(policy=policy, budget="50kB", bank_size=400)
    cloud = stream.test_stream[0].clouds.clouds()[0]
    assert strategy.score(cloud).object == 0.0 and not strategy.score(cloud).point.any()
    sizes = []
    for experience in stream.train_stream:
        strategy.train(experience)
        sizes.append(bank_bytes(strategy.bank_))
        if policy != "growing":
            assert sizes[-1] <= 50_000
    assert sizes == ([54_400, 108_800, 163_200] if policy == "growing" else [367 * 136] * 3)
    assert list(strategy.bank_) == (["washer"] if policy == "overwrite" else ["bolt", "bracket", "washer"])

    torch.save(strategy.state(), tmp_path / "state.pt")
    other = BTF(policy=policy, budget="50kB", bank_size=400)
    other.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.score(cloud).point, strategy.score(cloud).point)
    strategy.restart()
    assert not strategy.score(cloud).point.any()


def test_training_is_deterministic(stream):
    first, second = BTF(selection="coreset", bank_size=200, seed=3), BTF(selection="coreset", bank_size=200, seed=3)
    for strategy in (first, second):
        strategy.train(stream.train_stream[0])
    assert torch.equal(first.bank_["bolt"], second.bank_["bolt"])
    other = BTF(selection="coreset", bank_size=200, seed=4)
    other.train(stream.train_stream[0])
    assert not torch.equal(first.bank_["bolt"], other.bank_["bolt"])


def test_continual_modes_for_banks(stream):
    growing, cumulative, scratch = (BTF(plugins=p) for p in ([], Cumulative().plugins(), FromScratch().plugins()))
    for strategy in (growing, cumulative, scratch):
        for experience in list(stream.train_stream)[:2]:
            strategy.train(experience)
    assert list(scratch.bank_) == ["bracket"]
    assert growing.bank_.keys() == cumulative.bank_.keys()
    assert all(torch.equal(growing.bank_[c], cumulative.bank_[c]) for c in growing.bank_)


def test_unseen_category_is_looked_up_in_the_whole_bank(stream):
    own, shared = BTF(), BTF(per_category=False)
    for strategy in (own, shared):
        strategy.train(list(stream.train_stream)[:2])
    washer = stream.test_stream[2].clouds.clouds()[0]
    assert torch.equal(own.score(washer).point, shared.score(washer).point)
    bolt = stream.test_stream[0].clouds.clouds()[0]
    assert not torch.equal(own.score(bolt).point, shared.score(bolt).point)


def test_a_dense_cloud_costs_little_more_than_a_thin_one(egg):
    dense, where = ellipsoid(60, points=200_000, bump=0.08)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = egg.score(dense).check(dense)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 600  # MB; 200,000^2 would be 160,000
    assert found.point[where].mean() > 2 * found.point[~where].mean()
    described = egg.prepared(dense)
    assert described.pos.shape[0] == described.feature.shape[0] < 20_000 and described.feature.shape[1] == 33


def test_wrong_hyperparameters():
    for options in ({"features": "rgb"}, {"fpfh_k": 1}, {"stride": -1}, {"normal_radius": 0.0}):
        with pytest.raises(HyperparameterError):
            BTF(**options)


def test_better_than_chance_on_real_scans(scans):
    from sklearn.metrics import roc_auc_score

    from toolkit.data.anomaly_shapenet import AnomalyShapeNet

    parts = AnomalyShapeNet(root=str(scans))
    strategy = trained([parts.load(s) for s in parts.select(category="banana0", split="train")])
    tested = [parts.load(s) for s in parts.select(category="banana0", split="test")[::2]]
    maps = [strategy.score(cloud.unlabelled()) for cloud in tested]
    assert roc_auc_score([c.y for c in tested], [m.object for m in maps]) > 0.9
    label = torch.cat([c.point_y.bool() if "point_y" in c else torch.zeros(len(c.pos), dtype=bool) for c in tested])
    assert roc_auc_score(label, torch.cat([m.point for m in maps])) > 0.9
