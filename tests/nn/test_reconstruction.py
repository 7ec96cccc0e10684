import math

import pytest
import torch
from torch import nn

from toolkit.errors import HyperparameterError
from toolkit.nn.reconstruction import FourierPosition, Reconstruction


def network(**options):
    torch.manual_seed(0)
    return Reconstruction(12, 16, 24, 2, **{"position": 8, "heads": 4, "dropout": 0.0, "jitter": 0.0, **options})


def cloud(seed=0, count=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, 12, generator=generator), torch.randn(2, count, 3, generator=generator)


def test_fourier_features_are_a_gaussian_kernel_of_the_distance():
    embed = FourierPosition(20_000, 4, sigma=0.7)
    embed.linear = nn.Identity()
    points = torch.tensor([[0.1, -0.3, 0.2], [0.2, -0.25, 0.3], [0.9, 0.4, -0.6]])
    feature = embed(points)
    found = feature @ feature.t() / (2 * 20_000)
    expected = torch.exp(-2 * math.pi**2 * 0.7**2 * torch.cdist(points, points).square())
    assert torch.allclose(found, expected, atol=0.02)


def test_fourier_waves_do_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    first = FourierPosition(8, 4).waves
    torch.manual_seed(2)
    assert torch.equal(first, FourierPosition(8, 4).waves)


@pytest.mark.parametrize("attention", ["kaa", "softmax"])
def test_tokens_in_another_order_are_rebuilt_in_that_order(attention):
    net = network(attention=attention, advisor={"inner": 16, "features": 8, "advisor_inference": "transient"}).eval()
    token, centre = cloud()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.allclose(net(token, centre)[:, order], net(token[:, order], centre[:, order]), atol=1e-5)


def test_hidden_tokens_are_not_looked_at():
    net = network(attention="softmax").eval()
    token, centre = cloud()
    hidden = torch.zeros(2, 20, dtype=torch.bool)
    hidden[:, 5] = True
    other = token.clone()
    other[:, 5] += 10
    shown = torch.ones(20, dtype=torch.bool)
    shown[5] = False
    with torch.no_grad():
        first, second = (net.encoder[0](net.input(t), net.pos_embed(centre), hidden) for t in (token, other))
    assert torch.allclose(first[:, shown], second[:, shown], atol=1e-6)
    assert not torch.allclose(first[:, 5], second[:, 5])


def test_jitter_is_for_training_only_and_in_proportion_to_a_token():
    net, (token, centre) = network(attention="softmax", jitter=6.0), cloud()
    seen = []
    net.input.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    net.eval()(token, centre)
    assert torch.equal(seen[0], token)
    net.train()(token, centre)
    noise = (seen[1] - token) / token.norm(dim=-1, keepdim=True)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("attention", ["kaa", "softmax"])
def test_it_learns_tokens_that_depend_on_the_place(attention):
    net = network(attention=attention, advisor={"inner": 16, "features": 16})
    net.pos_embed = FourierPosition(16, 16, sigma=0.3)
    _, centre = cloud(count=40)
    token = torch.sin(centre @ torch.randn(3, 12, generator=torch.Generator().manual_seed(5)))
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss = (net(token, centre) - token).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("wrong", [{"attention": "x"}, {"heads": 3}, {"position": 0}])
def test_bad_hyperparameters(wrong):
    with pytest.raises(HyperparameterError):
        network(**wrong)
