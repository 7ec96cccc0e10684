"""What a run is: scenario x dataset x strategy x continual mode x seed, and the hash that names its folder."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toolkit.registry import KINDS, entries

FORMAT = 1
"""Version of the files a run leaves; raised when their meaning changes."""


@dataclass(frozen=True)
class Part:
    """A named class and its arguments.

    Attributes:
        name: of the class.
        arguments: of its constructor.
        source: where a class from outside the toolkit is found again, ``module:Class`` or ``file.py:Class``; recorded
            and not hashed, like a dataset's root.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def of(cls, thing: type, arguments: dict[str, Any]) -> Part:
        """The part that a class plays in a run."""
        name, module = thing.__name__, thing.__module__
        if any(entries(kind).get(name, None) and entries(kind)[name].module == module for kind in KINDS):
            return cls(name, arguments)
        return cls(name, arguments, f"{module if '.' in module else inspect.getfile(thing)}:{name}")


@dataclass(frozen=True)
class RunSpec:
    """All that determines a run's scores.

    Attributes:
        scenario, dataset, strategy, continual: class names and arguments. A dataset's ``root`` is recorded but not
            hashed: the same data elsewhere is the same run; `fingerprint` stands for the data.
        seed: of initialisation, training and scoring.
        fingerprint: of the dataset's content.
        evaluate: "all" tests every task's clouds after each task, "seen" only those of the tasks seen so far, "new"
            only those of the task just learned and all of them after the last: cost grows with the number of tasks, not
            with its square. Average, BWT and learning accuracy are the same; forgetting is then -BWT.
        save_point_scores: also keep the score of every point.
        threads, device: recorded and not hashed, but equal bytes are promised only for equal threads on the CPU.
    """

    scenario: Part
    dataset: Part
    strategy: Part
    continual: Part
    seed: int
    fingerprint: str
    evaluate: str = "all"
    save_point_scores: bool = False
    threads: int = 0
    device: str = "cpu"

    @property
    def hash(self) -> str:
        """Ten hex digits; equal for specs that must give equal scores."""
        facts = self.as_dict()
        for name in ("threads", "device"):
            del facts[name]
        facts["dataset"]["arguments"].pop("root", None)
        for part in ("scenario", "dataset", "strategy", "continual"):
            facts[part].pop("source", None)
        if not self.save_point_scores:
            del facts["save_point_scores"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:10]

    def folder(self, output: str | Path) -> Path:
        """``OUTPUT/<scenario>/<dataset>/<strategy>/<hash>``; the continual mode is part of the strategy's name."""
        method = self.strategy.name + ("" if self.continual.name == "Naive" else f"-{self.continual.name}")
        return Path(output) / self.scenario.name / self.dataset.name / method / self.hash

    @property
    def method(self) -> str:
        """Name for tables: strategy, with the continual mode unless it is naive."""
        return self.strategy.name + ("" if self.continual.name == "Naive" else f" + {self.continual.name}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the format version."""
        facts = {"format": FORMAT, **asdict(self)}
        for part in ("scenario", "dataset", "strategy", "continual"):
            if not facts[part]["source"]:
                del facts[part]["source"]
        return facts

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> RunSpec:
        """The inverse of `as_dict`."""
        facts = {k: v for k, v in facts.items() if k != "format"}
        parts: dict[str, Any] = {k: Part(**facts.pop(k)) for k in ("scenario", "dataset", "strategy", "continual")}
        return cls(**parts, **facts)


def flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, plain value) of everything in nested dicts, e.g. ``("strategy.arguments.epochs", 50)``."""
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [pair for key, part in value.items() for pair in flat(part, f"{prefix}.{key}" if prefix else str(key))]
