import copy
import pickle
import sys

import pytest
import torch

from tests.ops.clouds import bumpy, noise, rotation, shuffled
from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops import knn
from toolkit.ops.knn import Neighbours
from toolkit.ops.morton import morton_order


def naive(pos, query, k):
    """(Q, k) ascending float64 distances."""
    return (query.double()[:, None] - pos.double()[None]).square().sum(2).sqrt().sort(1)[0][:, :k]


def check(pos, query, k):
    index, distance = knn(pos, query, k)
    assert index.shape == distance.shape == (len(query), k)
    assert index.dtype == torch.long and distance.dtype == torch.float32
    torch.testing.assert_close(distance.double(), naive(pos, query, k), rtol=1e-5, atol=1e-5)
    measured = (pos[index].double() - query[:, None].double()).square().sum(2).sqrt()
    torch.testing.assert_close(distance.double(), measured, rtol=1e-5, atol=1e-5)
    assert all(len(row.unique()) == k for row in index)


@pytest.fixture(params=["pykdtree", "scipy"])
def engine(request, monkeypatch):
    if request.param == "scipy":
        monkeypatch.setitem(sys.modules, "pykdtree.kdtree", None)


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 9, 64])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_equals_brute_force(engine, dim, k):
    check(noise(300, dim), noise(70, dim, seed=1), k)


def test_far_from_the_origin_keeps_its_digits(engine):
    pos = (noise(200, 3) + 1000).double()
    distance = knn(pos.float(), pos.float(), 2)[1]
    torch.testing.assert_close(distance[:, 0], torch.zeros(200))
    check(pos.float(), pos.float(), 4)


def test_large_cloud_in_z_order_gives_the_same(monkeypatch):
    pos, query = bumpy(3000), bumpy(2000, seed=1)
    index, distance = knn(pos, query, 8)
    monkeypatch.setattr(sys.modules["toolkit.ops.knn"], "_SORT_FROM", 1)
    again, away = knn(pos, query, 8)
    assert torch.equal(index, again) and torch.equal(distance, away)


@pytest.mark.parametrize("kind", ["surface", "few places", "line", "one place"])
def test_few_queries_in_a_large_cloud(kind):
    pos = bumpy(40_000)
    pos = {"surface": pos, "few places": pos[:7][torch.arange(40_000) % 7], "line": pos * torch.tensor([1.0, 0, 0]),
           "one place": pos[:1].expand(40_000, 3)}[kind].contiguous()  # fmt: skip
    check(pos, pos[::4000] + 0.1, 5)


@pytest.mark.parametrize("dim", [3, 20])
def test_a_cloud_that_is_searched_many_times(engine, dim):
    pos = noise(300, dim)
    search = Neighbours(pos)
    for kept in (search, pickle.loads(pickle.dumps(search)), copy.deepcopy(search)):
        for count, k in ((70, 5), (1, 1), (0, 2), (300, 1)):
            for mine, theirs in zip(kept.find(noise(count, dim, seed=1), k), knn(pos, noise(count, dim, seed=1), k)):
                assert torch.equal(mine, theirs) and mine.dtype == theirs.dtype
    for query, k in ((noise(3, dim), 301), (noise(3, dim) * torch.inf, 1), (noise(3, dim + 1), 1)):
        with pytest.raises(CloudError):
            search.find(query, k)


def test_duplicates(engine):
    pos = bumpy(40).repeat(6, 1)
    index, distance = knn(pos, pos[:40], 6)
    assert torch.equal(distance, torch.zeros(40, 6))
    assert torch.equal(index.sort(1)[0] % 40, torch.arange(40)[:, None].expand(40, 6))
    check(torch.zeros(50, 3), torch.zeros(2, 3), 50)


def test_collinear_and_one_point(engine):
    line = torch.arange(50.0)[:, None] * torch.tensor([1.0, 2, 2])
    index, distance = knn(line, line[20:21], 3)
    assert set(index[0].tolist()) == {19, 20, 21}
    assert distance[0].tolist() == [0, 3, 3]
    index, distance = knn(torch.ones(1, 3), torch.zeros(1, 3), 1)
    assert index.tolist() == [[0]] and distance.item() == pytest.approx(3**0.5)


def test_rotation_and_permutation(cloud):
    index, distance = knn(cloud, cloud, 5)
    turned = cloud.double() @ rotation().t()
    again, away = knn(turned, turned, 5)
    assert torch.equal(index, again)
    torch.testing.assert_close(distance, away, rtol=1e-5, atol=1e-5)
    order = shuffled(len(cloud))
    again, away = knn(cloud[order], cloud, 5)
    assert torch.equal(order[again], index)


def test_no_queries():
    index, distance = knn(torch.zeros(3, 3), torch.zeros(0, 3), 2)
    assert index.shape == distance.shape == (0, 2)


def test_bad_input():
    with pytest.raises(CloudError, match="k = 4 neighbours asked of 3 points"):
        knn(torch.zeros(3, 3), torch.zeros(1, 3), 4)
    with pytest.raises(CloudError, match="3 dimensions but queries have 2"):
        knn(torch.zeros(3, 3), torch.zeros(1, 2), 1)
    with pytest.raises(HyperparameterError):
        knn(torch.zeros(3, 3), torch.zeros(1, 3), 0)
    with pytest.raises(CloudError, match="infinite"):
        knn(torch.full((3, 3), torch.inf), torch.zeros(1, 3), 1)


def test_tiles_give_the_same():
    """The way taken on a GPU."""
    pos, query = bumpy(500), bumpy(300, seed=1)
    index, distance = knn(pos, query, 6)
    tiled, away = sys.modules["toolkit.ops.knn"]._tiled(pos, query, 6)
    assert torch.equal(index, tiled)
    torch.testing.assert_close(distance, away)


@pytest.mark.gpu
def test_on_cuda(cuda):
    pos = bumpy(5000)
    index, distance = knn(pos.to(cuda), pos.to(cuda), 8)
    expected = knn(pos, pos, 8)[1]
    assert index.is_cuda
    torch.testing.assert_close(distance.cpu(), expected, rtol=1e-5, atol=1e-5)


def test_morton_order_is_a_permutation_that_keeps_neighbours_together():
    pos = bumpy(4000)
    order = morton_order(pos)
    assert torch.equal(order.sort()[0], torch.arange(4000))
    step = (pos[order][1:] - pos[order][:-1]).norm(dim=1).mean()
    assert step < 0.15 * (pos[1:] - pos[:-1]).norm(dim=1).mean()


def test_morton_order_of_a_grid_follows_the_definition():
    corner = torch.tensor([[x, y, z] for x in range(4) for y in range(4) for z in range(4)])
    corner = torch.cat([corner, torch.tensor([[2**20 - 1] * 3])])  # makes one cell one unit

    def code(x, y, z):
        return sum(((c >> bit) & 1) << (3 * bit + axis) for axis, c in enumerate((x, y, z)) for bit in range(20))

    codes = torch.tensor([code(*c) for c in corner.tolist()])
    assert torch.equal(morton_order(corner.double()), codes.argsort())


def test_morton_order_keeps_the_order_of_points_that_coincide():
    assert morton_order(torch.ones(7, 3)).tolist() == list(range(7))
    assert morton_order(torch.ones(1, 3)).tolist() == [0]
    pos = bumpy(50).repeat(2, 1)
    order = morton_order(pos)
    assert torch.equal(order[0::2] + 50, order[1::2])
