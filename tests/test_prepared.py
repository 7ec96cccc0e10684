"""Prepared clouds are kept: an epoch reads no file whose preparation is at hand."""

import torch

from scenarios.class_incremental import ClassIncremental
from tests.toys import Toy, ToyNet
from toolkit.cloud import PointCloud
from toolkit.prepared import Memory
from toolkit.stream import build


class Counted(Toy):
    """Counts what is read."""

    def load(self, sample):
        self.read = [*getattr(self, "read", []), sample.sample_id]
        return super().load(sample)


class Kept(ToyNet):
    """Its preparation depends on something it has learned of the class."""

    factor = 1.0

    def prepare_key(self, cloud):
        return f"{cloud.category} {self.factor}"

    def prepare(self, cloud):
        prepared = super().prepare(cloud)
        prepared.pos = prepared.pos * self.factor
        return prepared


def first_task(dataset):
    return build(ClassIncremental("even:1"), dataset).train_stream[0]


def test_an_epoch_reads_no_cloud_again():
    counts = []
    for epochs in (1, 7):
        dataset = Counted(categories=1)
        Kept(epochs=epochs).train(first_task(dataset))
        counts.append(len(dataset.read))
    assert counts[0] == counts[1]


def test_what_comes_again_is_the_same_with_its_facts():
    strategy = Kept()
    prepared = strategy.prepared_experience(first_task(Toy(categories=1))).clouds
    for sample in prepared.samples:
        first, again = prepared.load(sample), prepared.load(sample)
        assert torch.equal(first.pos, again.pos) and torch.equal(first.point_y, again.point_y)
        for name in ("category", "sample_id", "group_id", "subcategory", "y"):
            assert first[name] == again[name]


def test_it_is_prepared_anew_when_its_key_changes_or_memory_is_gone():
    strategy, dataset = Kept(), Counted(categories=1)
    prepared = strategy.prepared_experience(first_task(dataset)).clouds
    sample = prepared.samples[0]
    once = prepared.load(sample)
    strategy.factor = 3.0
    assert torch.allclose(prepared.load(sample).pos, 3 * once.pos)
    strategy._memory.clear()
    before = len(dataset.read)
    assert torch.allclose(prepared.load(sample).pos, 3 * once.pos)
    assert len(dataset.read) == before + 1


def test_memory_forgets_what_was_not_used_for_longest():
    clouds = {name: PointCloud(torch.zeros(10, 3)) for name in "abcd"}
    memory = Memory(limit=3 * clouds["a"].nbytes())
    for name in "abc":
        memory.put(name, clouds[name])
    assert memory.get("a") is clouds["a"]
    memory.put("d", clouds["d"])
    assert memory.get("b") is None and all(memory.get(name) is clouds[name] for name in "acd")
    large = PointCloud(torch.zeros(1000, 3))
    memory.put("large", large)
    assert memory.get("large") is large and memory.get("d") is None and memory.bytes == large.nbytes()
    memory.clear()
    assert memory.get("large") is None and memory.bytes == 0
