"""The sparse U-Net: shapes, levels, gradients, what it must not depend on."""

import pytest
import torch

from toolkit.errors import HyperparameterError
from toolkit.nn.sparse_conv import voxelise
from toolkit.nn.sparse_unet import GatedSkip, SparseUNet, UNetSize

SMALL = UNetSize(4, 3, (4, 8), (1, 2), (8, 4), (1, 1), 6)


def sphere(count=400, seed=0, clouds=2):
    g = torch.Generator().manual_seed(seed)
    pos = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    return voxelise(pos, torch.arange(count) % clouds, 0.2)[0]


@pytest.mark.parametrize("gated", [False, True])
def test_every_parameter_gets_a_gradient(gated):
    cell = sphere()
    net = SparseUNet(3, SMALL, gated=gated)
    result = net(cell[:, 1:].float(), net.pyramid(cell))
    assert result.shape == (len(cell), 6)
    (result * torch.randn(result.shape)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_moving_a_cloud_by_whole_coarse_voxels_changes_nothing():
    cell = sphere()
    net = SparseUNet(3, SMALL).eval()
    value = torch.randn(len(cell), 3)
    moved = cell + torch.tensor([0, 4, -8, 12])
    with torch.no_grad():
        assert torch.allclose(net(value, net.pyramid(cell)), net(value, net.pyramid(moved)), atol=1e-5)


def test_clouds_of_a_batch_are_independent_in_eval_mode():
    cell = sphere()
    net, value = SparseUNet(3, SMALL, gated=True).eval(), torch.randn(len(cell), 3)
    alone = cell[:, 0] == 0
    with torch.no_grad():
        together = net(value, net.pyramid(cell))[alone]
        assert torch.allclose(together, net(value[alone], net.pyramid(cell[alone])), atol=1e-5)


def test_coarse_levels_carry_far():
    """A voxel 12 cells away is out of reach of the level-0 kernels (3 + 2 cells) but not of the coarser ones."""
    line = torch.stack([torch.zeros(40), torch.arange(40), torch.zeros(40), torch.zeros(40)], 1).long()
    net = SparseUNet(1, SMALL).eval()
    value = torch.randn(40, 1)
    other = value.clone()
    other[0] += 5
    with torch.no_grad():
        change = (net(value, net.pyramid(line)) - net(other, net.pyramid(line))).abs().amax(1)
    assert change[12] > 0


def test_gate_follows_its_formula():
    cell = sphere(60)
    skip, maps = GatedSkip(3, 5), SparseUNet(3, SMALL).pyramid(cell)
    encoder, decoder = torch.randn(len(cell), 3), torch.randn(len(cell), 5)
    renewed = skip.renew(decoder, maps.same[0])
    share = 1 / (1 + (-(renewed @ skip.gate.weight.t())).exp())
    wanted = share * (encoder @ skip.embed.weight.t()) + (1 - share) * renewed
    assert torch.allclose(skip(encoder, decoder, maps.same[0]), wanted, atol=1e-6)


def test_levels_must_match():
    with pytest.raises(HyperparameterError, match="levels"):
        UNetSize(4, 3, (4, 8), (1, 1), (8,), (1,), 4)
