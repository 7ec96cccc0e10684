"""The on-disk store: content keys, concurrent writers, damage, size limit, speed."""

import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.data.miniatures import anomaly_shapenet, ball
from toolkit.cloud import AnomalyMap
from toolkit.data.anomaly_shapenet import AnomalyShapeNet
from toolkit.data.base import CloudDataset, Sample
from toolkit.data.files import write_labels, write_pcd
from toolkit.errors import CloudError, OutputError
from toolkit.store import Store, cached_load, default_folder, key_of
from toolkit.strategy import AnomalyStrategy
from toolkit.zorder import SORT_FROM, in_file_order, in_z_order

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def test_round_trip_of_every_kind_of_tensor(store):
    base = torch.arange(24, dtype=torch.float32)
    entry = {
        "pos": torch.randn(7, 3),
        "mask": torch.tensor([True, False]),
        "none": torch.empty(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "transposed": base.reshape(4, 6).t(),
        "part": base[3:9],
        "same": base[3:9],
        "array": np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::-1],
        "read_only": np.broadcast_to(np.float32(1), (2, 2)),
    }
    key = key_of("x")
    assert store.get(key) is None
    store.put(key, entry)
    got = store.get(key)
    assert got.keys() == entry.keys()
    for name, value in entry.items():
        want = torch.as_tensor(np.array(value)) if isinstance(value, np.ndarray) else value
        assert torch.equal(got[name], want) and got[name].dtype == want.dtype, name


def test_changing_a_tensor_leaves_the_file_alone(store):
    key = key_of("x")
    store.put(key, {"a": torch.zeros(5000)})
    store.get(key)["a"].add_(1)
    assert store.get(key)["a"].sum() == 0


def test_entries_are_mapped_not_read(store):
    psutil = pytest.importorskip("psutil")
    key = key_of("big")
    store.put(key, {"a": torch.zeros(50_000_000, dtype=torch.uint8)})
    process = psutil.Process()
    before = process.memory_info().rss
    entry = store.get(key)
    assert process.memory_info().rss - before < 20_000_000
    assert entry["a"][-1] == 0


def test_keys_tell_all_values_apart():
    values = [
        *(None, True, False, 0, 1, 1.0, -0.0, 0.0, "1", b"1", "", [], (), {}, [1], (1,), [[1]], [1, [1]]),
        *("ab", ["a", "b"], {"a": 1}, {"a": 1, "b": 2}, [("a", 1)], {"a": "b"}, float("nan")),
        *(np.zeros(3), np.zeros(3, np.float32), np.zeros((3, 1)), np.array(0.0), np.arange(3.0), torch.ones(3)),
    ]
    keys = [key_of(value) for value in values]
    assert len(set(keys)) == len(keys)
    assert key_of("a", "b") != key_of("ab") != key_of(("a", "b"), ())
    assert all(len(key) == 40 for key in keys)


def test_equal_contents_have_equal_keys():
    assert key_of({"a": 1, "b": [2.0]}) == key_of({"b": [2.0], "a": 1})
    assert key_of(torch.arange(6.0).reshape(2, 3).t()) == key_of(
        np.ascontiguousarray(np.arange(6.0, dtype="f4").reshape(2, 3).T)
    )
    assert key_of(Path("a/b")) == key_of("a/b")
    sample = Sample("a", "train", "a/0", "a/0", 0)
    assert (
        key_of(sample) == key_of(Sample("a", "train", "a/0", "a/0", 0)) != key_of(Sample("a", "test", "a/0", "a/0", 0))
    )
    with pytest.raises(TypeError, match="got object"):
        key_of(object())
    with pytest.raises(TypeError, match="arrays of objects"):
        key_of(np.array([None]))


