"""What holds for every registered scenario."""

import json
from dataclasses import replace

import numpy as np
import pytest
from avalanche.benchmarks import CLStream

from tests.runs.test_runner import Bomb, Interrupted
from tests.toys import Toy, ToyBank, ToyNet, ToyOpenSet
from toolkit.cloud import PointCloud
from toolkit.data.base import Sample
from toolkit.errors import LeakError
from toolkit.registry import entries, resolve
from toolkit.runs.runner import run
from toolkit.runs.spec import Part, RunSpec
from toolkit.scenario import Task, check_leaks
from toolkit.stream import build

OPTIONS = {"OpenSet": {"known": "dent", "shots": 1}, "DefectIncremental": {"known": "dent", "shots": 1},
           "OpenWorld": {"known": "dent", "shots": 1, "split": "even:2"}, "ClassIncremental": {"split": "even:2"},
           "DomainIncremental": {"domains": "original+sparse+one_sided"}}  # fmt: skip
NAMES = list(entries("scenario"))


def scenario_of(name, **more):
    return resolve("scenario", name)(**{**OPTIONS.get(name, {}), **more})


def go(scenario, strategy_class, output, loggers=(), dataset=None):
    dataset, continual = dataset or Toy(), resolve("continual", "Naive")()
    strategy = strategy_class()
    method = Part(strategy_class.__name__, strategy.arguments())
    stream = Part(type(scenario).__name__, scenario.arguments())
    spec = RunSpec(stream, Part("Toy"), method, Part("Naive"), 0, dataset.fingerprint())
    folder = run(spec, scenario, dataset, strategy, continual, output, loggers=loggers)
    return folder, strategy, json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_stream_is_a_pure_function_without_leaks(name):
    scenario, dataset = scenario_of(name), Toy()
    tasks = scenario.tasks(dataset)
    assert tasks == scenario.tasks(Toy())
    check_leaks(tasks)
    assert all(task.test for task in tasks)
    assert any(s.y for t in tasks for s in t.test) and any(not s.y for t in tasks for s in t.test)
    assert hash(scenario) == hash(scenario_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_test_clouds_say_nothing_of_their_labels(name):
    stream = build(scenario_of(name), Toy())
    for experience in stream.test_stream:
        for cloud in experience.clouds.clouds():
            text = repr(cloud.to_dict())
            assert "dent" not in text and "good" not in text
            assert not {"y", "point_y", "defect", "factors"} & set(cloud.keys())


class Cheat(ToyBank):
    """Looks for the label of the cloud it scores in all that it holds by public names, and notes what it found."""

    def score(self, cloud):
        if not hasattr(self, "radii_"):
            return super().score(cloud)
        self.found_ = [*getattr(self, "found_", []), *labels_within(self.experience), *labels_within(cloud),
                       *labels_within(self.plugins)]  # fmt: skip
        return super().score(cloud)


def labels_within(thing, depth=7, seen=None):
    """Test samples with a label, and names that give one away, that public attributes lead to."""
    seen = set() if seen is None else seen
    if depth == 0 or id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, Sample):
        return [thing] if thing.split == "test" and thing.y >= 0 else []
    if isinstance(thing, str):
        return [thing] if "/test/" in thing else []
    if isinstance(thing, PointCloud):
        kept = [thing] if {"y", "point_y", "defect"} & set(thing.keys()) and "/test/" in thing.sample_id else []
        return kept + labels_within(thing.sample_id, depth, seen)
    if isinstance(thing, dict):
        inner = list(thing.values())
    elif isinstance(thing, (list, tuple, set)):
        inner = list(thing)
    else:
        inner = [v for k, v in getattr(thing, "__dict__", {}).items() if not k.startswith("_") and not callable(v)]
        inner += [getattr(thing, k) for k in ("origin_stream", "dataset") if hasattr(thing, k)]
        inner += [e for e in [getattr(thing, "benchmark", None)] if e is not None]
        inner += list(thing.streams.values()) if isinstance(getattr(thing, "streams", None), dict) else []
        inner += list(thing) if isinstance(thing, CLStream) else []
    return [label for one in inner for label in labels_within(one, depth - 1, seen)]


@pytest.mark.parametrize("name", ["ClassIncremental", "OpenSet", "DefectIncremental"])
def test_a_cheat_finds_no_label(name, tmp_path):
    _, cheat, _ = go(scenario_of(name), Cheat, tmp_path)
    assert cheat.found_ == []


def test_the_cheat_would_find_labels_that_were_left():
    tasks = scenario_of("ClassIncremental").tasks(Toy())
    experience = build(tasks, Toy()).test_stream[0]
    assert labels_within(experience) == []
    experience.task = tasks[0]
    assert len(labels_within(experience)) == len(tasks[0].test)
    assert labels_within([Toy().load(tasks[0].test[0])])


def test_a_variant_may_be_withheld_in_one_experiment_and_given_in_the_next(tmp_path):
    class Three(Toy):
        def scan(self):
            return [replace(s, subcategory=s.category + s.sample_id[-1]) for s in super().scan()]

    scenario, dataset = scenario_of("IntraVariance", protocol="leave_one_out"), Three(categories=2)
    tasks = scenario.tasks(dataset)
    assert [t.name for t in tasks] == [f"{c} without {c}{i}" for c in "ab" for i in range(3)]
    assert build(scenario, dataset).train_stream[1].clouds.samples == list(tasks[1].train)
    with pytest.raises(LeakError, match="twice"):
        build(tasks, dataset)  # as one stream it would be a leak
    _, bank, result = go(scenario, Remembers, tmp_path, dataset=dataset)
    assert bank.templates_ == {"b": "b/train/good0"}  # of its own task alone, not of the first one that met the class
    assert len(result["tasks"]) == 6 and result["slices"]["new_variant"]["object_auroc"] is not None


