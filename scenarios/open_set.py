"""Open-set 3D anomaly detection: a few samples of some defect types are known, others turn up at test time.

Protocol of Open3D-AD: normals plus `shots` samples of each known type for training; AUROC and AP on all, on known and
on unknown defects, each against the same normals.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if __package__ in (None, ""):  # run as a script, from any folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from toolkit.errors import HyperparameterError
from toolkit.known_defects import choose, known_types
from toolkit.scenario import Scenario, Slice, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.data.base import CloudDataset

__all__ = ["OpenSet"]


@dataclass(frozen=True)
class OpenSet(Scenario):
    """Few samples of some defect types are given for training; all types are tested. One model per category.

    Args:
        known: paper (the preset of the Open3D-AD code for the dataset), names joined by +, or N for the N most
            frequent.
        shots: known samples per type and category.
        draw: seed of the choice of samples (the paper's tables average draws 1 to 5).
        test_of: KNOWN:SHOTS of a larger setting, whose test clouds are used, so that settings can be compared on the
            same clouds; --curve sets it.
    """

    known: str = "paper"
    shots: int = 5
    draw: int = 1
    test_of: str = ""

    offers: ClassVar[tuple[str, ...]] = ("known_defects",)

    @property
    def independent(self) -> bool:
        """A fresh model per category."""
        return True

    def tasks(self, dataset: CloudDataset) -> list[Task]:
        """One independent task per category."""
        types = known_types(self.known, dataset)
        widest, most = self._setting_tested(dataset)
        if not set(types) <= set(widest) or self.shots > most:
            raise HyperparameterError(f"--test-of {self.test_of}: it must take in --known {self.known} and "
                                      f"--shots {self.shots}, or objects would be trained and tested.")  # fmt: skip
        tasks = []
        for category in dataset.categories:
            test = dataset.select(category=category, split="test")
            chosen = choose(test, types, self.shots, self.draw)
            normal = tuple(dataset.select(category=category, split="train"))
            tasks.append(Task(category, normal + chosen.train, choose(test, widest, most, self.draw).test))
        if not any(s.y for task in tasks for s in task.train):
            raise HyperparameterError(f"--known {self.known}: every category has a single object of each type, which "
                                      "is needed for testing; name types with more objects.")  # fmt: skip
        return tasks

    def _setting_tested(self, dataset: CloudDataset) -> tuple[tuple[str, ...], int]:
        """Types and shots whose samples leave the test set."""
        if not self.test_of:
            return known_types(self.known, dataset), self.shots
        known, _, shots = self.test_of.rpartition(":")
        if not known or not shots.isdigit():
            raise HyperparameterError(f"--test-of {self.test_of}: expected KNOWN:SHOTS, e.g. bulge:10.")
        return known_types(known, dataset), int(shots)

    def slices(self, dataset: CloudDataset, tasks: Sequence[Task]) -> list[Slice]:
        """Known and unknown defect types, each with all normals."""
        types = known_types(self.known, dataset)
        return [
            Slice("known", lambda s, _: not s.y or s.defect in types),
            Slice("unknown", lambda s, _: not s.y or s.defect not in types),
        ]


if __name__ == "__main__":
    from toolkit.cli import scenario_main

    sys.exit(scenario_main("OpenSet"))
