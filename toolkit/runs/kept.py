"""What a finished run needed: bytes kept between tasks, replay included, and multiply-accumulates of scoring."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from toolkit.metrics import macs
from toolkit.runs import checkpoint
from toolkit.seeding import seeded
from toolkit.strategy import AnomalyStrategy


def kept_between_tasks(folder: Path, strategy: AnomalyStrategy, state_bytes: int) -> dict[str, int]:
    """Bytes that the next task would find.

    Args:
        folder: of the checkpoints.
        strategy: after its last task, with its plugins.
        state_bytes: of the method itself.

    Returns:
        ``state_bytes``: network, banks, templates; ``plugin_bytes``: importances, copies of networks and whatever else
        plugins store beside clouds, as pickled; ``buffer_bytes``: prepared clouds in replay buffers; ``kept_bytes``:
        their sum.
    """
    position = checkpoint.latest(folder)
    path = folder / f"task_{position:03d}.plugins" if position is not None else None
    plugins = path.stat().st_size if path is not None and path.exists() else 0
    with seeded(strategy.seed, "count"):  # preparing draws no numbers, augmenting does
        buffers = sum(cloud.nbytes() for cloud in buffered(strategy.plugins))
    return {"state_bytes": state_bytes, "plugin_bytes": plugins, "buffer_bytes": buffers,
            "kept_bytes": state_bytes + plugins + buffers}  # fmt: skip


def buffered(plugins: Iterable[Any]) -> Iterable[Any]:
    """The clouds in the buffers of plugins, each once per buffer that holds it."""
    from avalanche.benchmarks.utils import AvalancheDataset

    pending, seen = [(plugin, 0) for plugin in plugins], set()
    while pending:
        thing, depth = pending.pop()
        if id(thing) in seen or depth > 4:
            continue
        seen.add(id(thing))
        if isinstance(thing, AvalancheDataset):
            for row in range(len(thing)):
                yield thing[row][0]
        elif isinstance(thing, dict):
            pending += [(value, depth + 1) for value in thing.values()]
        elif isinstance(thing, (list, tuple)):
            pending += [(value, depth + 1) for value in thing]
        elif type(thing).__module__.startswith(("avalanche.training", "toolkit.plugins")):
            pending += [(value, depth + 1) for value in vars(thing).values()]


def macs_of_scoring(strategy: AnomalyStrategy, experience: Any) -> int:
    """Multiply-accumulates of scoring a test experience's first cloud (`toolkit.metrics.macs` says what counts)."""
    cloud = experience.clouds.clouds()[0]
    with torch.no_grad(), seeded(strategy.seed, "score", cloud.sample_id):
        return macs(strategy.score, cloud)