class Remembers(ToyBank):
    """Keeps the first training cloud it meets of each class, as registration does."""

    def meet(self, clouds):
        self.templates_ = dict(getattr(self, "templates_", {}))
        for cloud in clouds:
            self.templates_.setdefault(cloud.category, cloud.sample_id)


@pytest.mark.parametrize("strategy_class", [ToyBank, ToyNet, ToyOpenSet])
@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_runs(name, strategy_class, tmp_path):
    _, _, result = go(scenario_of(name), strategy_class, tmp_path)
    assert np.isfinite(result["final"]["object_auroc"]) and np.isfinite(result["final"]["point_auroc"])
    for values in result["slices"].values():
        assert set(values["matrices"]) == {"object_auroc", "point_auroc"}


@pytest.mark.parametrize("name", ["OpenSet", "OpenWorld", "DomainIncremental"])
def test_resume_is_exact_in_other_scenarios(name, tmp_path):
    expected, _, _ = go(scenario_of(name), ToyNet, tmp_path / "whole")
    with pytest.raises(Interrupted):
        go(scenario_of(name), ToyNet, tmp_path / "cut", loggers=[Bomb(1)])
    resumed, _, _ = go(scenario_of(name), ToyNet, tmp_path / "cut")
    assert (resumed / "scores.parquet").read_bytes() == (expected / "scores.parquet").read_bytes()


def test_known_defects_reach_only_methods_that_use_them(tmp_path):
    scenario = scenario_of("OpenWorld")
    given = sum(s.y for t in scenario.tasks(Toy()) for s in t.train)
    assert given > 0
    _, user, _ = go(scenario, ToyOpenSet, tmp_path / "a")
    assert sum(y for _, y, _ in user.seen_) == given
    assert all((points > 0) == bool(y) for _, y, points in user.seen_)
    _, bank, _ = go(scenario, ToyBank, tmp_path / "b")
    assert bank.radii_.max() < 3 and len(bank.radii_) == sum(
        len(Toy().load(s).pos) for t in scenario.tasks(Toy()) for s in t.train if not s.y
    )


def test_a_copy_of_a_training_object_in_the_test_stream_is_refused():
    samples = Toy().samples
    train = next(s for s in samples if s.split == "train")
    twin = replace(train, split="test", sample_id="a/test/copy")
    with pytest.raises(LeakError, match="same object"):
        build([Task("t", (train,), (twin,))], Toy())
    with pytest.raises(LeakError, match="twice"):
        build([Task("t", (train,), ()), Task("u", (train,), ())], Toy())


def test_known_sample_counts_once_and_its_copies_leave_the_test_set():
    class Twins(Toy):
        def scan(self):
            copies = [replace(s, sample_id=s.sample_id + "_cut") for s in super().scan() if s.split == "test"]
            return [*super().scan(), *copies]

    dataset = Twins()
    task = scenario_of("OpenSet").tasks(dataset)[0]
    known = [s for s in task.train if s.y]
    assert len(known) == 1
    assert known[0].group_id not in {s.group_id for s in task.test}
    assert len(task.test) == 12 - 2


def test_slices_of_open_set_share_the_normals(tmp_path):
    class Types(Toy):
        def scan(self):
            return [replace(s, defect="bump") if s.sample_id.endswith("dent2") else s for s in super().scan()]

    scenario, dataset = scenario_of("OpenSet"), Types()
    tasks = scenario.tasks(dataset)
    known, unknown = scenario.slices(dataset, tasks)
    normals = [s for s in tasks[0].test if not s.y]
    assert all(known.keeps(s, 0) and unknown.keeps(s, 0) for s in normals)
    assert all(known.keeps(s, 0) != unknown.keeps(s, 0) for s in tasks[0].test if s.y)


def test_domains_change_the_cloud_and_keep_labels_aligned():
    from toolkit.domains import DOMAINS, apply_domain

    cloud = Toy(points=2000).load(next(s for s in Toy().samples if s.y))
    cloud.point_y = cloud.pos[:, 2] > 0.3
    for name in DOMAINS:
        changed = apply_domain(name, cloud, 1.0, "seed")
        again = apply_domain(name, cloud, 1.0, "seed")
        assert (changed.pos == again.pos).all() and len(changed.point_y) == len(changed.pos) > 50
        if name not in ("noisy", "rotated"):
            assert ((changed.pos[:, 2] > 0.3) == changed.point_y).all()
        still = apply_domain(name, cloud, 0.0, "seed")
        assert len(still.pos) == len(cloud.pos) and (still.pos - cloud.pos).abs().max() < 1e-6


def test_one_sided_hides_the_far_side_of_a_sphere():
    import torch

    from toolkit.domains import one_sided

    pos = torch.nn.functional.normalize(torch.randn(3000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    rows, seen = one_sided(pos, 1.0, torch.Generator().manual_seed(3))
    towards = seen.mean(0) / seen.mean(0).norm()
    assert 0.25 < len(rows) / len(pos) < 0.6
    assert (seen @ towards > -0.25).all()


def test_categories_are_inferred_from_shape_under_rotation():
    import torch

    from toolkit.identify import add_prototypes, nearest_category

    dataset = Toy(points=800)
    prototypes = add_prototypes({}, [dataset.load(s) for s in dataset.select(split="train")])
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))
    for sample in dataset.select(split="test"):
        cloud = dataset.load(sample)
        if sample.y:
            continue
        cloud.pos = cloud.pos @ turn
        found = nearest_category(prototypes, cloud)
        assert found in "abcd"
        expected = dataset.load(dataset.select(category=found, split="train")[0]).pos.std(0).sort().values
        assert torch.allclose(expected, cloud.pos.std(0).sort().values, atol=0.5)
