import importlib
import itertools

import pytest
import torch

from tests.ops.clouds import bumpy, noise, rotation, shuffled
from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops import emd
from toolkit.ops.emd import matching

emd_module = importlib.import_module("toolkit.ops.emd")  # the package's attribute of that name is the function


def all_permutations(a, b, squared):
    distance = torch.cdist(a, b)
    distance = distance.square() if squared else distance
    rows = torch.arange(len(a))
    return min(float(distance[rows, list(order)].mean()) for order in itertools.permutations(range(len(b))))


@pytest.mark.parametrize("squared", [True, False])
def test_small_clouds_equal_the_best_of_all_permutations(squared):
    for seed in range(5):
        a, b = noise(6, 3, seed=seed), noise(6, 3, seed=50 + seed)
        assert emd(a, b, squared=squared).item() == pytest.approx(all_permutations(a, b, squared), rel=1e-5)


def test_closed_form():
    a, b = torch.tensor([[0.0, 0, 0], [10, 0, 0]]), torch.tensor([[10.0, 0, 2], [0, 3, 4]])
    assert emd(a, b).item() == pytest.approx((25 + 4) / 2)
    assert emd(a, b, squared=False).item() == pytest.approx((5 + 2) / 2)
    # Chamfer's distance sees nothing of how often a place is taken.
    twice = torch.tensor([[0.0, 0, 0], [0, 0, 0], [10, 0, 0]])
    assert emd(twice, torch.tensor([[0.0, 0, 0], [10, 0, 0], [10, 0, 0]])).item() == pytest.approx(100 / 3)


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("exact_up_to", [1024, 0])
def test_a_shifted_copy_is_matched_point_by_point(squared, exact_up_to):
    cloud, order = bumpy(600), shuffled(600)
    shift = torch.tensor([0.03, -0.02, 0.01])  # less than the spacing: each point's own copy is its partner
    value = emd(cloud[order] + shift, cloud, squared=squared, exact_up_to=exact_up_to, block=64)
    length = float(shift.norm())
    assert value.item() == pytest.approx(length**2 if squared else length, rel=1e-4)
    # Any uniform shift of the whole cloud is optimal for squared distances (the cross terms are the same for all).
    far = emd(cloud[order] + 40, cloud, exact_up_to=exact_up_to, block=64, sweeps=40)
    assert far.item() == pytest.approx(3 * 1600, rel=1e-3)


