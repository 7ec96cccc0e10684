"""Down-Net and Up-Net: shapes, gradients, losses against loops, what an untrained net says."""

import math

import pytest
import torch

from tests.ops.clouds import noise
from toolkit.nn.down_up import DownUpNet, DownUpSize, UpNet, cosine_gap, repulsion

TINY = DownUpSize(16, 16, 1, 2, 0.1)


def inputs(batch=2, groups=20, size=6, expand=3, seed=0):
    axes = torch.linalg.qr(noise(batch, groups, 3, 3, seed=seed + 3))[0]
    return (0.05 * noise(batch, groups, size, 3, seed=seed), noise(batch, groups, 3, seed=seed + 1),
            0.05 * noise(batch, groups, expand, 3, seed=seed + 2), axes)  # fmt: skip


@pytest.mark.parametrize("anchored", [True, False])
def test_begins_with_what_is_expected(anchored):
    net = DownUpNet(TINY, 3, 0.05, anchored=anchored)
    patch, middle, start, frame = inputs()
    centre, dense = net(patch, middle, start, frame)
    assert centre.shape == (2, 20, 3) and dense.shape == (2, 60, 3)
    assert (centre - middle).norm(dim=-1).max() < 0.005
    assert (dense - (middle[:, :, None] + start).flatten(1, 2)).norm(dim=-1).max() < 0.01


@pytest.mark.parametrize("joint", [True, False])
def test_gradients_reach_every_weight_and_the_down_net_only_if_asked(joint):
    net = DownUpNet(TINY, 3, 0.05, joint=joint)
    net(*inputs())[1].square().sum().backward()
    reached = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {name for name, _ in net.up.named_parameters(prefix="up")} <= reached
    assert any(name.startswith("down.") for name in reached) == joint
    net.zero_grad()
    net(*inputs())[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.down.parameters())


def test_without_growing_points_move_with_their_centres():
    net = DownUpNet(TINY, 3, 0.05)
    torch.nn.init.normal_(net.down.centre[-1].weight)
    net.growing = False
    patch, middle, start, frame = inputs()
    centre, dense = net(patch, middle, start, frame)
    assert (centre - middle).norm(dim=-1).mean() > 0.005
    assert torch.allclose(dense, (centre[:, :, None] + start).flatten(1, 2), atol=1e-6)


def test_answers_turn_with_the_axes_of_the_patches():
    """The same patches seen in the same axes: only the direction of the answer in space changes."""
    net = DownUpNet(TINY, 3, 0.05)
    torch.nn.init.normal_(net.down.centre[-1].weight)
    patch, middle, start, frame = inputs()
    turn = torch.linalg.qr(noise(3, 3, seed=9))[0]
    first = net(patch, middle, start, frame)[0] - middle
    second = net(patch @ turn.t(), middle, start, turn @ frame)[0] - middle
    assert first.norm(dim=-1).mean() > 0.005
    assert torch.allclose(first @ turn.t(), second, atol=1e-5)


def test_order_of_points_in_a_patch_does_not_matter():
    net = DownUpNet(TINY, 3, 0.05)
    torch.nn.init.normal_(net.down.centre[-1].weight)
    patch, middle, start, frame = inputs()
    first, second = net(patch, middle, start, frame)[0], net(patch.flip(2), middle, start, frame)[0]
    assert torch.allclose(first, second, atol=1e-6)
    assert not torch.allclose(first, net(2 * patch, middle, start, frame)[0], atol=1e-3)


def test_up_net_has_the_widths_of_the_figure():
    with torch.device("meta"):
        net = UpNet(3, 4, 1.0)
    shapes = [[tuple(p.shape) for p in branch.parameters() if p.dim() == 2] for branch in net.branch]
    assert shapes == [[(64, 3), (64, 64), (3, 64)], [(256, 128), (256, 256), (128, 256)],
                      [(512, 256), (512, 512), (256, 512)]]  # fmt: skip
    assert net.fuse[0][0].in_features == 384 and net.fuse[1][0].in_features == 131
    assert net.predict[-1].out_features == 12


def test_a_few_centres_are_enough():
    assert UpNet(3, 2, 0.1)(noise(4, 3), noise(4, 3)).shape == (4, 2, 3)


def test_cosine_gap_equals_a_loop():
    predicted, target = noise(30, 3), noise(30, 3, seed=1)
    target[:5] = 0.01
    gaps = []
    for p, t in zip(predicted.tolist(), target.tolist()):
        if math.dist(t, (0, 0, 0)) >= 0.05:
            gaps.append(1 - sum(a * b for a, b in zip(p, t)) / math.dist(p, (0, 0, 0)) / math.dist(t, (0, 0, 0)))
    assert len(gaps) == 25 and float(cosine_gap(predicted, target)) == pytest.approx(sum(gaps) / 25, rel=1e-5)
    assert float(cosine_gap(predicted, torch.zeros(30, 3))) == 0


def test_repulsion_equals_a_loop_and_pushes_apart():
    points = 0.1 * noise(25, 3)
    terms = []
    for i, p in enumerate(points.tolist()):
        for d in sorted(math.dist(p, q) / 0.04 for j, q in enumerate(points.tolist()) if j != i)[:4]:
            terms.append(max(0.0, 1.2 - d) * math.exp(-(d**2) / 0.25))
    assert float(repulsion(points, 0.04)) == pytest.approx(sum(terms) / 100, rel=1e-4)
    pair = torch.tensor([[0.0, 0, 0], [0.01, 0, 0]], requires_grad=True)
    repulsion(pair, 0.04).backward()
    assert pair.grad[0, 0] > 0 > pair.grad[1, 0]  # downhill is apart
    assert float(repulsion(torch.tensor([[0.0, 0, 0], [1, 0, 0]]), 0.04)) == 0
