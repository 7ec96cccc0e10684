import pytest
import torch

from toolkit.nn.apprentice import Apprentice
from toolkit.ops import knn


def setting(groups=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(groups, 3, generator=generator)
    near = knn(pos, pos, 5)[0][:, 1:]
    edges = torch.stack([near.flatten(), torch.arange(groups).repeat_interleave(4)])
    return torch.randn(groups, 12, 3, generator=generator), pos, edges


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Apprentice(10, (8, 8, 16), frequencies=6)


def test_order_of_points_in_a_group_does_not_matter_and_groups_may_be_renumbered(net):
    patch, pos, edges = setting()
    with torch.no_grad():
        plain = net(patch, pos, edges)
        assert plain.shape == (30, 10)
        assert torch.allclose(net(patch.flip(1), pos, edges), plain, atol=1e-5)
        order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
        number = order.argsort()
        assert torch.allclose(net(patch[order], pos[order], number[edges]), plain[order], atol=1e-5)


def test_answers_depend_on_points_place_and_neighbours_within_reach_only(net):
    patch, pos, edges = setting()
    with torch.no_grad():
        plain = net(patch, pos, edges)
        changed = patch.clone()
        changed[7] += 1
        moved = (net(changed, pos, edges) - plain).abs().amax(1) > 1e-5
        reached = torch.zeros(30, dtype=torch.bool)
        reached[7] = True
        for _ in range(3):  # one step along the edges per block
            reached[edges[1][reached[edges[0]]]] = True
        assert moved[7] and moved.sum() > 1 and not (moved & ~reached).any()
        assert not torch.allclose(net(patch, pos + 0.1, edges), plain)


def test_blocks_agree_with_a_loop_over_edges(net):
    edges = setting()[2]
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(3))
    block = net.blocks[0]
    with torch.no_grad():
        found = block(x, edges)
        for i in range(30):
            sent = [block.nn(torch.cat([x[i], x[j] - x[i]])[None]) for j in edges[0][edges[1] == i]]
            assert torch.allclose(found[i], torch.cat(sent).amax(0), atol=1e-5)


def test_gradients_reach_every_parameter(net):
    net(*setting()).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
