"""Sparse convolution against dense conv3d, rulebooks against dictionaries."""

import itertools

import pytest
import torch

from toolkit.errors import CloudError, HyperparameterError
from toolkit.nn.sparse_conv import SparseConv, down_map, same_map, sparse_conv, voxelise


def some_voxels(count=60, seed=0, clouds=2):
    g = torch.Generator().manual_seed(seed)
    pos = torch.rand(count, 3, generator=g) * 6 - 3
    return voxelise(pos, torch.arange(count) % clouds, 1.0)[0]


def dense(value, cell):
    """(B, C, 8, 8, 8) grid whose index 4 is coordinate 0."""
    grid = value.new_zeros(int(cell[:, 0].max()) + 1, 8, 8, 8, value.shape[1])
    places = (cell[:, 0], *(cell[:, 1:] + 4).t())
    return grid.index_put(places, value).permute(0, 4, 1, 2, 3), places


def read(grid, places):
    return grid.permute(0, 2, 3, 4, 1)[places]


def gradients(result, inputs, seed=1):
    weight = torch.randn(result.shape, dtype=result.dtype, generator=torch.Generator().manual_seed(seed))
    return torch.autograd.grad((result * weight).sum(), inputs)


def random(*shape):
    g = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.double, generator=g).requires_grad_()


@pytest.mark.parametrize("channels,out", [(2, 5), (5, 2)], ids=["spread", "collect"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_equals_conv3d_with_gradients(kernel, channels, out):
    cell = some_voxels()
    value, weight = random(len(cell), channels), random(kernel**3, channels, out)
    ours = sparse_conv(value, weight, same_map(cell, kernel))
    grid, places = dense(value, cell)
    filters = weight.view(kernel, kernel, kernel, channels, out).permute(4, 3, 0, 1, 2)
    theirs = read(torch.nn.functional.conv3d(grid, filters, padding=kernel // 2), places)
    assert torch.allclose(ours, theirs)
    for a, b in zip(gradients(ours, (value, weight)), gradients(theirs, (value, weight))):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("channels,out", [(2, 5), (5, 2)], ids=["spread", "collect"])
def test_stride_2_and_its_transpose_equal_dense_ones(channels, out):
    cell = some_voxels()
    coarse, halved = down_map(cell)
    value, weight = random(len(cell), channels), random(8, channels, out)
    filters = weight.view(2, 2, 2, channels, out)
    grid, places = dense(value, cell)
    places_coarse = (coarse[:, 0], *(coarse[:, 1:] + 2).t())

    ours = sparse_conv(value, weight, halved)
    theirs = read(torch.nn.functional.conv3d(grid, filters.permute(4, 3, 0, 1, 2), stride=2), places_coarse)
    assert torch.allclose(ours, theirs)
    for a, b in zip(gradients(ours, (value, weight)), gradients(theirs, (value, weight))):
        assert torch.allclose(a, b)

    small = random(len(coarse), channels)
    grid = small.new_zeros(2, 4, 4, 4, channels).index_put(places_coarse, small).permute(0, 4, 1, 2, 3)
    ours = sparse_conv(small, weight, halved.transposed)
    theirs = read(torch.nn.functional.conv_transpose3d(grid, filters.permute(3, 4, 0, 1, 2), stride=2), places)
    assert torch.allclose(ours, theirs)
    for a, b in zip(gradients(ours, (small, weight)), gradients(theirs, (small, weight))):
        assert torch.allclose(a, b)


def test_second_derivatives_exist():
    cell = some_voxels(12)
    assert torch.autograd.gradgradcheck(lambda v, w: sparse_conv(v, w, same_map(cell, 3)),
                                        (random(len(cell), 2), random(27, 2, 2)))  # fmt: skip


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_rulebook_equals_a_dictionary_of_cells(kernel):
    cell = some_voxels(200, seed=3, clouds=3)
    rows = {tuple(c): i for i, c in enumerate(cell.tolist())}
    radius = kernel // 2
    steps = list(itertools.product(range(-radius, radius + 1), repeat=3))
    wanted = [[rows.get((b, x + i, y + j, z + k), len(rows)) for i, j, k in steps] for b, x, y, z in cell.tolist()]
    found = same_map(cell, kernel)
    assert found.index.tolist() == wanted
    there = [(m, k, n) for m, row in enumerate(wanted) for k, n in enumerate(row) if n < len(rows)]
    assert sorted(there) == sorted((m, k, n) for n, row in enumerate(found.reverse.tolist())
                                   for k, m in enumerate(row) if m < len(rows))  # fmt: skip


def test_voxelise_orders_cells_and_finds_every_point():
    g = torch.Generator().manual_seed(0)
    pos, batch = torch.randn(500, 3, generator=g), torch.randint(3, (500,), generator=g)
    cell, row = voxelise(pos, batch, 0.3)
    assert cell.tolist() == sorted(cell.tolist()) and len({tuple(c) for c in cell.tolist()}) == len(cell)
    assert torch.equal(cell[row], torch.cat([batch[:, None], (pos / 0.3).floor().long()], 1))
    coarse, halved = down_map(cell)
    assert [tuple(c) for c in coarse.tolist()] == sorted({(b, x // 2, y // 2, z // 2) for b, x, y, z in cell.tolist()})
    assert int((halved.index < len(cell)).sum()) == len(cell)


def test_clouds_of_a_batch_do_not_touch():
    one, both = some_voxels(40, clouds=1), some_voxels(80, seed=2, clouds=1)
    both = torch.cat([one, both + torch.tensor([1, 0, 0, 0])])
    conv = SparseConv(3, 4, 3)
    value = torch.randn(len(both), 3)
    together = conv(value, same_map(both, 3))[: len(one)]
    assert torch.allclose(together, conv(value[: len(one)], same_map(one, 3)), atol=1e-6)


def test_outliers_and_even_kernels_are_refused():
    with pytest.raises(CloudError, match="voxels"):
        voxelise(torch.tensor([[0.0, 0, 0], [1e6, 0, 0]]), torch.zeros(2, dtype=torch.long), 1.0)
    with pytest.raises(HyperparameterError, match="odd"):
        same_map(some_voxels(5), 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees():
    cell, conv = some_voxels(), SparseConv(4, 4, 3)
    value = torch.randn(len(cell), 4)
    here = conv(value, same_map(cell, 3))
    there = conv.cuda()(value.cuda(), same_map(cell.cuda(), 3))
    assert torch.allclose(here, there.cpu(), atol=1e-5)
