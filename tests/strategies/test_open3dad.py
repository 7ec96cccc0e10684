import pytest
import torch

from strategies.open3dad import Open3DAD, confusable_removed
from tests.strategies.test_patchcore import part
from toolkit.errors import HyperparameterError, LabelError
from toolkit.nn.bank import bank_bytes
from toolkit.stream import CloudList

QUICK = {"voxel": 0.03, "scales": (15, 30), "patches": 400, "patch_size": 6, "bank_size": 300}


def defective(seed, bump=0.2):
    cloud, where = part(seed, bump=bump)
    cloud.y, cloud.point_y, cloud.defect = 1, where, "bulge"
    return cloud


def trained(clouds, **options):
    strategy = Open3DAD(**{**QUICK, **options})
    strategy.meet(clouds)
    strategy.fit(CloudList("x", range(len(clouds)), lambda i: strategy.prepared(clouds[i]), [0] * len(clouds)))
    return strategy


def normals(count=3):
    return [part(seed)[0] for seed in range(count)]


def test_confusable_removed_by_hand():
    abnormal = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    normal = torch.tensor([[0.9], [1.1], [0.1], [1.2]])  # hit rows 1, 1, 0, 1
    assert confusable_removed(abnormal, normal, 1.0).flatten().tolist() == [5.0, 9.0]
    assert confusable_removed(abnormal, normal, 0.25).flatten().tolist() == [0.0, 5.0, 9.0]  # the one hit most
    assert confusable_removed(abnormal, normal, 0.0) is abnormal
    assert confusable_removed(abnormal[:0], normal, 1.0).shape == (0, 1)


def test_patches_of_known_defects_go_where_their_labels_say():
    known = defective(9)
    strategy = trained([*normals(), known], pseudo=0, cds=False, theta=0.4, bank_size=0, lof=0)
    described = strategy.prepared(known)
    share = strategy._abnormal_share(described)
    naive = []
    owner = torch.cdist(known.pos, described.grid).argmin(1)
    for patch in described.patch.long():
        naive.append(torch.stack([known.point_y[owner == row].float().mean() for row in patch]).mean())
    assert torch.allclose(share, torch.stack(naive), atol=1e-5)
    assert torch.equal(strategy.banks_["abnormal"]["part"][:, :-1], described.feature[share > 0.4])
    clean = int((share == 0).sum())
    assert strategy.banks_["normal"]["part"].shape[0] == 3 * 400 + clean and 0 < clean < 400


def test_pseudo_anomalies_fill_the_abnormal_bank_without_known_defects():
    assert trained(normals(), pseudo=0).banks_["abnormal"] == {}
    strategy = trained(normals(), pseudo=3, cds=False)
    changed, share = strategy._with_pseudo_anomalies(strategy.prepared(normals(1)[0]))
    assert strategy.banks_["abnormal"]["part"].shape[0] > 10
    assert 0.005 < (share > 0).float().mean() < 0.5
    away = (changed.grid - strategy.prepared(normals(1)[0]).grid).norm(dim=1)
    assert (away > 0).float().mean() < 0.1  # at most 3 of 64 parts moved


@pytest.mark.parametrize("options", [{}, {"lam": 0.0}, {"share_abnormal": True, "pseudo": 0}])
def test_a_bump_scores_higher_than_its_normal_twin(options):
    strategy = trained([*normals(), defective(9)], **options)
    normal, dented = part(50)[0], defective(50)
    after = strategy.score(dented.unlabelled()).check(dented)
    assert after.object > 1.2 * strategy.score(normal).object
    where = dented.point_y
    assert after.point[where].mean() > 1.5 * after.point[~where].mean()


def test_score_is_the_two_density_formula():
    strategy = trained([*normals(), defective(9)], lam=0.4, spread=1, object_score="max")
    cloud = part(50)[0]
    described, distance = strategy._both(cloud)
    (low_a, high_a), (low_r, high_r) = strategy.ranges_["part"]
    naive = []
    for away, near in distance.tolist():
        a, r = max((away - low_a) / (high_a - low_a), 0), min(max((near - low_r) / (high_r - low_r), 0), 1)
        naive.append(a * min(max(1 - 0.4 * r, 0), 1))
    assert strategy.score(cloud).object == pytest.approx(max(naive), rel=1e-4)
    assert described.feature.shape == (400, 66)


def test_ranges_come_from_training_normals_held_out():
    clouds = normals()
    strategy = trained(clouds, pseudo=0)
    parts = [strategy.prepared(c) for c in clouds]
    nothing = torch.zeros(0, 66)
    found = [strategy._distances(parts[i], strategy._normal_rows([p for j, p in enumerate(parts) if j != i]), nothing)
             for i in range(3)]  # fmt: skip
    every = torch.cat(found)[:, 0]
    assert strategy.ranges_["part"][0] == pytest.approx((float(every.min()), float(every.max())))


def test_transductive_scores_end_at_the_extremes_of_the_test_set():
    strategy = trained(normals(), transductive_min_max=True, lam=0.0, spread=1, object_score="max")
    test = [part(50)[0], defective(51).unlabelled()]
    strategy.dataloader = iter(test)
    objects = []
    strategy._after_eval_iteration = lambda **_: objects.append(strategy.mb_map.object)
    strategy.eval_epoch()
    assert max(objects) == pytest.approx(1.0) and strategy._test_ranges == {}
    with pytest.raises(HyperparameterError, match="classes"):
        Open3DAD(transductive_min_max=True, category_at_test="inferred")


def test_one_budget_for_both_banks():
    strategy = trained([*normals(), defective(9)], policy="quota", budget="40KB", pseudo=4)
    sizes = {name: bank_bytes(bank) for name, bank in strategy.banks_.items()}
    assert sum(sizes.values()) <= 40_000 and 0 < sizes["abnormal"] <= 10_000
    assert sum(sizes.values()) > 39_000 - 2 * 268


def test_known_defects_without_point_labels_and_wrong_hyperparameters():
    unlabelled = defective(9)
    del unlabelled["point_y"]
    with pytest.raises(LabelError, match="point labels"):
        trained([*normals(1), unlabelled])
    for options in ({"lam": 2.0}, {"scales": ()}, {"theta": -0.1}, {"object_score": "reweighted", "lof": 0}):
        with pytest.raises(HyperparameterError):
            Open3DAD(**options)
