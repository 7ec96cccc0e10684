"""Pre-train CTF-Net on procedural parts: `python -m toolkit.nn.ctf_pretrain`.

RIF (arXiv 2511.13115) learns its features by telling the 40 classes of ModelNet40 apart; per cloud: S3DA, Point
Coordinate Mapping, CTF-Net, cross-entropy. Same: that order, labels smoothed by 0.2. Different: the classes are the 20
categories of `toolkit.data.parts`, of whose variants the last is held out; samples are neighbourhoods of the mapped
cloud rather than all of it (``patches=0``), as neighbourhoods are what the network meets in use; AdamW with a warm-up
and a linear decay over hundreds of steps, where the published schedule is 200 epochs of SGD (script of the released
code).

Added, as classification alone leaves features that are of no use here: CTF-Net convolves along a group's points in
order of their distance from its centre, and between two scans that order is chance. Measured on random weights, in
units of the mean distance between the features of two places: the same place in another scan lies 0.19 away, a surface
that is 0.03 further out 0.04. (Without the neighbours' weights in the convolutions it is 0.02 and 0.04, and the point
AUROC on class clamp0 of the household scans rises from 0.409 to 0.880.) So

* training starts with the neighbours' weights at 0 (``pointwise=False`` starts from random ones);
* a second loss (InfoNCE, weight ``contrast``; 0 = published) asks that of the features of all places of a batch, and of
  the place itself with its surface pushed in or out, that of the same place in another scan be the nearest.

What 400 steps (20 CPU minutes) gave, on held-out variants: the same place in another scan lies 0.18 away and one with a
defect 0.31 (random weights 0.18 and 0.18; random ones without neighbours 0.04 and 0.06). So the second loss makes
defects stand out more. The first has just begun to work: the category of a neighbourhood is told in 14 % (chance 5 %),
that of a whole cloud, which the network is not trained on, not at all; the slices of `toolkit.nn.slice_pretrain` tell
93 % after 3 CPU minutes. Both losses were still falling, but 600 steps gave 0.19, 0.32 and, in use, 0.05 fewer objects
and 0.015 more points (see `strategies.rif`). Not tried: the published 200 epochs, ``contrast=0``.

Earlier weights (250 steps of 4 objects instead of 12, whole clouds among the samples, and a batch of its own for each
kind of group, so that batch norm saw in training what it never sees in use) gave 0.738 / 0.883 (object / point AUROC,
mean of the 8 household classes) where these give 0.843 / 0.882, all else equal.

The file ``OUTPUT.partial`` is written every 25 steps; the same command goes on from there and ends with the weights of
an uninterrupted run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.data.parts import PARTS
from toolkit.nn.ctf_net import SHIPPED, CTFNet, Depthwise, load_ctf_net, save
from toolkit.nn.ctf_samples import Parts

SHAPES, PLACES = 12, 16
"""Objects per step of the second loss, and places on each."""


def pretrain(seed: int = 0, *, steps: int = 400, batch: int = 16, size: int = 32, patches: float = 1.0,
             contrast: float = 1.0, pointwise: bool = True, lr: float = 2e-3, weight_decay: float = 1e-2,
             smoothing: float = 0.2, bf16: bool = False, partial: Path | None = None,
             stop: int | None = None) -> tuple[CTFNet, list[dict[str, float]]]:  # fmt: skip
    """Train CTF-Net from scratch, or go on with what ``partial`` holds.

    Args:
        seed: of weights and samples.
        steps: number of steps.
        batch: groups to be named per step; those of the second loss are named too.
        size: points per neighbourhood and four times as many per whole cloud.
        patches: share of neighbourhoods among those of ``batch``; 0 for whole clouds only, as published.
        contrast: weight of the second loss, see above.
        pointwise: start without the neighbours' weights, see above.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        smoothing: of the labels.
        bf16: bfloat16 where the hardware has it.
        partial: file of the state between steps.
        stop: end after so many steps of all, to be continued.

    Returns:
        The network in evaluation mode and the curve: per 25 steps means of both losses, accuracy, and how often the
        nearest feature was the right one; learning rate, CPU seconds.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CTFNet(len(PARTS), bf16=bf16).train()
        if pointwise:
            without_neighbours(model)
        parts = Parts(False, torch.Generator().manual_seed(seed))
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
        curve: list[dict[str, float]] = []
        start, done, recent = time.process_time(), 0, []
        if partial is not None and partial.is_file():
            state = torch.load(partial, weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            parts.generator.set_state(state["samples"])
            torch.set_rng_state(state["dropout"])
            curve, done = state["curve"], state["step"]
            start -= curve[-1]["seconds"]
        for step in range(done, min(steps, stop or steps)):
            rate = lr * min(1, (step + 1) / 30, (steps - step) / (0.4 * steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, seen = _losses(model, parts, batch, size, patches, contrast, smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            recent.append(seen)
            if (step + 1) % 25 == 0 or step + 1 == steps:
                means = torch.tensor(recent).mean(0).tolist()
                curve.append(dict(step=step + 1, loss=means[0], accuracy=means[1], contrast=means[2], found=means[3],
                                  lr=rate, seconds=round(time.process_time() - start, 1)))  # fmt: skip
                recent = []
                print(", ".join(f"{name} {value:.4g}" for name, value in curve[-1].items()), flush=True)
                if partial is not None:
                    _store(partial, dict(model=model.state_dict(), optimizer=optimizer.state_dict(), curve=curve,
                                         samples=parts.generator.get_state(), dropout=torch.get_rng_state(),
                                         step=step + 1))  # fmt: skip
    return model.eval().requires_grad_(False), curve


def without_neighbours(model: CTFNet) -> None:
    """Set the weights to 0 with which convolutions look at the points before and behind."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, Depthwise):
                weight = layer.convolution.weight
                middle = torch.zeros_like(weight)
                middle[:, :, weight.shape[2] // 2] = weight.sum(2)
                weight.copy_(middle)


def _losses(model: CTFNet, parts: Parts, batch: int, size: int, patches: float, contrast: float,
            smoothing: float) -> tuple[Tensor, tuple[float, float, float, float]]:  # fmt: skip
    """The loss of a step, and cross-entropy, accuracy, second loss and share found of the curve."""
    clouds = round(batch * (1 - patches))
    features, classes = [], []
    if clouds > 1:  # batch norm needs two
        whole, target = parts.draw(clouds, 4 * size, torch.zeros(clouds, dtype=torch.bool))
        features.append(model.features(whole))
        classes.append(target)
    groups: list[Tensor] = []
    if batch > clouds:
        group, target = parts.draw(batch - clouds, size, torch.ones(batch - clouds, dtype=torch.bool))
        groups.append(group)
        classes.append(target)
    if contrast:
        pairs = parts.pairs(SHAPES, PLACES, size)
        groups += pairs[:3]
        classes.append(pairs.target)
    second, found = torch.zeros(()), 0.0
    if groups:  # in one go: batch norm is to see in training what it sees in use
        feature = model.features(torch.cat(groups))
        if contrast:
            feature, other, defect = feature.tensor_split([len(feature) - 2 * len(pairs.first), -len(pairs.first)])
            second, found = same_place(feature[-len(pairs.first) :], other, defect)
        features.append(feature)
    logits, target = model.classifier(torch.cat(features)), torch.cat(classes)
    loss = F.cross_entropy(logits, target, label_smoothing=smoothing)
    right = float((logits.argmax(1) == target).float().mean())
    return loss + contrast * second, (loss.item(), right, second.item(), found)


def same_place(first: Tensor, second: Tensor, defect: Tensor, temperature: float = 0.05) -> tuple[Tensor, float]:
    """InfoNCE on squared distances, in units of their mean between different places.

    Args:
        first: (B, D) features of places.
        second: (B, D) of the same in another scan.
        defect: (B, D) of the same with a defect.
        temperature: difference of squared distances that counts as one unit of the loss.

    Returns:
        The loss, and the share of places whose nearest candidate is the same place without defect.
    """
    away = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").square()
    broken = (first - defect).square().sum(1, keepdim=True)
    different = ~torch.eye(len(first), dtype=torch.bool)
    unit = away[different].mean().detach().clamp_min(1e-12)
    logits = -torch.cat([away, broken], 1) / unit / temperature
    target = torch.arange(len(first))
    return F.cross_entropy(logits, target), float((logits.argmax(1) == target).float().mean())


def _store(path: Path, state: dict[str, Any]) -> None:
    """Write so that a kill leaves the old file or the new one, never a part of one."""
    fresh = path.with_name(path.name + ".new")
    torch.save(state, fresh)
    fresh.replace(path)


def judge(model: CTFNet, seed: int, samples: int = 400, size: int = 32) -> dict[str, float]:
    """How a network does on held-out variants.

    Returns:
        ``clouds`` and ``neighbourhoods``: share whose category is told right; chance is 0.05. ``places``: share of
        places whose feature in another scan is the nearest among 64, the defect of that place included. ``noise`` and
        ``defects``: root mean square distance of the same place in another scan, and of that place with a defect, over
        that of different places.
    """
    found: dict[str, float] = {}
    parts = Parts(True, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for name, patch, points in (("clouds", False, 4 * size), ("neighbourhoods", True, size)):
            groups, target = parts.draw(samples, points, torch.full((samples,), patch))
            found[name] = float((model(groups).argmax(1) == target).float().mean())
        rows = []
        for _ in range(-(-samples // (SHAPES * PLACES))):
            pairs = parts.pairs(SHAPES, PLACES, size)
            first, second, defect = (model.features(g) for g in pairs[:3])
            away = torch.cdist(first, second).square()
            unit = away[~torch.eye(len(away), dtype=torch.bool)].mean()
            rows.append([same_place(first, second, defect)[1], float(away.diagonal().mean() / unit),
                         float((first - defect).square().sum(1).mean() / unit)])  # fmt: skip
    places, noise, defects = torch.tensor(rows).mean(0).tolist()
    return {**found, "places": places, "noise": noise**0.5, "defects": defects**0.5}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, judge what was written, and write its record and curve."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.nn.ctf_pretrain", description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16, help="groups to be named per step")
    parser.add_argument("--size", type=int, default=32, help="points per neighbourhood")
    parser.add_argument("--patches", type=float, default=1.0, help="share of neighbourhoods among the batch")
    parser.add_argument("--contrast", type=float, default=1.0, help="weight of the second loss; 0 = published")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16 where the hardware has it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=SHIPPED, help=f"weights file (default {SHIPPED.name})")
    options = parser.parse_args(arguments)
    partial = options.output.with_suffix(".partial")
    model, curve = pretrain(options.seed, steps=options.steps, batch=options.batch, size=options.size,
                            patches=options.patches, contrast=options.contrast, bf16=options.bf16,
                            partial=partial)  # fmt: skip
    save(model, options.output)
    lines = [",".join(curve[0]), *(",".join(f"{value:.6g}" for value in row.values()) for row in curve)]
    options.output.with_suffix(".csv").write_text("\n".join(lines) + "\n")
    model = load_ctf_net(options.output)  # what was written is what is judged
    record = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "classes": list(PARTS),
        "command": f"python -m toolkit.nn.ctf_pretrain --steps {options.steps} --batch {options.batch} "
                   f"--size {options.size} --patches {options.patches} --contrast {options.contrast} "
                   f"--seed {options.seed}{' --bf16' * options.bf16}",
        "cpu_hours": round(curve[-1]["seconds"] / 3600, 3),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "final": {name: round(curve[-1][name], 4) for name in ("loss", "accuracy", "contrast", "found")},
        "held_out_variants": judge(model, options.seed + 1000, size=options.size),
    }  # fmt: skip
    options.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    partial.unlink(missing_ok=True)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
