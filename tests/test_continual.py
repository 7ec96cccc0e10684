"""Every continual mode with a trained method and, where it makes sense, a memory bank."""

import copy

import pytest
import torch

from scenarios.class_incremental import ClassIncremental
from tests.toys import Toy, ToyBank, ToyNet
from toolkit.continual import AGEM, EMA, EWC, GEM, MAS, FeatureDistillation, GDumb, Replay
from toolkit.errors import HyperparameterError
from toolkit.registry import entries, resolve
from toolkit.stream import build

MODES = list(entries("continual"))


def stream():
    return build(ClassIncremental("even:3"), Toy())


def train(continual, strategy_class=ToyNet, **arguments):
    strategy = strategy_class(plugins=continual.plugins(), **arguments)
    for experience in stream().train_stream:
        strategy.train(experience)
    return strategy


def weights(strategy):
    return torch.cat([p.detach().flatten() for p in strategy.model.parameters()])


@pytest.mark.parametrize("name", [m for m in MODES if m != "Joint"])
def test_trains_three_tasks_reproducibly(name):
    continual = resolve("continual", name)()
    first, second = (weights(train(continual)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()


@pytest.mark.parametrize(
    "continual",
    [Replay(mem_size=3), EWC(1e3), EWC(1e3, mode="online"), MAS(10.0), AGEM(2, 4), GEM(2), GDumb(3),
     FeatureDistillation(10.0), FeatureDistillation(10.0, "cosine"), EMA(), resolve("continual", "SI")(1e3),
     resolve("continual", "Cumulative")(), resolve("continual", "FromScratch")()],
    ids=lambda c: type(c).__name__ + str(getattr(c, "mode", getattr(c, "kind", ""))),
)  # fmt: skip
def test_mode_changes_what_is_learned(continual):
    hard = dict(epochs=12, lr=0.03)  # long enough that tasks get in each other's way, or GEM has nothing to project
    naive = weights(train(resolve("continual", "Naive")(), **hard))
    assert not torch.equal(naive, weights(train(continual, **hard)))


def test_strong_ewc_keeps_weights_closer_to_those_of_task_one():
    first = ToyNet()
    first.train(stream().train_stream[0])
    anchor = weights(first)
    loose = (weights(train(EWC(0.0))) - anchor).norm()
    tight = (weights(train(EWC(1e6))) - anchor).norm()
    assert tight < 0.7 * loose


def test_ema_pulls_every_step_towards_the_weights_after_the_last_task():
    """With steps of length 0, n pulls leave (1 - share)^n of what was added to the weights by hand."""
    experiences = stream().train_stream
    strategy = ToyNet(plugins=EMA(share=0.1).plugins(), epochs=3, batch_size=2, weight_decay=0.0)
    strategy.train(experiences[0])
    anchor = weights(strategy)
    assert torch.equal(anchor, weights_of_first_task())
    with torch.no_grad():
        for parameter in strategy.model.parameters():
            parameter += 1
    strategy.lr = 0.0
    strategy.train(experiences[1])
    steps = 3 * -(-len(experiences[1].clouds) // 2)
    assert torch.allclose(weights(strategy) - anchor, torch.full_like(anchor, 0.9**steps), atol=1e-4)


def weights_of_first_task():
    naive = ToyNet(epochs=3, batch_size=2, weight_decay=0.0)
    naive.train(stream().train_stream[0])
    return weights(naive)


def test_ema_bounds_how_far_weights_get_and_share_zero_is_naive():
    first = ToyNet(epochs=12, lr=0.01)
    first.train(stream().train_stream[0])
    anchor = weights(first)
    moved = [(weights(train(EMA(share), epochs=12, lr=0.01)) - anchor).norm() for share in (0.0, 0.1, 0.5)]
    assert moved[0] > 1.2 * moved[1] > 1.44 * moved[2]
    naive = weights(train(resolve("continual", "Naive")(), epochs=12, lr=0.01))
    assert torch.equal(weights(train(EMA(0.0), epochs=12, lr=0.01)), naive)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_ema_share_is_checked(share):
    with pytest.raises(HyperparameterError, match="share"):
        EMA(share)


def test_restart_forgets_parameters_buffers_and_banks():
    strategy = ToyNet()
    before = copy.deepcopy(strategy.model.state_dict())
    strategy.train(stream().train_stream[0])
    assert strategy.model.steps > 0
    strategy.restart()
    assert all(torch.equal(v, before[k]) for k, v in strategy.model.state_dict().items())
    bank = ToyBank()
    bank.train(stream().train_stream[0])
    bank.templates_ = {"a": torch.ones(1)}
    bank.restart()
    assert not hasattr(bank, "radii_") and bank.templates_["a"] == 1


def test_cumulative_bank_holds_each_cloud_once():
    naive, cumulative = (train(resolve("continual", n)(), ToyBank) for n in ("Naive", "Cumulative"))
    scratch = train(resolve("continual", "FromScratch")(), ToyBank)
    assert torch.equal(naive.radii_.sort()[0], cumulative.radii_.sort()[0])
    assert len(scratch.radii_) < len(naive.radii_) / 2


def test_global_random_state_is_untouched():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    strategy = ToyNet()
    strategy.train(stream().train_stream[0])
    strategy.eval(stream().test_stream[:1])
    assert torch.equal(torch.rand(3), expected)


def test_scores_do_not_depend_on_the_order_of_clouds():
    strategy = train(resolve("continual", "Naive")())
    strategy.model.eval()
    clouds = [e for e in stream().test_stream[0].clouds.clouds()]
    with torch.no_grad():
        forward = {c.sample_id: strategy.score(c).object for c in clouds}
        backward = {c.sample_id: strategy.score(c).object for c in clouds[::-1]}
    assert forward == backward
