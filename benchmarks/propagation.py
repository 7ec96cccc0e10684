"""Chamfer distance and interpolation."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.baselines.neighbours import cdist_chamfer, sorted_interpolation
from benchmarks.clouds import bumpy
from benchmarks.harness import Bench, CheckFailed, close
from toolkit.ops import chamfer, interpolate


def run(bench: Bench) -> None:
    """Measure the group."""
    for size, target in ((2_048, 30), (10_000, 150)):
        a, b = bumpy(size), bumpy(size, seed=1)
        bench.paired("chamfer", f"{size:,}, forward and backward",
                     ("cdist", lambda a=a, b=b: slope(cdist_chamfer, a, b)),
                     ("chamfer", lambda a=a, b=b: slope(chamfer, a, b)), same_slopes, target=target,
                     note="cdist's matrix products lose digits, and with them some nearest points")  # fmt: skip
    pos, centre = bumpy(100_000), bumpy(1_024, seed=1)
    value = torch.randn(1_024, 384, generator=torch.Generator().manual_seed(0))
    row = bench.paired("interpolate", "100,000 <- 1,024 x 384",
                       ("full sort", lambda: sorted_interpolation(value, centre, pos)),
                       ("interpolate", lambda: interpolate(value, centre, pos)), close(5e-2), target=40,
                       note="the baseline's distances lose digits; memory is to be a tenth")  # fmt: skip
    if row.candidate_mb > row.baseline_mb / 10:
        bench.say(f"interpolate takes {row.candidate_mb:.0f} MB, more than a tenth of {row.baseline_mb:.0f}")


def same_slopes(first: Tensor, second: Tensor) -> str:
    """Gradients agree, but for one point in a thousand, whose nearest point lost digits have exchanged."""
    apart = (first - second).abs().amax(1)
    scale = float(second.abs().amax())
    wrong = float((apart > 1e-3 * scale).float().mean())
    if wrong > 1e-3:
        raise CheckFailed(f"gradients differ at {wrong:.2%} of the points")
    return f"gradients within 0.1 % of the largest at {1 - wrong:.2%} of the points"


def slope(distance, a: Tensor, b: Tensor) -> Tensor:
    """Gradient of a distance with respect to the first cloud."""
    a = a.clone().requires_grad_()
    distance(a, b).backward()
    assert a.grad is not None
    return a.grad
