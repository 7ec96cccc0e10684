import pytest
import torch

from strategies.dlf3ad import DLF3AD, FieldOutput
from tests.strategies.shapes import body, train_on
from toolkit.cloud import CloudBatch
from toolkit.defects.npg import KINDS
from toolkit.errors import HyperparameterError

QUICK = dict(resolutions=(4, 8, 16), channels=4, width=32, queries=1024, epochs=60, lr=1e-2)


@pytest.fixture(scope="module")
def trained():
    return train_on(DLF3AD(**QUICK), [body(seed)[0] for seed in range(3)])


def test_a_bump_scores_higher_than_its_normal_twin_in_any_pose(trained):
    normal, (dented, where) = body(50, turned=True)[0], body(50, bump=0.15, turned=True)
    before, after = trained.score(normal).check(normal), trained.score(dented).check(dented)
    assert after.object > 1.5 * before.object
    assert after.point[where].mean() > 2 * after.point[~where].mean()


def test_loss_against_a_loop():
    generator = torch.Generator().manual_seed(1)
    f, kind = torch.randn(60, generator=generator) * 0.05, torch.arange(60) % 4
    t = torch.where(kind == 0, torch.zeros(60), torch.randn(60, generator=generator).mul(0.05).clamp(-0.1, 0.1))
    slope = torch.rand(60, generator=generator) + 0.5
    strategy = DLF3AD(**QUICK, pull_push=0.3, eikonal=0.2, margin=0.03)
    fit, pull, push, even = [], [], [], []
    for value, target, which, s in zip(f.tolist(), t.tolist(), kind.tolist(), slope.tolist()):
        fit.append(abs(value - target))
        if KINDS[which] == "surface":
            pull.append(abs(value))
        if abs(target) > 0.03:
            push.append(max(0.0, 0.03 - abs(value)))
        if KINDS[which] == "uniform" and abs(target) < 0.1:
            even.append((s - 1) ** 2)
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    expected = mean(fit) + 0.3 * (mean(pull) + mean(push)) + 0.2 * mean(even)
    assert strategy.loss_of(FieldOutput(f[:, None], t, kind, slope)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("mode", ["field", "encoder"])
def test_gradients_reach_every_weight(mode):
    strategy = DLF3AD(mode=mode, eikonal=0.1, **{**QUICK, "resolutions": (2, 4)})
    cloud = body(0)[0]
    strategy.meet([cloud])
    batch = CloudBatch.collate([strategy.augment(strategy.prepared(cloud)) for _ in range(2)])
    strategy.loss_of(strategy.model(batch)).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in strategy.model.parameters())


def test_slope_is_the_length_of_the_gradient():
    strategy = DLF3AD(eikonal=0.1, **QUICK)
    cloud = body(0)[0]
    strategy.meet([cloud])
    batch = CloudBatch.collate([strategy.augment(strategy.prepared(cloud))])
    query = batch.pos.clone().requires_grad_()
    exact = torch.autograd.grad(strategy.model.field(query, cloud.category).sum(), query)[0].norm(dim=1)
    # differences and derivative part where a step crosses a cell's wall or a kink
    assert (strategy.model(batch).slope - exact).abs().median() < 1e-2 * exact.median()


def test_a_class_met_later_leaves_the_grids_of_the_first_alone(trained):
    strategy = DLF3AD(**{**QUICK, "epochs": 3})
    strategy.load_state(trained.state())
    kept = [g.detach().clone() for g in strategy.model.field.grids]
    other = body(7)[0]
    other.category = "another"
    train_on(strategy, [other], position=1)
    assert all(torch.equal(a, b) for a, b in zip(kept, strategy.model.field.grids))
    assert len(strategy.model.field.grids) == 2 * len(kept)
    other.category = "unknown"
    assert strategy.score(other).check(other).object > 0


def test_the_published_size():
    with torch.device("meta"):
        model = DLF3AD(**DLF3AD.of_preset("paper")).model
        model.field.add("a")
    assert 5.0e6 < sum(g.numel() for g in model.field.grids) < 5.1e6


def test_wrong_arguments():
    for wrong in ({"mode": "x"}, {"kinds": ("fog",)}, {"width": 0}):
        with pytest.raises(HyperparameterError):
            DLF3AD(**wrong)