def test_get_or_make_makes_once(store):
    calls = []

    def make():
        calls.append(1)
        return {"a": np.ones(3)}

    for _ in range(3):
        assert store.get_or_make(key_of("y"), make)["a"].tolist() == [1, 1, 1]
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["half", "empty", "noise", "header"])
def test_damaged_entry_is_logged_and_made_again(store, caplog, damage):
    key = key_of("z")
    store.put(key, {"a": torch.arange(1000)})
    path = store.path(key)
    data = path.read_bytes()
    path.write_bytes(
        {"half": data[: len(data) // 2], "empty": b"", "noise": b"\xff" * 100, "header": data[:12]}[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert store.get_or_make(key, lambda: {"a": torch.arange(1000)})["a"][-1] == 999
    assert str(path) in caplog.text and "damaged" in caplog.text
    assert store.get(key)["a"][-1] == 999


def test_a_store_that_cannot_be_written(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    store = Store(blocked / "cache")
    with pytest.raises(OutputError, match="CONTINUAL3D_CACHE"):
        store.put(key_of(1), {"a": torch.ones(1)})
    with caplog.at_level(logging.WARNING):
        assert store.get_or_make(key_of(1), lambda: {"a": torch.ones(1)})["a"].item() == 1
    assert "could not be written" in caplog.text


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_a_read_only_store_still_reads(store):
    key = key_of(1)
    store.put(key, {"a": torch.ones(1)})
    store.path(key).chmod(0o400)
    store.path(key).parent.chmod(0o500)
    assert store.get(key)["a"].item() == 1


def test_least_recently_used_entries_go_first(tmp_path):
    store = Store(tmp_path, max_bytes=10 * 10_100)
    keys = [key_of(i) for i in range(9)]
    for i, key in enumerate(keys):
        store.put(key, {"a": torch.zeros(10_000, dtype=torch.uint8)})
        os.utime(store.path(key), (i + 1, i + 1))
    store.get(keys[0])  # used just now
    for i in range(9, 12):
        store.put(key_of(i), {"a": torch.zeros(10_000, dtype=torch.uint8)})
    assert store.nbytes() <= store.max_bytes
    assert store.get(keys[0]) is not None and store.get(key_of(11)) is not None
    assert store.get(keys[1]) is None and store.get(keys[2]) is None
    store.clear()
    assert store.nbytes() == 0 and store.get(keys[0]) is None


def test_abandoned_temporary_files_are_removed(store):
    store.put(key_of(1), {"a": torch.ones(1)})
    folder = store.path(key_of(1)).parent
    old, young = folder / ".old.1.tmp", folder / ".young.2.tmp"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    store.clear()
    assert not old.exists() and young.exists()


def _fill(folder, worker, rounds, failures):
    torch.set_num_threads(1)
    store = Store(folder, max_bytes=400_000)
    rng = np.random.default_rng(worker)
    for _ in range(rounds):
        number = int(rng.integers(0, 20))
        value = store.get_or_make(key_of("shared", number), lambda n=number: {"a": torch.full((5000,), float(n))})["a"]
        if not bool((value == number).all()):
            failures.put((worker, number))


def test_several_processes_fill_one_store(tmp_path):
    """Twenty keys of 20 kB in a store of 400 kB: written, read and evicted by three processes at once."""
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    failures = context.Queue()
    workers = [context.Process(target=_fill, args=(tmp_path, i, 150, failures)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert failures.empty()
    store = Store(tmp_path)
    assert 0 < store.nbytes() <= 400_000 + 3 * 40_000
    assert not list(tmp_path.glob("??/.*.tmp"))


def test_an_entry_removed_while_it_is_opened_is_missing(store, monkeypatch, caplog):
    """safetensors opens the file twice; between the two another process may have removed it."""
    key = key_of(1)
    store.put(key, {"a": torch.ones(3)})
    from_file = torch.UntypedStorage.from_file

    def late(filename, *args, **kwargs):
        Path(filename).unlink()
        return from_file(filename, *args, **kwargs)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", late)
    assert store.get(key) is None and not caplog.records
    monkeypatch.undo()
    assert torch.equal(store.get_or_make(key, lambda: {"a": torch.full((3,), 2.0)})["a"], torch.full((3,), 2.0))


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CONTINUAL3D_CACHE", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here" == Store().folder
    monkeypatch.delenv("CONTINUAL3D_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "continual3d"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert default_folder() == tmp_path / "local" / "continual3d"


# --- parsed clouds -----------------------------------------------------------------------------------------------


def same(a, b):
    a, b = a.to_dict(), b.to_dict()
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name], name


def test_cached_cloud_is_the_loaded_cloud(tmp_path, store, monkeypatch):
    dataset = AnomalyShapeNet(root=str(anomaly_shapenet(tmp_path / "data")))
    fresh = [dataset.load(sample) for sample in dataset.samples]
    for _ in range(2):
        for sample, cloud in zip(dataset.samples, fresh):
            same(cached_load(dataset, sample, store), cloud)
    monkeypatch.setattr(AnomalyShapeNet, "load", lambda *_: pytest.fail("parsed again"))
    same(cached_load(dataset, dataset.samples[0], store), fresh[0])
    with pytest.raises(pytest.fail.Exception):
        cached_load(dataset, dataset.samples[0], None)


def test_a_changed_source_file_is_noticed(tmp_path, store):
    dataset = AnomalyShapeNet(root=str(anomaly_shapenet(tmp_path / "data")))
    sample = next(s for s in dataset.samples if s.y)
    before = cached_load(dataset, sample, store)
    cloud_file, label_file = dataset.files(sample)
    write_labels(label_file, before.pos.numpy(), 1 - before.point_y.numpy().astype(int))
    after = cached_load(dataset, sample, store)
    assert torch.equal(after.point_y, ~before.point_y)
    label_file.unlink()
    with pytest.raises(CloudError, match="does not exist"):
        cached_load(dataset, sample, store)
    normal = next(s for s in dataset.samples if not s.y)
    cached_load(dataset, normal, store)
    write_pcd(dataset.files(normal)[0], ball(77))
    assert np.array_equal(cached_load(dataset, normal, store).pos.numpy(), ball(77))
    assert cloud_file.exists()


def test_another_version_or_option_is_another_entry(tmp_path, store, monkeypatch):
    dataset = AnomalyShapeNet(root=str(anomaly_shapenet(tmp_path / "data")))
    sample = dataset.samples[0]
    cached_load(dataset, sample, store)
    size = store.nbytes()
    monkeypatch.setattr(AnomalyShapeNet, "version", 2)
    cached_load(dataset, sample, store)
    assert store.nbytes() == 2 * size
    dataset.options = {"folder": "new_pcd"}
    cached_load(dataset, sample, store)
    assert store.nbytes() == 3 * size


def test_datasets_without_files_are_known_by_their_fingerprint(store):
    class Made(CloudDataset):
        made = 0
        seed = 0

        def scan(self):
            return [Sample("a", "train", "a/0", "a/0", 0)]

        def load(self, sample):
            from toolkit.cloud import PointCloud

            Made.made += 1
            return PointCloud(torch.from_numpy(ball(self.seed)), category="a", sample_id="a/0", y=0)

        def fingerprint(self):
            return str(self.seed)

    dataset = Made()
    for _ in range(2):
        cached_load(dataset, dataset.samples[0], store)
    assert Made.made == 1
    dataset.seed = 1
    assert np.array_equal(cached_load(dataset, dataset.samples[0], store).pos.numpy(), ball(1))


class Large(CloudDataset):
    """Clouds of 40,000 points in random order and one small one; points left of the middle are marked defective."""

    sizes = {"train/0": 40_000, "test/0": 40_000, "test/1": 500}

    def scan(self):
        return [Sample("a", name.split("/")[0], f"a/{name}", f"a/{name}", int(name == "test/0")) for name in self.sizes]

    def load(self, sample):
        from toolkit.cloud import PointCloud

        pos = torch.from_numpy(ball(len(sample.sample_id), self.sizes[sample.sample_id[2:]]))
        point_y = (pos[:, 0] < 0) & bool(sample.y)
        return PointCloud(pos, category="a", sample_id=sample.sample_id, y=sample.y, point_y=point_y,
                          serial=torch.arange(len(pos)), other=torch.ones(3))  # fmt: skip

    def fingerprint(self):
        return "large"


@pytest.mark.parametrize("cached", [True, False])
def test_large_clouds_come_sorted_with_the_way_back(store, cached):
    dataset = Large()
    for sample in dataset.samples:
        plain = dataset.load(sample)
        for _ in range(2):  # made, then read
            cloud = cached_load(dataset, sample, store if cached else None)
            if len(plain.pos) < SORT_FROM:
                same(cloud, plain)
                continue
            assert not torch.equal(cloud.pos, plain.pos)
            step, before = ((c.pos[1:] - c.pos[:-1]).norm(dim=1).mean() for c in (cloud, plain))
            assert step < before / 20  # neighbours in the list are neighbours in space
            for name in ("pos", "point_y", "serial"):
                assert torch.equal(in_file_order(cloud, cloud[name]), plain[name]), name
                assert torch.equal(cloud[name], plain[name][cloud.file_order.long()]), name
            assert torch.equal(cloud.other, plain.other)
            assert in_z_order(cloud) is cloud


def test_points_left_out_keep_their_order():
    cloud = in_z_order(Large().load(Large().samples[-1]))
    rows = torch.randperm(len(cloud.pos), generator=torch.Generator().manual_seed(0))[:1000]
    part = cloud.clone_shallow()
    part.pos, part.serial, part.file_order = cloud.pos[rows], cloud.serial[rows], cloud.file_order[rows]
    assert torch.equal(in_file_order(part, part.serial), part.serial.sort().values)


class Numbered(AnomalyStrategy):
    """Scores a point by its x coordinate, and keeps the order in which it was given them."""

    def fit(self, clouds):
        pass

    def score(self, cloud):
        self.seen = cloud.pos
        return AnomalyMap(-cloud.pos[:, 0].contiguous(), float(cloud.pos.shape[0]))


def test_scores_are_in_the_order_of_the_file_whatever_order_the_strategy_saw(tmp_path, store):
    """The whole way: cache, stream, strategy, ledger, stored point scores and point metrics; then a single cloud."""
    from safetensors.torch import load_file

    from scenarios.class_incremental import ClassIncremental
    from toolkit.continual import Naive
    from toolkit.runs.load import score_cloud
    from toolkit.runs.runner import run
    from toolkit.runs.spec import Part, RunSpec

    dataset, strategy, scenario = Large(), Numbered(store=store), ClassIncremental("even:1")
    spec = RunSpec(Part("ClassIncremental", scenario.arguments()), Part("Large"), Part("Numbered"), Part("Naive"), 0,
                   dataset.fingerprint(), save_point_scores=True)  # fmt: skip
    folder = run(spec, scenario, dataset, strategy, Naive(), tmp_path / "runs", store=store)
    scores = load_file(folder / "point_scores" / "0.safetensors")
    for sample in dataset.select(split="test"):
        assert torch.equal(scores[sample.sample_id], -dataset.load(sample).pos[:, 0])
    metrics = pd.read_parquet(folder / "point_metrics.parquet")
    assert metrics["point_auroc"].iloc[-1] > 0.7  # labels and scores meet in one order: x decides over both
    large = dataset.load(dataset.select(split="test")[0]).unlabelled()
    assert torch.equal(score_cloud(strategy, large).point, -large.pos[:, 0])
    assert not torch.equal(strategy.seen, large.pos)


def test_second_read_is_twenty_times_faster_than_genfromtxt(tmp_path, store):
    root = anomaly_shapenet(tmp_path / "data")
    folder = root / "dataset" / "pcd" / "bottle0"
    pos = ball(0, 30_000)
    write_pcd(folder / "test" / "bottle0_bulge0.pcd", pos)
    write_labels(folder / "GT" / "bottle0_bulge0.txt", pos, np.arange(30_000) % 2)
    dataset = AnomalyShapeNet(root=str(root))
    sample = next(s for s in dataset.samples if s.sample_id.endswith("bottle0_bulge0"))
    cached_load(dataset, sample, store)
    slow = best_of(1, lambda: np.genfromtxt(folder / "GT" / "bottle0_bulge0.txt", delimiter=","))
    fast = best_of(5, lambda: cached_load(dataset, sample, store).pos.sum())
    assert slow > 20 * fast


def best_of(times, function):
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return min(taken)
