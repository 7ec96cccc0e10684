import pytest
import torch

from strategies.reg3dad import Reg3DAD
from tests.strategies.test_patchcore import part
from toolkit.errors import HyperparameterError
from toolkit.nn.bank import bank_bytes
from toolkit.stream import CloudList

QUICK = {"voxel": 0.03, "groups": 150, "group_size": 24, "layers": (-1, 0)}


def trained(clouds, **options):
    strategy = Reg3DAD(**{**QUICK, **options})
    strategy.meet(clouds)
    strategy.fit(CloudList("x", range(len(clouds)), lambda i: strategy.prepared(clouds[i]), [0] * len(clouds)))
    return strategy


@pytest.fixture(scope="module")
def clouds():
    return [part(seed, turned=True)[0] for seed in range(3)]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_bump_scores_higher_than_its_normal_twin_by_either_bank_and_by_both(clouds, weight):
    strategy = trained(clouds, token_weight=weight)
    normal, (dented, where) = part(50, turned=True)[0], part(50, bump=0.2, turned=True)
    before, after = strategy.score(normal).check(normal), strategy.score(dented).check(dented)
    assert after.object > before.object + 1
    assert after.point[where].mean() > after.point[~where].mean() + 1


def test_coordinates_are_plain_distances_to_the_registered_training_clouds(clouds):
    strategy = trained(clouds, token_weight=0.0, smooth=1, spread=1, bank_size=0)
    described = strategy.prepared(part(9, turned=True)[0])
    every = torch.cat([strategy.prepared(c).place for c in clouds])
    naive = torch.stack([(every - place).norm(dim=1).min() for place in described.place])
    banks = {name: bank["part"] for name, bank in strategy.banks_.items()}
    assert torch.allclose(strategy._distances(banks, described)[:, 0], naive, atol=1e-5)
    assert naive.mean() < 0.02  # of the template's radius: registration did its work
    assert described.token.shape == (150, 2 * 192)


def test_fusion_is_calibrated_on_clouds_that_the_banks_have_not_seen(clouds):
    strategy = trained(clouds)
    held = trained(clouds[1:])  # the banks that score the first training cloud
    held.templates_, held.scales_ = strategy.templates_, strategy.scales_
    parts = [strategy.prepared(c) for c in clouds]
    scores = []
    for left_out in range(3):
        banks = strategy._rows_of([p for i, p in enumerate(parts) if i != left_out])
        scores.append(strategy._distances(banks, parts[left_out]))
    every = torch.cat(scores).double()
    for column, (centre, scale) in enumerate(strategy.calibration_["part"]):
        assert centre == pytest.approx(float(every[:, column].mean()), rel=1e-4)
        assert scale == pytest.approx(float(every[:, column].std()), rel=1e-4)


def test_scores_of_one_cloud_do_not_depend_on_others(clouds):
    """No test statistics: scoring other clouds before changes nothing."""
    strategy = trained(clouds)
    cloud = part(9)[0]
    alone = strategy.score(cloud)
    strategy.score(part(50, bump=0.3)[0])
    assert torch.equal(strategy.score(cloud).point, alone.point)


def test_one_budget_for_both_banks_under_every_policy(clouds):
    for policy in ("fixed", "quota", "overwrite"):
        strategy = trained(clouds, policy=policy, budget="60KB")
        size = sum(map(bank_bytes, strategy.banks_.values()))
        assert 57_000 < size <= 60_000
        assert bank_bytes(strategy.banks_["place"]) <= 6000
        assert strategy.score(part(9)[0]).point.std() > 0


def test_bank_of_tokens_depends_on_weights_and_restart_keeps_the_template(clouds):
    strategy = trained(clouds[:2])
    assert strategy.prepare_key(clouds[0]) != Reg3DAD(**QUICK, weights="random").prepare_key(clouds[0])
    template = strategy.templates_["part"]
    strategy.restart()
    assert strategy.templates_["part"] is template and strategy.calibration_ == {}


def test_wrong_hyperparameters():
    for options in ({"groups": 0}, {"token_weight": 1.5}, {"frame": "x"}, {"object_score": "reweighted", "lof": 0}):
        with pytest.raises(HyperparameterError):
            Reg3DAD(**options)
