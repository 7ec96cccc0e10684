"""Pre-train the small slice trunk on procedural parts: `python -m toolkit.nn.slice_pretrain`.

The trunk learns to tell the 20 categories of `toolkit.data.parts` apart by the four slices of a scan in a random pose;
the last variant of each category is held out. Nothing of this is published: ISMP takes a network trained on ImageNet.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.data.parts import PARTS, sample
from toolkit.nn.ctf_net import save
from toolkit.nn.shapes import random_rotation
from toolkit.nn.slice_trunk import SHIPPED, SmallTrunk, load_slice_trunk
from toolkit.nn.slices import slices

POINTS = 6000
"""Points per scan: dense enough to fill the surfaces in an image of 64 pixels."""


class Scans:
    """Slices of random scans of random parts.

    Args:
        held_out: the last variant of each category instead of the others.
        seed: of all that is random.
        clouds: objects kept per variant.
        capacity: scans kept, from which a batch is filled up.
    """

    def __init__(self, held_out: bool, seed: int, clouds: int = 3, capacity: int = 2000):
        self.rng, self.clouds, self.capacity = np.random.default_rng(seed), clouds, capacity
        self.kept: list[tuple[Tensor, int]] = []
        self.generator = torch.Generator().manual_seed(seed)
        self.variants = [p.subcategories[-1:] if held_out else p.subcategories[:-1] for p in PARTS.values()]
        self.stock: dict[tuple[int, str, int], Tensor] = {}

    def draw(self, batch: int, fresh: int | None = None) -> tuple[Tensor, Tensor]:
        """(B, 4, 64, 64) slices and (B,) categories; ``fresh`` of them new (all by default), others seen before.

        An earlier scan comes back turned about the axis of view by a multiple of a right angle.
        """
        fresh = batch if fresh is None else max(fresh, batch - len(self.kept))
        new = [(self._views(int(c)), int(c)) for c in self.rng.integers(len(self.variants), size=fresh)]
        old = [self.kept[i] for i in self.rng.integers(max(1, len(self.kept)), size=batch - fresh)]
        self.kept = [*self.kept, *new][-self.capacity :]
        shown = [(views.rot90(int(self.rng.integers(4)), (1, 2)), category) for views, category in [*new, *old]]
        return torch.stack([views for views, _ in shown]), torch.tensor([category for _, category in shown])

    def _views(self, category: int) -> Tensor:
        names = self.variants[category]
        key = (category, names[self.rng.integers(len(names))], int(self.rng.integers(self.clouds)))
        if key not in self.stock:  # some parts take half a second to build
            mesh = list(PARTS.values())[category].mesh(key[1], torch.Generator().manual_seed(key[2]))
            self.stock[key] = sample(mesh, 2 * POINTS, torch.Generator().manual_seed(key[2]))[0]
        pos = self.stock[key]
        pos = pos[torch.randperm(len(pos), generator=self.generator)[:POINTS]]
        pos = pos @ torch.from_numpy(random_rotation(self.rng)).float()
        size = float((pos.amax(0) - pos.amin(0)).norm())
        noise = size * 10 ** self.rng.uniform(-4, -2.5)
        return slices(pos + noise * torch.randn(pos.shape, generator=self.generator), SmallTrunk.pixels)


def pretrain(
    seed: int = 0, *, steps: int = 1000, batch: int = 32, fresh: int = 8, lr: float = 3e-3
) -> tuple[SmallTrunk, list[dict[str, float]]]:
    """Train the trunk from scratch.

    Args:
        seed: of weights and scans.
        steps: number of steps.
        batch: clouds per step.
        fresh: of these, newly made ones.
        lr: peak learning rate of AdamW, under a one-cycle schedule.

    Returns:
        The trunk in evaluation mode and the curve: per 25 steps mean loss, accuracy, CPU seconds.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = SmallTrunk(len(PARTS)).train()
    scans = Scans(False, seed)
    optimizer = torch.optim.AdamW(trunk.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    curve: list[dict[str, float]] = []
    recent: list[tuple[float, float]] = []
    start = time.process_time()
    for step in range(steps):
        views, target = scans.draw(batch, fresh)
        logits = trunk.classifier(trunk(views))
        loss = F.cross_entropy(logits, target, label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        recent.append((loss.item(), float((logits.argmax(1) == target).float().mean())))
        if (step + 1) % 25 == 0 or step + 1 == steps:
            means = torch.tensor(recent).mean(0).tolist()
            curve.append(dict(step=step + 1, loss=means[0], accuracy=means[1],
                              seconds=round(time.process_time() - start, 1)))  # fmt: skip
            recent = []
            print(", ".join(f"{name} {value:.4g}" for name, value in curve[-1].items()), flush=True)
    return trunk.eval().requires_grad_(False), curve


def accuracy(trunk: SmallTrunk, seed: int, clouds: int = 400) -> float:
    """Share of scans of held-out variants that are told right; chance is 0.05."""
    views, target = Scans(True, seed).draw(clouds)
    with torch.no_grad():
        return float((trunk.classifier(trunk(views)).argmax(1) == target).float().mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, judge what was written, and write its record and curve."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.nn.slice_pretrain", description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32, help="clouds per step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=SHIPPED, help=f"weights file (default {SHIPPED.name})")
    options = parser.parse_args(arguments)
    trunk, curve = pretrain(options.seed, steps=options.steps, batch=options.batch)
    save(trunk, options.output)
    lines = [",".join(curve[0]), *(",".join(f"{value:.6g}" for value in row.values()) for row in curve)]
    options.output.with_suffix(".csv").write_text("\n".join(lines) + "\n")
    written = load_slice_trunk(options.output)  # what was written is what is judged
    assert isinstance(written, SmallTrunk)
    record = {
        "parameters": sum(p.numel() for p in written.parameters()),
        "classes": list(PARTS),
        "command": f"python -m toolkit.nn.slice_pretrain --steps {options.steps} --batch {options.batch} "
                   f"--seed {options.seed}",
        "cpu_hours": round(curve[-1]["seconds"] / 3600, 3),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "final": {name: round(curve[-1][name], 4) for name in ("loss", "accuracy")},
        "accuracy_on_held_out_variants": accuracy(written, options.seed + 1000),
    }  # fmt: skip
    options.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
