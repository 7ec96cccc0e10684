"""What a strategy needs to score a large cloud: ``python -m benchmarks.memory NAME [--points 1000000]``.

Runs in a process of its own, so that the peak is the strategy's and nothing else's. The strategy has its default size;
only its epochs are cut to one, as memory does not depend on them. It learns two clouds of 2,048 points, then scores one
of a million: a test cloud drawn from with replacement, with some noise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIMIT = 4 * 2**30
"""No strategy may hold more than this while it scores a million points, everything counted."""


def in_a_process(name: str, points: int = 1_000_000, timeout: float = 3600, preset: str = "small") -> dict[str, Any]:
    """Run this module for a strategy in a new process.

    Returns:
        ``peak_bytes``: the largest resident memory of the whole process while scoring; ``rise_bytes``: of that, what
        scoring added; ``train_peak_bytes``: while training; ``seconds``: of processor time for scoring; ``finite``.

    Raises:
        RuntimeError: the process failed; the message ends with what it printed last.
    """
    command = [sys.executable, "-m", "benchmarks.memory", name, "--points", str(points), "--preset", preset]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"{name}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(name: str, points: int, preset: str) -> dict[str, Any]:
    """Train, score, and say what it took, in this process."""
    import torch

    from benchmarks.harness import Peak
    from scenarios.class_incremental import ClassIncremental
    from toolkit.data.synthetic import Synthetic
    from toolkit.metrics.cost import process_peak_bytes
    from toolkit.registry import entries
    from toolkit.stream import build

    torch.set_num_threads(1)
    cls = entries("strategy")[name].load()
    strategy = cls(**{**cls.of_preset(preset), **({"epochs": 1} if cls.learns_by_gradient() else {})})
    dataset = Synthetic(categories=["bolt"], points=2048, train=2, test_normal=1, test_defective=1)
    stream = build(ClassIncremental("even:1"), dataset)
    with Peak():
        for experience in stream.train_stream:
            strategy.train(experience)
        trained = process_peak_bytes()
    strategy.model.eval()
    cloud = enlarged(stream.test_stream[0].clouds.clouds()[0], points)
    with Peak() as peak, torch.no_grad():
        begin = time.process_time()
        found = strategy.score(cloud).check(cloud)
        spent = time.process_time() - begin
    return {"strategy": name, "points": points, "peak_bytes": process_peak_bytes(), "rise_bytes": int(peak.rise),
            "train_peak_bytes": trained, "seconds": round(spent, 2),
            "finite": bool(torch.isfinite(found.point).all())}  # fmt: skip


def enlarged(cloud: Any, points: int) -> Any:
    """A cloud of more points on about the same surface, every point attribute drawn alike."""
    import torch

    generator = torch.Generator().manual_seed(0)
    size = cloud.pos.shape[0]
    rows = torch.randint(size, (points,), generator=generator)
    large = cloud.clone_shallow()
    for key, value in cloud.tensors().items():
        if value.dim() and value.shape[0] == size:
            large[key] = value[rows]
    extent = float((cloud.pos.amax(0) - cloud.pos.amin(0)).norm())
    large.pos = large.pos + 0.002 * extent * torch.randn(points, 3, generator=generator)
    return large


def main() -> None:
    """Command line: prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--preset", default="small")
    options = parser.parse_args()
    import toolkit  # noqa: F401  (its work-arounds come first)

    print(json.dumps(measured(options.name, options.points, options.preset)))


if __name__ == "__main__":
    main()
