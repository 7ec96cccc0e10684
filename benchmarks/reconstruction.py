"""C3D-AD: the wide random features of its attention, and an epoch with and without kept tokens."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch
from avalanche.training.plugins import SupervisedPlugin
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from benchmarks.baselines import open3d_calls
from benchmarks.baselines.sampling import fps_loop
from benchmarks.harness import Bench, CheckFailed, Row, close, median_ratio
from scenarios.class_incremental import ClassIncremental
from strategies.c3dad import C3DAD
from toolkit.cloud import PointCloud
from toolkit.data.synthetic import Synthetic
from toolkit.nn.grouping import local_frames
from toolkit.nn.kernel_attention import KernelAdvisorAttention
from toolkit.ops import diagonal, transformed
from toolkit.ops.register import VOXEL
from toolkit.prepared import Memory
from toolkit.stream import build

EPOCHS = 20
BLOCK = 4  # epochs in a row: the penalty is taken in every fourth step, and there is a step per epoch
KEPT = 5 * BLOCK  # of those that start from kept tokens, which take a twentieth of the time
PAIRS = 5
TARGET = 20.0


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
    epochs(bench, experience)


def epochs(bench: Bench, experience: Any) -> None:
    """Rows of an epoch of training with and without kept tokens, and of the whole of `EPOCHS` epochs."""
    kept = Memory()
    seconds: dict[str, list[Any]] = {"kept": [], "ours": [], "released": []}
    for _ in range(PAIRS):
        for name, strategy, store in (("kept", C3DAD(epochs=1 + KEPT), kept), ("ours", forgetting(C3DAD), Memory()),
                                      ("released", forgetting(AsReleased), Memory())):  # fmt: skip
            seconds[name].append(trained(experience, strategy, store))
    tokens = {name: runs[0][0].tokens for name, runs in seconds.items()}
    same = close(1e-6, "tokens")(tokens["ours"], tokens["kept"])
    anew = "registration, groups and Point-MAE anew in every epoch"
    ours = f"baseline: {anew}, by this project's operators"
    released = (
        f"baseline: {anew}, registration by Real3D-AD's call, farthest points by a loop, scikit-learn's neighbours"
    )
    fast = np.array([block / KEPT for _, _, block in seconds["kept"]])
    slow = np.array([block / BLOCK for _, _, block in seconds["ours"]])
    add(bench, "an epoch of 4 clouds of 8,192 points", "from points", TARGET, slow, fast, same, ours)
    other = np.array([block / BLOCK for _, _, block in seconds["released"]])
    add(bench, "an epoch of 4 clouds of 8,192 points", "from points, as released", TARGET, other, fast,
        resemble(tokens["released"], tokens["kept"]), released)  # fmt: skip
    first = np.array([until for _, until, _ in seconds["ours"]])  # with all that comes before it
    add(bench, f"{EPOCHS} epochs of them, the first from points", "all from points", float("nan"),
        first + (EPOCHS - 1) * slow, first + (EPOCHS - 1) * fast, same,
        f"{ours}; from the seconds of the first epoch, what precedes it included, and of a later one")  # fmt: skip


def add(bench: Bench, case: str, baseline: str, target: float, slow: Any, fast: Any, check: str, note: str) -> None:
    """A row from seconds that were taken inside of longer runs."""
    ratio, low, high = median_ratio(slow / fast)
    none = float("nan")
    bench.add(Row("C3D-AD", case, baseline, "from kept tokens", target, ratio, low, high, len(slow),
                  1e3 * float(np.median(slow)), 1e3 * float(np.median(fast)), none, none, check, note))  # fmt: skip


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


class Watch(SupervisedPlugin):
    """Processor time at the end of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def after_training_epoch(self, strategy: C3DAD, **kwargs: Any) -> None:
        self.times.append(time.process_time())


class AsReleased(C3DAD):
    """Registers and groups as the released code does within every forward pass of its backbone.

    The reading is that of its files: Real3D-AD's registration call, farthest points one after the other, scikit-learn's
    tree for neighbours. There a CUDA extension picks the points; what stands for it is the loop that PointNet++ code
    has without one. Groups' frames, size and encoder are those of the strategy that it is compared with.
    """

    def prepare(self, cloud: PointCloud) -> PointCloud:
        placed = self.place(cloud)
        rows = fps_loop(placed, self.groups)
        centre = placed[rows]
        tree = NearestNeighbors(n_neighbors=self.group_size).fit(placed.numpy())
        index = torch.from_numpy(tree.kneighbors(centre.numpy(), return_distance=False))
        neighbours, towards = placed[index] - centre[:, None], centre - placed.mean(0)
        frames = local_frames(neighbours, towards)
        tokens = self._encoder((towards[:, None] @ frames)[None, :, 0], (neighbours @ frames)[None], [self.layer])
        return PointCloud(centre, tokens=tokens[0][0], at=cloud.pos[rows])

    def place(self, cloud: PointCloud, points: Tensor | None = None) -> Tensor:
        target = self.templates_[cloud.category]
        found = open3d_calls.registration(cloud.pos.numpy(), target.numpy(), VOXEL * diagonal(target))
        centre = target.mean(0)
        moved = transformed(cloud.pos if points is None else points, torch.from_numpy(found))
        return (moved - centre) / (target - centre).norm(dim=1).max()


def forgetting(kind: type[C3DAD]) -> C3DAD:
    """A strategy that trains as many epochs as one with kept tokens, and prepares anew in each."""
    return kind(epochs=1 + BLOCK, plugins=[Forgets()])


def trained(experience: Any, strategy: C3DAD, kept: Memory) -> tuple[PointCloud, float, float]:
    """A strategy trained from scratch, with what another one has prepared.

    Returns:
        Its first cloud, prepared; processor seconds until the end of the first epoch; and of those after it.
    """
    watch = Watch()
    strategy.plugins.append(watch)
    strategy._memory = kept
    begin = time.process_time()
    strategy.train(experience)
    first = strategy.prepared(experience.clouds.clouds()[0])
    return first, watch.times[0] - begin, watch.times[-1] - watch.times[0]


def resemble(first: Tensor, second: Tensor) -> str:
    """Tokens are taken in groups' own frames, so that another pose changes them by rounding only."""
    share = float(((first - second).abs().amax(1) < 1e-3 * second.abs().max()).float().mean())
    if share < 0.95:
        raise CheckFailed(f"only {share:.1%} of the tokens are the same")
    return f"{share:.1%} of the tokens within 0.1 % of the largest (another pose)"
