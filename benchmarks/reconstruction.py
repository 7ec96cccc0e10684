"""C3D-AD: the wide random features of its attention, and an epoch with and without kept tokens."""

from __future__ import annotations

import copy
from typing import Any

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor

from benchmarks.harness import Bench, close
from scenarios.class_incremental import ClassIncremental
from strategies.c3dad import C3DAD
from toolkit.data.synthetic import Synthetic
from toolkit.nn.kernel_attention import KernelAdvisorAttention
from toolkit.stream import build

EPOCHS = 20


def run(bench: Bench) -> None:
    """Measure the group."""
    for features in (10, 1_000):
        torch.manual_seed(0)
        attention, tokens = KernelAdvisorAttention(256, 2048, features, form="paper"), torch.randn(1, 4096, 256)
        bench.paired("random features", f"4,096 tokens of 256, inner 2,048, m {features:,}",
                     ("wide queries", lambda a=attention, t=tokens: wide(a, t)),
                     ("fused", lambda a=attention, t=tokens: fused(a, t)),
                     lambda *_, a=attention, t=tokens: same_algebra(a, t))  # fmt: skip

    dataset = Synthetic(categories=["bolt"], points=8192, train=4, test_normal=1, test_defective=1)
    (experience,) = build(ClassIncremental("even:1"), dataset).train_stream
    kept: dict[str, Any] = {}
    bench.paired("C3D-AD", f"{EPOCHS} epochs of 4 clouds of 8,192 points",
                 ("from points", lambda: trained(experience, [Forgets()], {})),
                 ("from kept tokens", lambda: trained(experience, [], kept)), close(1e-6, "tokens"), target=20,
                 note="baseline: registration, groups and Point-MAE anew in every epoch")  # fmt: skip


@torch.no_grad()
def wide(attention: KernelAdvisorAttention, tokens: Tensor) -> Tensor:
    """Features (eq. 5) by way of the (n, inner) queries, as the released code computes them."""
    query = attention.query(tokens) * attention.query.out_features**-0.25
    log = query @ attention.projection.t() - query.square().sum(-1, keepdim=True) / 2
    return torch.exp(log) / attention.projection.shape[0] ** 0.5


@torch.no_grad()
def fused(attention: KernelAdvisorAttention, tokens: Tensor) -> Tensor:
    """The same from the product of the random vectors and the layer."""
    return attention.phi(tokens, attention.query)


def same_algebra(attention: KernelAdvisorAttention, tokens: Tensor) -> str:
    """Equal in double precision; in single, exp(-|x|^2 / 2) of 2,048 numbers loses digits either way."""
    double, some = copy.deepcopy(attention).double(), tokens[:, :64].double()
    first, second = wide(double, some), fused(double, some)
    return close(1e-9, "features in double precision, relative to the largest,")(
        first / first.max(), second / first.max()
    )


class Forgets(SupervisedPlugin):
    """What a strategy has prepared is prepared anew in the next epoch."""

    def before_training_epoch(self, strategy: C3DAD, **kwargs: Any) -> None:
        strategy._memory.clear()
        strategy._memory_bytes = 0


def trained(experience: Any, plugins: list[Any], kept: dict[str, Any]) -> Tensor:
    """A strategy trained from scratch, with what another one has prepared; returns the tokens of its first cloud."""
    strategy = C3DAD(epochs=EPOCHS, plugins=plugins)
    strategy._memory.update(kept)
    strategy.train(experience)
    kept.update(strategy._memory)
    return strategy.prepared(experience.clouds.clouds()[0]).tokens
