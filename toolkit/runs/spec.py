"""What a run is: scenario x dataset x strategy x continual mode x seed, and the hash that names its folder."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import HyperparameterError
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
        evaluate: what is tested after each task, see `tested`.
        save_point_scores: also keep the score of every point.
        precision: of training steps: float32, or bf16 for mixed precision.
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
    precision: str = "float32"
    threads: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        evaluation(self.evaluate)
        if self.precision not in ("float32", "bf16"):
            raise HyperparameterError(f"--precision {self.precision}: expected float32 or bf16.")

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
        if self.precision == "float32":
            del facts["precision"]
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


def evaluation(text: str) -> str:
    """`text` if `tested` knows it.

    Raises:
        HyperparameterError: it does not.
    """
    if text in ("all", "seen", "new") or re.fullmatch(r"sampled:[1-9]\d*", text):
        return text
    raise HyperparameterError(f"--evaluate {text}: expected all, seen, new or sampled:K, such as sampled:10.")


def tested(evaluate: str, position: int, tasks: int, last: bool) -> list[int]:
    """Positions of the tasks whose clouds are tested after the task at `position`.

    ``all``: every task's; ``seen``: those of the tasks seen so far; ``new``: the one just learned; ``sampled:K``: that
    one and K of those before it, drawn anew each time, alike for all methods and seeds. After the last task all are
    tested. The number of tests grows with the square of the number of tasks for the first two, and with it for the
    others; average, BWT and learning accuracy are the same for all, while forgetting, whose best value before the end
    is that of the tests made, is a lower bound (with ``new`` it is -BWT).
    """
    if evaluate == "all" or last:
        return list(range(tasks))
    if evaluate == "seen":
        return list(range(position + 1))
    count = 0 if evaluate == "new" else int(evaluate.partition(":")[2])
    drawn = random.Random(f"sampled evaluation {position}").sample(range(position), min(count, position))
    return [*sorted(drawn), position]


def flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, plain value) of everything in nested dicts, e.g. ``("strategy.arguments.epochs", 50)``."""
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [pair for key, part in value.items() for pair in flat(part, f"{prefix}.{key}" if prefix else str(key))]
