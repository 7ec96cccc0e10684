"""Finished runs for tests: trained toys, and runs made up of given scores."""

import numpy as np
import pandas as pd

from scenarios.class_incremental import ClassIncremental
from tests.toys import Toy, ToyBank, ToyNet
from toolkit.metrics import chaudhry_forgetting, r_matrix_from_scores
from toolkit.registry import resolve
from toolkit.runs.load import FinishedRun
from toolkit.runs.runner import run
from toolkit.runs.spec import FORMAT, Part, RunSpec

ENVIRONMENT = {"python": "3", "packages": {"torch": "2"}, "commit": "abc", "platform": "Linux", "cpu_capability": "x",
               "threads": 1, "gpu": None}  # fmt: skip


def toy_run(output, mode="Naive", strategy_class=ToyNet, seed=0, scenario=None, dataset=None, width=16, **more):
    """Train a toy as the command line would, so that it can be loaded again; returns the folder."""
    scenario, dataset, continual = (
        scenario or ClassIncremental("even:3"),
        dataset or Toy(),
        resolve("continual", mode)(),
    )
    options = {"width": width} if strategy_class is ToyNet else {}
    strategy = strategy_class(seed=seed, plugins=continual.plugins(), **options)
    arguments = {"categories": dataset.count, "points": dataset.points}
    spec = RunSpec(Part.of(type(scenario), scenario.arguments()), Part.of(type(dataset), arguments),
                   Part.of(strategy_class, strategy.arguments()), Part.of(type(continual), continual.arguments()), seed,
                   dataset.fingerprint(), **more)  # fmt: skip
    return run(spec, scenario, dataset, strategy, continual, output)


def toy_runs(output):
    """Two methods with two seeds each; returns the folders."""
    return [toy_run(output, "Naive", cls, seed) for cls in (ToyNet, ToyBank) for seed in (0, 1)]


def made_up(score, name="Method", seed=0, tasks=3, objects=12, independent=False, order="listed", fingerprint="f",
            arguments=None):  # fmt: skip
    """A finished run without files: `score(state, y, rng)` gives the scores of a task's `objects` test clouds.

    Every task has one category with as many normal as defective clouds.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for state in range(tasks):
        for task in range(tasks):
            if independent and task != state:
                continue
            y = np.arange(objects) % 2
            for i, value in enumerate(score(state, y, rng)):
                cloud = f"c{task}/{i}"
                rows.append((state, task, f"c{task}", f"c{task}", cloud, cloud, "dent" if y[i] else "", int(y[i]),
                             float(value), f"c{task}", ";"))  # fmt: skip
    columns = ["trained_on", "experience", "category", "subcategory", "sample_id", "group_id", "defect", "y",
               "object_score", "given_category", "slices"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    matrix = r_matrix_from_scores(table, tasks=tasks)
    spec = RunSpec(Part("ClassIncremental", {"split": f"even:{tasks}", "order": order}), Part("Toy"),
                   Part(name, arguments or {}), Part("Naive"), seed, fingerprint)  # fmt: skip
    final = float(np.nanmean(np.diagonal(matrix, -1) if independent else matrix[-1]))
    result = {
        "format": FORMAT, "spec": spec.as_dict(), "hash": spec.hash, "tasks": [f"c{i}" for i in range(tasks)],
        "categories": [[f"c{i}"] for i in range(tasks)], "independent_tasks": independent, "slices": {}, "drift": {},
        "final": {"object_auroc": final, "point_auroc": None},
        "continual": {"forgetting": None if independent else chaudhry_forgetting(matrix)},
        "matrices": {"object_auroc": [[None if np.isnan(v) else v for v in row] for row in matrix],
                     "point_auroc": [[None] * tasks] * (tasks + 1)},
        "per_category": [{"category": f"c{i}", "point_auroc": None} for i in range(tasks)],
        "cost": {"train_seconds": 1.0, "score_seconds_per_cloud": 0.1, "state_bytes": 2**20, "peak_memory_mb": 100.0,
                 "trainable_parameters": 0},
        "environment": ENVIRONMENT,
    }  # fmt: skip
    run = FinishedRun(None, result)
    run.__dict__["scores"] = table
    run.__dict__["pairs"] = pd.DataFrame()
    return run


def separated(distance):
    """Scores of defective clouds lie `distance` standard deviations above those of normal ones."""
    return lambda state, y, rng: rng.normal(size=len(y)) + distance * y
