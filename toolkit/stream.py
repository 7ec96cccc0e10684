"""From a scenario's tasks to Avalanche streams, and the one place where test labels are taken off."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from avalanche.benchmarks import CLScenario, DatasetExperience
from avalanche.benchmarks.scenarios.generic_scenario import EagerCLStream
from avalanche.benchmarks.utils import DataAttribute, TaskAwareSupervisedClassificationDataset

from toolkit.cloud import CloudBatch, PointCloud
from toolkit.data.base import CloudDataset, Sample
from toolkit.scenario import Scenario, Task, check_leaks


class CloudList(torch.utils.data.Dataset):
    """A list of clouds that are loaded when asked for; items are ``(PointCloud, category id)``.

    Args:
        name: identifies the list within a run (``"train/0"``); checkpoints refer to it instead of storing clouds.
        samples: what is in the list.
        load: gives the cloud of a sample.
        targets: category id of each sample (Avalanche calls it the class).
    """

    def __init__(self, name: str, samples: Sequence[Sample], load: Callable[[Sample], PointCloud],
                 targets: Sequence[int]):  # fmt: skip
        self.name = name
        self.samples = list(samples)
        self.load = load
        self.targets = list(targets)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[PointCloud, int]:
        return self.load(self.samples[row]), self.targets[row]

    def clouds(self) -> LazyClouds:
        """All clouds as a sequence; each is loaded when it is reached."""
        return LazyClouds(self)


class LazyClouds(Sequence[PointCloud]):
    """The clouds of a CloudList as a read-only sequence that holds none of them."""

    def __init__(self, clouds: CloudList):
        self._clouds = clouds

    def __len__(self) -> int:
        return len(self._clouds)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        return self._clouds.load(self._clouds.samples[row])


def collate(items: Sequence[tuple[PointCloud, int, int]]) -> list[Any]:
    """``[CloudBatch, category ids (B,), task labels (B,)]``: the mini-batch that Avalanche's plugins unpack."""
    clouds, targets, tasks = zip(*items)
    return [CloudBatch.collate(clouds), torch.tensor(targets), torch.tensor(tasks)]


def avalanche_dataset(clouds: CloudList) -> TaskAwareSupervisedClassificationDataset:
    """Wrap a CloudList so that Avalanche's buffers, loaders and plugins can work with it. Copies no cloud."""
    return TaskAwareSupervisedClassificationDataset(
        [clouds],
        data_attributes=[DataAttribute(clouds.targets, "targets"),
                         DataAttribute([0] * len(clouds), "targets_task_labels", use_in_getitem=True)],
        collate_fn=collate,
    )  # fmt: skip


def anonymous_id(sample: Sample) -> str:
    """The identity under which a strategy sees a test cloud: stable, unique, and silent about the label."""
    return hashlib.sha1(sample.sample_id.encode()).hexdigest()[:16]


def anonymous(sample: Sample) -> Sample:
    """What a test experience knows of a cloud: its class and an `anonymous_id`. The label is -1, which is none."""
    name = anonymous_id(sample)
    return Sample(sample.category, "test", name, name, -1, subcategory=sample.subcategory)


class CloudExperience(DatasetExperience):
    """An Avalanche experience over a CloudList.

    Attributes:
        clouds: the CloudList.
        task: the scenario's task; its test samples, and for test experiences its name, are anonymous.
    """

    def __init__(self, clouds: CloudList, task: Task, position: int):
        super().__init__(dataset=avalanche_dataset(clouds), current_experience=position)
        self.clouds = clouds
        self.task = task

    def with_clouds(self, clouds: CloudList) -> CloudExperience:
        """The same experience over other clouds, e.g. prepared ones."""
        other = CloudExperience(clouds, self.task, self.current_experience)
        other._origin_stream = self._origin_stream
        return other


def build(scenario: Scenario | Sequence[Task], dataset: CloudDataset,
          load: Callable[[Sample], PointCloud] | None = None, independent: bool = False) -> CLScenario:  # fmt: skip
    """Avalanche streams of a scenario on a dataset.

    Args:
        scenario: a Scenario, or its tasks.
        dataset: where the clouds come from.
        load: replaces ``dataset.load``, e.g. by a cached version.
        independent: the tasks are separate experiments (a Scenario says so itself).

    Test experiences hold clouds and samples without labels, under anonymous identities.

    Raises:
        LeakError: an object would be on both sides of a split.
    """
    if isinstance(scenario, Scenario):
        independent = scenario.independent
    tasks = scenario.tasks(dataset) if isinstance(scenario, Scenario) else list(scenario)
    check_leaks(tasks, independent)
    load = load or dataset.load
    ids = {category: i for i, category in enumerate(dataset.categories)}

    tested = {anonymous_id(s): s for task in tasks for s in task.test}

    def load_unlabelled(sample: Sample) -> PointCloud:
        cloud = load(tested[sample.sample_id]).unlabelled()
        cloud.sample_id = cloud.group_id = sample.sample_id  # names like "mug0_bulge0" would give the label away
        return cloud

    train: list[CloudExperience] = []
    test: list[CloudExperience] = []
    for position, task in enumerate(tasks):
        blank = Task(f"task {position + 1}", (), tuple(anonymous(s) for s in task.test))
        for name, known, samples, loader, stream in (("train", replace(task, test=blank.test), task.train, load, train),
                                                     ("test", blank, blank.test, load_unlabelled, test)):  # fmt: skip
            clouds = CloudList(f"{name}/{position}", samples, loader, [ids[s.category] for s in samples])
            stream.append(CloudExperience(clouds, known, position))
    return CLScenario([EagerCLStream("train", train), EagerCLStream("test", test)])
