import torch

from toolkit.nn.place_statistics import deviations


def test_each_place_is_measured_by_its_own_normals():
    generator = torch.Generator().manual_seed(0)
    quiet = torch.cat([torch.randn(200, 3, generator=generator), 1 + 0.1 * torch.randn(200, 1, generator=generator)], 1)
    edge = torch.cat([50 + torch.randn(200, 3, generator=generator), 9 + torch.randn(200, 1, generator=generator)], 1)
    rows = torch.cat([quiet, edge])
    at = torch.tensor([[0.0, 0, 0], [50.0, 50, 50]])
    value = torch.tensor([[2.0], [9.0]])
    local = deviations(value, at, rows, nearby=100, floor=1e-6)
    assert local[0] > 7 and abs(local[1]) < 0.5
    everywhere = deviations(value, at, rows, nearby=0, floor=1e-6)
    assert everywhere[0] < everywhere[1]
    mean, std = rows[:, 3].mean(), rows[:, 3].std()
    assert torch.allclose(everywhere[:, 0], (value[:, 0] - mean) / std)


def test_against_a_loop_with_several_values():
    generator = torch.Generator().manual_seed(1)
    rows, at = torch.rand(30, 5, generator=generator), torch.rand(4, 3, generator=generator)
    value = torch.rand(4, 2, generator=generator)
    found = deviations(value, at, rows, nearby=6, floor=0.5)
    for i in range(4):
        near = rows[(rows[:, :3] - at[i]).norm(dim=1).argsort()[:6], 3:]
        expected = (value[i] - near.mean(0)) / (near.std(0, correction=0) + 0.5 * rows[:, 3:].std(0))
        assert torch.allclose(found[i], expected, atol=1e-5)
