import pytest
import torch

from toolkit.nn.implicit import EDGE, CloudField, GridField, trilinear


def naive_trilinear(grid, place):
    """Value at one place of a (C, n, n, n) grid of nodes, by the definition."""
    cells = grid.shape[-1] - 1
    at = ((place / EDGE).clamp(-1, 1) + 1) / 2 * cells
    low = at.floor().long().clamp(max=cells - 1)
    part = at - low
    value = 0
    for dx in (0, 1):
        for dy in (0, 1):
            for dz in (0, 1):
                weight = 1.0
                for d, share in zip((dx, dy, dz), part):
                    weight = weight * (share if d else 1 - share)
                value = value + weight * grid[:, low[2] + dz, low[1] + dy, low[0] + dx]
    return value


def test_reading_a_grid_is_trilinear_interpolation_between_its_nodes():
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(1, 3, 5, 5, 5, generator=generator)
    query = (torch.rand(40, 3, generator=generator) - 0.5) * 2.6  # some beyond the walls
    expected = torch.stack([naive_trilinear(grid[0], q) for q in query])
    assert torch.allclose(trilinear(grid, query[None])[0], expected, atol=1e-5)


def test_values_of_cells_belong_to_their_centres():
    volume = torch.arange(8.0).view(1, 1, 2, 2, 2)
    centre = torch.tensor([[[EDGE / 2, -EDGE / 2, -EDGE / 2]]])  # x high, y and z low: index 1
    assert trilinear(volume, centre, nodes=False).item() == pytest.approx(1.0)


def test_a_class_has_grids_of_its_own_and_shares_the_decoder():
    field = GridField((2, 4), 3, 8)
    for name in ("a", "b", "a"):
        field.add(name, torch.Generator().manual_seed(len(field.names)))
    assert field.names == ["a", "b"] and len(field.grids) == 4
    query = torch.rand(10, 3) - 0.5
    before = field(query, "b").detach()
    field(query, "a").sum().backward()
    assert all(g.grad is not None and g.grad.abs().sum() > 0 for g in field.grids[:2])
    assert all(g.grad is None for g in field.grids[2:])
    assert all(p.grad is not None for p in field.decoder.parameters())
    assert not torch.equal(before, field(query, "a").detach())
    assert field(query, "neither").shape == (10,)


def test_the_field_of_a_cloud_does_not_depend_on_the_order_of_its_points_and_trains_all_weights():
    torch.manual_seed(0)
    field = CloudField((2, 4), 4, 8)
    cloud, query = torch.rand(50, 3) * 2 - 1, torch.rand(20, 3) * 2 - 1
    value = field(query, cloud)
    assert torch.allclose(value, field(query, cloud[torch.randperm(50)]), atol=1e-6)
    assert not torch.allclose(value, field(query, cloud * 0.5))
    value.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in field.parameters())
