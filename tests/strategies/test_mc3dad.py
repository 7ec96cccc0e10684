"""MC3D-AD: what the contract suite does not see. What it shares with C3D-AD is tested there."""

import pytest
import torch

from strategies.mc3dad import MC3DAD
from tests.strategies.shapes import body, finds_the_bump, train_on
from toolkit.cloud import CloudBatch
from toolkit.errors import HyperparameterError
from toolkit.nn.geometry_mask import hidden_tokens
from toolkit.nn.reconstruction import Reconstruction

SMALL = dict(weights="random", groups=48, group_size=24, sample=32, dim=32, feedforward=32, depth=1, epochs=2, lr=1e-3)


def trained(**arguments):
    strategy = train_on(MC3DAD(**{**SMALL, **arguments}), [body(i)[0] for i in range(2)])
    strategy.model.eval()
    return strategy


def batch_of(strategy, count=2):
    return CloudBatch.collate([strategy.prepared(body(i)[0]) for i in range(count)])


@pytest.fixture(scope="module")
def strategy():
    return trained()


def test_masks_are_drawn_in_training_and_hide_the_share_of_one_end(strategy):
    batch = batch_of(strategy)
    variation = batch.variation.unflatten(0, (2, -1))
    assert strategy.model.hidden(batch) is None
    strategy.model.train()
    seen = [strategy.model.hidden(batch) for _ in range(20)]
    strategy.model.eval()
    ends = [hidden_tokens(variation, 0.4, torch.tensor([end] * 2)) for end in (True, False)]
    for row in range(2):
        assert all(any(torch.equal(mask[row], end[row]) for end in ends) for mask in seen)
        assert all(any(torch.equal(mask[row], end[row]) for mask in seen) for end in ends)


def test_masks_reach_every_encoder_and_decoder_layer(strategy):
    """Which attentions they act on is tested in tests/nn/test_reconstruction.py."""
    net, batch, seen = strategy.model.reconstruction, batch_of(strategy), []
    hooks = [layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[-1]))
             for layer in (*net.encoder, *net.decoder)]  # fmt: skip
    strategy.model.train()
    with torch.no_grad():
        torch.manual_seed(0)
        strategy.model(batch)
    strategy.model.eval()
    for hook in hooks:
        hook.remove()
    assert len(seen) == 2 and torch.equal(seen[0], seen[1])
    assert seen[0].sum(1).tolist() == [19, 19]


def test_mask_at_test_is_off_unless_asked_for():
    cloud = body(5)[0]
    plain, masked = trained(), trained(mask_at_test=True)
    assert MC3DAD(**SMALL, as_released=True).model.at_test and not plain.model.at_test
    batch = batch_of(masked)
    assert masked.model.hidden(batch) is not None
    with torch.no_grad():
        scores = [masked.score(cloud).object for _ in range(8)]
        assert len({plain.score(cloud).object for _ in range(4)}) == 1
    assert len(set(scores)) == 2  # one per side of the coin


def test_gradients_reach_every_parameter(strategy):
    strategy.model.train()
    strategy.model.zero_grad()
    batch = batch_of(strategy)
    strategy.loss_of(strategy.model(batch)).backward()
    strategy.model.eval()
    still = [n for n, p in strategy.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_loss_is_the_mean_squared_error_of_standardised_tokens(strategy):
    batch = batch_of(strategy)
    with torch.no_grad():
        output = strategy.model(batch)
        loss = float(strategy.loss_of(output))
    token = (batch.tokens - strategy.model.mean) / strategy.model.std
    assert torch.allclose(output.target, token)
    total = sum((float(a) - float(b)) ** 2 for x, y in zip(output.features, token) for a, b in zip(x, y))
    assert loss == pytest.approx(total / token.numel(), rel=1e-4)


def test_a_bump_scores_higher_than_its_surroundings():
    strategy = train_on(MC3DAD(**{**SMALL, "weights": "shipped", "groups": 128, "epochs": 8}),
                        [body(i)[0] for i in range(3)])  # fmt: skip
    assert finds_the_bump(strategy)


def test_usual_residuals_are_kept_per_class_and_subtracted():
    clouds = [body(i)[0] for i in range(6)]
    strategy = train_on(MC3DAD(**SMALL), clouds)
    strategy.model.eval()
    assert {name: tuple(rows.shape) for name, rows in strategy.usual_.items()} == {"body": (4 * 48, 3 + 192)}
    prepared = strategy.prepared(clouds[0])
    with torch.no_grad():
        residual = strategy.residual(prepared)
        # at a place where all the nearest rows have one residual, that residual is what is subtracted
        strategy.usual_ = {"body": torch.cat([prepared.pos, residual[7].expand(48, -1)], 1)}
        expected = (residual - residual[7]) @ strategy.model.whitening()
        assert torch.allclose(strategy._measured(prepared), expected, atol=1e-4)
        strategy.calibrate = "none"
        assert torch.allclose(strategy._measured(prepared), residual @ strategy.model.whitening(), atol=1e-4)


@pytest.mark.parametrize("arguments", [{"mask_share": 0.0}, {"calibrate": "template"}, {"as_released": True},
                                       {"sample": 0, "position": "mlp", "whiten": False}], ids=str)  # fmt: skip
def test_variants_run(arguments):
    strategy = trained(**arguments)
    with torch.no_grad():
        assert strategy.score(body(5)[0]).point.std() > 0


@pytest.mark.parametrize("wrong", [{"mask_share": 1.0}, {"mask_share": -0.1}, {"heads": 3}, {"calibrate": "x"}])
def test_bad_hyperparameters(wrong):
    with pytest.raises(HyperparameterError):
        MC3DAD(**{**SMALL, **wrong})


def test_paper_sizes():
    paper = MC3DAD.presets["paper"]
    with torch.device("meta"):
        net = Reconstruction(384, paper["dim"], paper["feedforward"], paper["depth"], attention="softmax",
                             heads=paper["heads"])  # fmt: skip
        token, centre = torch.empty(1, paper["groups"], 384), torch.empty(1, paper["groups"], 3)
        assert net(token, centre, torch.zeros(1, paper["groups"], dtype=torch.bool)).shape == token.shape
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(7.60, abs=0.05)  # the card's count
