"""What holds for every registered strategy. A new file in strategies/ is tested here without further ado."""

import inspect
from functools import cache

import pytest
import torch

from scenarios.class_incremental import ClassIncremental
from toolkit.cloud import PointCloud
from toolkit.data.synthetic import Synthetic
from toolkit.registry import entries
from toolkit.seeding import seeded
from toolkit.strategy import AnomalyStrategy, _argument_names
from toolkit.stream import build

QUICK = {"epochs": 2}
"""Arguments that keep trained methods without a preset "tiny" short."""


@cache
def dataset():
    return Synthetic(categories=["bolt", "bracket", "washer"], points=1200, train=2, test_normal=2, test_defective=2)


@cache
def stream():
    return build(ClassIncremental("bolt+washer|bracket"), dataset())


def create(entry, **more):
    cls = entry.load()
    quick = cls.presets.get("tiny", QUICK if cls.learns_by_gradient() else {})
    return cls(**{**quick, **more})


@cache
def trained(name):
    strategy = create(entries("strategy")[name])
    for experience in stream().train_stream:
        strategy.train(experience)
    strategy.model.eval()
    return strategy


def score(strategy, cloud):
    strategy.model.eval()
    with torch.no_grad(), seeded(0, "contract"):
        return strategy.score(cloud).check(cloud)


def some_clouds(count=2):
    return list(stream().test_stream[0].clouds.clouds()[:count])


strategies = pytest.mark.parametrize("entry", entries("strategy").values(), ids=lambda e: e.name)


@strategies
def test_constructor_is_keyword_only_documented_and_only_stores(entry):
    cls = entry.load()
    assert issubclass(cls, AnomalyStrategy) and entry.summary.endswith((".", ")"))
    own = inspect.signature(cls.__init__).parameters
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for n, p in own.items() if n != "self")
    documentation = "\n".join(inspect.getdoc(base) or "" for base in cls.__mro__ if issubclass(base, AnomalyStrategy))
    for name in _argument_names(cls):
        assert f"{name}:" in documentation, f"{name} is not documented"
    strategy = create(entry)
    assert set(strategy.arguments()) <= set(vars(strategy))
    assert all(hasattr(strategy, n) for n in cls.prepare_arguments)


@strategies
def test_file_says_where_the_method_comes_from(entry):
    cls = entry.load()
    text = inspect.getmodule(cls).__doc__
    assert text and len(text.splitlines()) >= 5
    assert cls.paper


@strategies
def test_scores_before_any_training_exist(entry):
    cloud = some_clouds(1)[0]
    score(create(entry), cloud)


@strategies
def test_scores_are_deterministic_finite_and_not_constant(entry):
    for cloud in some_clouds():
        first, second = score(trained(entry.name), cloud), score(trained(entry.name), cloud)
        assert torch.equal(first.point, second.point) and first.object == second.object
        assert first.point.std() > 0


@strategies
def test_state_round_trip_gives_equal_scores(entry, tmp_path):
    strategy = trained(entry.name)
    torch.save(strategy.state(), tmp_path / "state.pt")
    other = create(entry)
    other.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for cloud in some_clouds():
        a, b = score(strategy, cloud), score(other, cloud)
        assert torch.equal(a.point, b.point) and a.object == b.object


@strategies
def test_order_of_points_does_not_matter(entry):
    cloud = some_clouds(1)[0]
    turn = torch.randperm(len(cloud.pos), generator=torch.Generator().manual_seed(0))
    shuffled = cloud.clone_shallow()
    shuffled.pos = cloud.pos[turn]
    a, b = score(trained(entry.name), cloud), score(trained(entry.name), shuffled)
    # sampled points (farthest point sampling starts at the first) may differ, so agreement is statistical
    close = torch.corrcoef(torch.stack([a.point[turn], b.point]))[0, 1]
    assert close > 0.5


@strategies
def test_unseen_category_is_scored(entry):
    cloud = some_clouds(1)[0].clone_shallow()
    cloud.category = "never seen"
    score(trained(entry.name), cloud)


@strategies
def test_restart_forgets(entry):
    strategy = create(entry)
    cloud = some_clouds(1)[0]
    fresh = score(strategy, cloud)
    strategy.train(stream().train_stream[0])
    assert not torch.equal(score(strategy, cloud).point, fresh.point)
    strategy.restart()
    for name in strategy.survives_restart:
        if hasattr(strategy, name):
            delattr(strategy, name)
    clean = create(entry)
    strategy.load_state(clean.state())
    assert torch.equal(score(strategy, cloud).point, fresh.point)


@strategies
def test_tiny_cloud_is_an_error_of_ours_or_is_scored(entry):
    from toolkit.errors import Continual3DError

    cloud = PointCloud(torch.randn(3, 3), category="bolt", sample_id="tiny")
    try:
        score(trained(entry.name), cloud)
    except Continual3DError as error:
        assert "3" in str(error)


@pytest.mark.parametrize("entry", [e for e in entries("strategy").values() if e.load().learns_by_gradient()],
                         ids=lambda e: e.name)  # fmt: skip
def test_mixed_precision_trains_it(entry):
    """Training steps in bfloat16 end elsewhere than those in single precision, with parameters in single precision."""
    ends = []
    for precision in ("float32", "bf16"):
        strategy = create(entry)
        strategy.precision = precision
        strategy.train(stream().train_stream[1])
        ends.append(torch.cat([p.detach().flatten() for p in strategy.model.parameters()]))
        assert all(p.dtype == torch.float32 for p in strategy.model.parameters())
        assert score(strategy, some_clouds(1)[0]).point.dtype == torch.float32
    assert ends[1].isfinite().all() and not torch.equal(*ends)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("entry", [e for e in entries("strategy").values() if e.load().learns_by_gradient()],
                         ids=lambda e: e.name)  # fmt: skip
def test_every_continual_mode_trains_it_and_its_state_comes_back(entry):
    for name, mode in entries("continual").items():
        strategy = create(entry, plugins=mode.load()().plugins(), epochs=1)
        for experience in stream().train_stream:
            strategy.train(experience)
        other = create(entry)
        other.load_state(strategy.state())
        cloud = some_clouds(1)[0]
        assert score(strategy, cloud).object == score(other, cloud).object, name
