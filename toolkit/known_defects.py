"""Choosing few known-defect samples for open-set training, without leaking an object.

Protocol of Open3D-AD: normals plus k samples of each known defect type are given for training and leave the test set.
Here every copy of a chosen object leaves with it (Real3D-AD has each object twice), and the choice is seeded per
category and type, so that adding a type does not change the samples of another.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import HyperparameterError, UnknownNameError

if TYPE_CHECKING:
    from toolkit.data.base import CloudDataset, Sample

PRESETS = {
    "OpenIndustry": ("bump", "deformation"),
    "Real3DAD": ("bulge",),
    "AnomalyShapeNet": ("bulge",),
    "AnomalyIntraVariance": ("bulge",),
    "Synthetic": ("bulge",),
}
"""Known types of the Open3D-AD paper code per dataset. The last two are ours: they have Anomaly-ShapeNet's types."""


@dataclass(frozen=True)
class Choice:
    """Known-defect samples of one category, and what is left to test.

    Attributes:
        train: the chosen samples.
        test: the category's test samples without the chosen ones and their copies.
    """

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


def known_types(known: str, dataset: CloudDataset) -> tuple[str, ...]:
    """Names of known defect types.

    Args:
        known: ``paper`` for the preset of the dataset, names joined by ``+``, or ``N`` for the N most frequent types.
        dataset: whose test samples have the types.

    Raises:
        UnknownNameError: no such type in the dataset, or no preset for it.
    """
    counts: dict[str, int] = {}
    for sample in dataset.samples:
        if sample.split == "test" and sample.y:
            counts[sample.defect] = counts.get(sample.defect, 0) + 1
    name = type(dataset).__name__
    if known == "paper":
        if name not in PRESETS:
            raise UnknownNameError(
                f"--known paper: no preset for {name}; name types of it, joined by +: {', '.join(sorted(counts))}."
            )
        chosen: Sequence[str] = [t for t in PRESETS[name] if t in counts]
        if not chosen:
            raise UnknownNameError(f"--known paper: {name} here has none of {', '.join(PRESETS[name])}.")
    elif known.isdigit():
        ranked = sorted(counts, key=lambda t: (-counts[t], t))
        if not 1 <= int(known) <= len(ranked):
            raise HyperparameterError(f"--known {known}: {name} has {len(ranked)} defect types.")
        chosen = ranked[: int(known)]
    else:
        chosen = known.split("+")
    unknown = [t for t in chosen if t not in counts]
    if unknown:
        raise UnknownNameError(f"--known {known}: {name} has no defect type {', '.join(unknown)}; "
                               f"it has {', '.join(sorted(counts))}.")  # fmt: skip
    return tuple(chosen)


def choose(test: Sequence[Sample], types: Sequence[str], shots: int, seed: int) -> Choice:
    """Take up to `shots` samples of each type out of a category's test samples.

    A category that has fewer objects of a type gives all but one of them, so that the type stays testable.

    Raises:
        HyperparameterError: `shots` below 1.
    """
    if shots < 1:
        raise HyperparameterError(f"--shots {shots}: expected 1 or more.")
    taken: list[Sample] = []
    for kind in types:
        groups: dict[str, list[Sample]] = {}
        for sample in sorted(test, key=lambda s: s.sample_id):
            if sample.y and sample.defect == kind:
                groups.setdefault(sample.group_id, []).append(sample)
        names = sorted(groups)
        category = test[0].category if test else ""
        digest = hashlib.md5(f"{seed}/{category}/{kind}".encode()).hexdigest()
        random.Random(int(digest[:8], 16)).shuffle(names)
        taken += [groups[name][0] for name in names[: min(shots, max(len(names) - 1, 0))]]
    gone = {s.group_id for s in taken}
    return Choice(tuple(taken), tuple(s for s in test if s.group_id not in gone))
