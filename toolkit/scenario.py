"""What a scenario is: a frozen, seeded description that turns a dataset into an ordered list of tasks.

Light to import (no torch), so that help, listings and dry runs answer at once. `toolkit.stream` makes Avalanche
streams of the tasks.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from toolkit.errors import HyperparameterError, LeakError, UnknownNameError

if TYPE_CHECKING:
    from toolkit.data.base import CloudDataset, Sample


@dataclass(frozen=True)
class Task:
    """One experience of a stream: what is given for training and what is tested.

    Attributes:
        name: for tables and figures.
        train: clouds to learn from. Normal ones, and in open-set streams a few known defective ones.
        test: clouds to score. Their labels are kept from the strategy.
    """

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def categories(self) -> list[str]:
        """Categories of the task in order of first appearance."""
        return list(dict.fromkeys(s.category for s in (*self.train, *self.test)))


@dataclass(frozen=True)
class Slice:
    """A part of the test clouds that gets its own AUROC and AP: known defects, unseen variants, ...

    Attributes:
        name: key in ``result.json``.
        keeps: tells from a test sample and the state of training (-1, 0, ..) whether the sample belongs.
        threshold_from: name of another slice. If given, the rate of false alarms among this slice's normal clouds is
            reported, at a threshold set per category on the other slice's normal clouds.
    """

    name: str
    keeps: Callable[[Sample, int], bool]
    threshold_from: str = ""


@dataclass(frozen=True)
class Scenario:
    """Base of all scenarios. Fields are the scenario's options and become command-line options."""

    offers: ClassVar[tuple[str, ...]] = ()
    """What its streams give beyond normal training clouds: ("known_defects",)."""

    @property
    def independent(self) -> bool:
        """Whether tasks are separate experiments: the strategy restarts before each, and sees only its clouds."""
        return False

    def tasks(self, dataset: CloudDataset) -> list[Task]:
        """The stream. Must be a pure function of the dataset's sample list and the scenario's fields."""
        raise NotImplementedError

    def slices(self, dataset: CloudDataset, tasks: Sequence[Task]) -> list[Slice]:
        """Parts of the test clouds that are reported on their own, beside all of them."""
        return []

    def transform(self, sample: Sample, cloud: Any) -> Any:
        """A change of a PointCloud that belongs to the stream, such as another scanner; a pure function.

        Not annotated as PointCloud: the command line's help evaluates annotations, and must not load torch.
        """
        return cloud

    def arguments(self) -> dict[str, Any]:
        """Fields and values, for the run's spec."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def check_leaks(tasks: Sequence[Task], independent: bool = False) -> None:
    """No physical object may stand on both sides, and no cloud may be given for training twice.

    Args:
        tasks: of the stream.
        independent: tasks are separate experiments, each with a fresh model: what one gives, another may test.

    Raises:
        LeakError: naming the first object that does.
    """
    if independent:
        for task in tasks:
            check_leaks([task])
        return
    trained: dict[tuple[str, str], str] = {}
    for task in tasks:
        for sample in task.train:
            trained.setdefault((sample.category, sample.group_id), sample.sample_id)
    seen: dict[str, str] = {}
    for task in tasks:
        for sample in task.train:
            if sample.sample_id in seen:
                raise LeakError(
                    f"{sample.sample_id} is given for training twice ({seen[sample.sample_id]}, {task.name})."
                )
            seen[sample.sample_id] = task.name
        for sample in task.test:
            twin = trained.get((sample.category, sample.group_id))
            if twin is not None:
                raise LeakError(f"{sample.sample_id} (test, {task.name}) is the same object as {twin} (training). "
                                "A split must keep all copies of an object on one side.")  # fmt: skip


def split_categories(split: str, order: str, dataset: CloudDataset) -> list[list[str]]:
    """Ordered groups of categories.

    Args:
        split: the name of a published split of the dataset (``3_3_3_3``); ``even:K`` for K tasks of equal size, the
            first ones larger by one where it does not divide; ``sizes:3,3,2``; or the groups themselves,
            ``mug+bowl|bolt|nut``.
        order: ``listed`` (as published; alphabetical for even and sizes), ``alphabetical``, ``reversed``,
            ``random:SEED``, or ``hardest:RESULT.json``, which puts the categories first on which that run had the
            lowest object AUROC; reorders the categories and keeps the sizes of the groups.
        dataset: gives the category names and the published splits.

    Raises:
        UnknownNameError: no such split or category.
        HyperparameterError: sizes that do not fit, or a malformed order.
    """
    categories = dataset.categories
    name = type(dataset).__name__
    published = dataset.published_splits
    sizes: list[int] | None = None
    if split in published:
        groups = [list(g) for g in published[split]]
    elif "|" in split or "+" in split or split in categories:
        groups = [g.split("+") for g in split.split("|")]
    else:
        kind, _, numbers = split.partition(":") if ":" in split else ("sizes", "", split.replace("_", ","))
        try:
            values = [int(v) for v in numbers.split(",")]
        except ValueError:
            raise UnknownNameError(_split_help(split, dataset)) from None
        if kind == "even" and len(values) == 1:
            count = values[0]
            if not 1 <= count <= len(categories):
                raise HyperparameterError(f"--split {split}: {name} has {len(categories)} categories; "
                                          f"expected between 1 and {len(categories)} tasks.")  # fmt: skip
            sizes = [len(categories) // count + (i < len(categories) % count) for i in range(count)]
        elif kind == "sizes":
            sizes = values
        else:
            raise UnknownNameError(_split_help(split, dataset))
        if sum(sizes) != len(categories) or min(sizes) < 1:
            raise HyperparameterError(f"--split {split}: sizes {sizes} sum to {sum(sizes)}, but {name} has "
                                      f"{len(categories)} categories ({', '.join(categories)}).")  # fmt: skip
        groups = _cut(categories, sizes)
    flat = [c for g in groups for c in g]
    unknown = [c for c in flat if c not in categories]
    if unknown:
        raise UnknownNameError(f"--split {split}: {name} at this root has no category {', '.join(unknown)}; "
                               f"it has {', '.join(categories)}.")  # fmt: skip
    if len(set(flat)) != len(flat):
        raise LeakError(f"--split {split} names a category twice.")
    return _cut(_reorder(flat, order), [len(g) for g in groups])


def _reorder(names: list[str], order: str) -> list[str]:
    kind, _, seed = order.partition(":")
    if kind == "listed" and not seed:
        return names
    if kind == "alphabetical" and not seed:
        return sorted(names)
    if kind == "reversed" and not seed:
        return names[::-1]
    if kind == "random" and (seed or "0").isdigit():
        names = sorted(names)
        random.Random(int(seed or 0)).shuffle(names)
        return names
    if kind == "hardest" and seed:
        difficulty = _difficulty(seed)
        missing = [n for n in names if n not in difficulty]
        if missing:
            raise UnknownNameError(f"--order {order}: that run has no result for {', '.join(missing)}.")
        return sorted(names, key=lambda n: (difficulty[n], n))
    raise HyperparameterError(
        f"--order {order}: expected listed, alphabetical, reversed, random:SEED or hardest:RESULT.json."
    )


def _difficulty(path: str) -> dict[str, float]:
    """Object AUROC per category of a finished run."""
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)["per_category"]
        return {row["category"]: row["object_auroc"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnknownNameError(f"--order hardest:{path} is no result.json of a finished run ({error}).") from error


def _cut(names: list[str], sizes: list[int]) -> list[list[str]]:
    groups, start = [], 0
    for size in sizes:
        groups.append(names[start : start + size])
        start += size
    return groups


def _split_help(split: str, dataset: CloudDataset) -> str:
    published = ", ".join(dataset.published_splits) or "none published"
    return (f"--split {split}: expected a published split of {type(dataset).__name__} ({published}), even:K, "
            f"sizes:a,b,c, or groups like mug+bowl|bolt.")  # fmt: skip
