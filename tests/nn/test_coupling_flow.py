import math

import torch

from toolkit.nn.coupling_flow import CouplingFlow, sinusoidal


def flow(channels=5, condition=2):
    torch.manual_seed(0)
    made = CouplingFlow(channels, condition, couplings=4, hidden=8).double()
    for net in made.nets:
        torch.nn.init.normal_(net[2].weight, std=0.5)
    return made


def test_inverse_and_jacobian():
    made, x, c = flow(), torch.randn(7, 5).double(), torch.randn(7, 2).double()
    latent, logdet = made(x, c)
    assert torch.allclose(made.inverse(latent, c), x, atol=1e-10)
    for row in range(7):
        jacobian = torch.autograd.functional.jacobian(lambda v, r=row: made(v[None], c[r : r + 1])[0][0], x[row])
        assert torch.allclose(logdet[row], torch.linalg.slogdet(jacobian)[1], atol=1e-10)


def test_a_new_flow_is_a_standard_normal_density():
    made, x = CouplingFlow(6, 1, couplings=3, hidden=4), torch.randn(9, 6)
    exact = torch.distributions.Normal(0, 1).log_prob(x).mean(1)
    assert torch.allclose(made.log_likelihood(x, torch.zeros(9, 1)), exact, atol=1e-6)


def test_the_density_integrates_to_one():
    made = flow(channels=2, condition=1)
    axis = torch.linspace(-12, 12, 400).double()
    grid = torch.cartesian_prod(axis, axis)
    density = (2 * made.log_likelihood(grid, torch.full((len(grid), 1), 0.3).double())).exp()
    assert abs(float(density.detach().sum() * (axis[1] - axis[0]) ** 2) - 1) < 0.02


def test_places_by_sines_and_cosines():
    code = sinusoidal(torch.tensor([[1.0, 0.0, -0.5]]), 2)[0]
    angle = [math.pi / 2 * w * x for x in (1.0, 0.0, -0.5) for w in (1, 2)]
    assert torch.allclose(code, torch.tensor([math.sin(a) for a in angle] + [math.cos(a) for a in angle]), atol=1e-6)