def clustered(count):
    centre = bumpy(count // 8, seed=3).repeat(8, 1)
    return centre + 0.2 * noise(count, 3, seed=4)


@pytest.mark.parametrize("name,bound", [("jittered", 0.03), ("resampled", 0.05), ("clustered", 0.06), ("apart", 0.005)])
def test_error_of_the_blockwise_matching(name, bound):
    """At 1,024 points in blocks of 128: eight blocks, as many as 2,048 points have by default."""
    target = bumpy(1024)
    source = {"jittered": target + 0.5 * noise(1024, 3), "resampled": bumpy(1024, seed=1),
              "clustered": clustered(1024), "apart": 0.5 * bumpy(1024, seed=1) + 15}[name]  # fmt: skip
    best = float(emd(source, target))
    found = [float(emd(source, target, exact_up_to=0, block=128, sweeps=s)) / best - 1 for s in (0, 12)]
    assert -1e-6 <= found[1] <= bound and found[1] < found[0]


def test_more_sweeps_are_never_worse_and_every_matching_is_a_permutation():
    a, b = bumpy(700, seed=1), bumpy(700)
    values = []
    for sweeps in range(5):
        match = matching(a, b, exact_up_to=0, block=50, sweeps=sweeps)
        assert torch.equal(match.sort().values, torch.arange(700))
        values.append(float((a - b[match]).square().sum(1).mean()))
    assert values == sorted(values, reverse=True) and values[4] < 0.9 * values[0]


@pytest.mark.parametrize("exact_up_to", [1024, 0])
@pytest.mark.parametrize("squared", [True, False])
def test_gradient_is_that_of_the_matched_pairs(squared, exact_up_to):
    a, b = bumpy(200).double().requires_grad_(), bumpy(200, seed=1).double().requires_grad_()
    match = matching(a, b, squared=squared, exact_up_to=exact_up_to, block=40)
    gap = a.detach() - b.detach()[match]
    slope = 2 * gap / 200 if squared else gap / gap.norm(dim=1, keepdim=True) / 200
    emd(a, b, squared=squared, exact_up_to=exact_up_to, block=40).backward()
    torch.testing.assert_close(a.grad, slope)
    torch.testing.assert_close(b.grad[match], -slope)


@pytest.mark.parametrize("squared", [True, False])
def test_equal_clouds_have_zero_distance_and_gradient(squared):
    cloud = bumpy(300)
    for exact_up_to in (1024, 0):
        moved = cloud[shuffled(300)].requires_grad_()
        value = emd(moved, cloud, squared=squared, exact_up_to=exact_up_to, block=300)
        value.backward()
        assert value.item() < 1e-15 and torch.equal(moved.grad, torch.zeros(300, 3))


def test_symmetric_and_rigid():
    a, b = bumpy(200), bumpy(200, seed=1)
    base = emd(a, b)
    torch.testing.assert_close(emd(b, a), base)
    turn = rotation(5)
    turned = emd(a.double() @ turn.t() + 3, b.double() @ turn.t() + 3)
    torch.testing.assert_close(turned.float(), base, rtol=1e-4, atol=0)
    torch.testing.assert_close(emd(10 * a, 10 * b), 100 * base, rtol=1e-4, atol=0)


def test_batch_is_cloud_by_cloud():
    a, b, ptr = noise(30, 3), noise(30, 3, seed=1), torch.tensor([0, 4, 20, 30])
    expected = [emd(a[i:j], b[i:j]) for i, j in itertools.pairwise(ptr.tolist())]
    assert torch.equal(emd(a, b, ptr_a=ptr, ptr_b=ptr), torch.stack(expected))


def test_no_block_is_larger_than_asked_for(monkeypatch):
    """What is held at a time is the matrix of one block."""
    sizes = []
    exact = emd_module._exact
    monkeypatch.setattr(emd_module, "_exact", lambda a, b, squared: sizes.append(len(a)) or exact(a, b, squared))
    assert float(emd(bumpy(3000, seed=1), bumpy(3000), block=50, sweeps=2)) > 0
    assert max(sizes) <= 50 and sum(sizes) == 3 * 3000


def test_bad_input():
    with pytest.raises(CloudError, match="one to one"):
        emd(torch.zeros(3, 3), torch.zeros(2, 3))
    with pytest.raises(CloudError, match="at least 1"):
        emd(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(CloudError, match="NaN"):
        emd(torch.full((2, 3), torch.nan), torch.zeros(2, 3))
    with pytest.raises(CloudError, match="neither"):
        emd(torch.zeros(2, 3), torch.zeros(2, 3), ptr_a=torch.tensor([0, 2]))
    with pytest.raises(CloudError, match="1 clouds on one side but 2"):
        emd(torch.zeros(2, 3), torch.zeros(2, 3), ptr_a=torch.tensor([0, 2]), ptr_b=torch.tensor([0, 1, 2]))
    with pytest.raises(HyperparameterError, match="block"):
        emd(torch.zeros(2, 3), torch.zeros(2, 3), block=1)


@pytest.mark.gpu
def test_on_cuda(cuda, cloud):
    other = bumpy(600, seed=4)
    for exact_up_to in (1024, 0):
        there = emd(cloud.to(cuda), other.to(cuda), exact_up_to=exact_up_to)
        torch.testing.assert_close(there.cpu(), emd(cloud, other, exact_up_to=exact_up_to))
