"""What a stream of many categories costs beside training and scoring: banks, sample records, scores, R matrices.

    python -m benchmarks.scale_limits [--csv FILE]

Processor seconds of one thread, so that a busy machine does not matter, and bytes. `docs/scale.md` quotes the CSV.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyarrow.dataset import field

from toolkit.data.synthetic import Synthetic
from toolkit.metrics import r_matrix_from_scores
from toolkit.nn.bank import bank_bytes, update
from toolkit.runs.files import write_parquet, write_yaml
from toolkit.runs.ledger import COLUMNS
from toolkit.runs.query import scores
from toolkit.runs.spec import Part, RunSpec

ROWS, WIDTH = 64, 34  # of a category in the bank: FPFH and the expected distance


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and its result."""
    begin = time.process_time()
    result = function()
    return time.process_time() - begin, result


def bank_rows() -> list[tuple[str, str, float, str]]:
    """One more category arrives in a bank that holds many."""
    found = []
    for count in (100, 300, 1000):
        generator = torch.Generator().manual_seed(0)
        share, rest = divmod(4_000_000 // (4 * WIDTH), count)
        new = {"new": torch.rand(ROWS, WIDTH, generator=generator)}
        full = {f"c{i:04d}": torch.rand(min(share + (i < rest), ROWS), WIDTH, generator=generator)
                for i in range(count)}  # fmt: skip
        seconds, bank = timed(lambda full=full, new=new: update(full, new, policy="quota", budget="4MB"))
        found.append((f"bank, quota of 4 MB, {count} categories", "s per task", seconds, ""))
        found.append((f"bank, quota of 4 MB, {count} categories", "bytes", bank_bytes(bank), ""))
        if count <= 300:
            rows = {f"c{i:04d}": torch.rand(ROWS, WIDTH, generator=generator) for i in range(count)}
            budget = bank_bytes(rows)
            seconds, _ = timed(lambda rows=rows, new=new, b=budget: update(rows, new, policy="fixed", budget=b))
            found.append((f"bank, fixed at {budget / 1e6:.1f} MB, {count} categories", "s per task", seconds, ""))
    return found


def sample_rows() -> list[tuple[str, str, float, str]]:
    """Records of the clouds of a dataset, of which none is loaded."""
    tracemalloc.start()
    dataset = Synthetic(designs=50, train=4, test_normal=8, test_defective=13)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    count = len(dataset.samples)
    return [("sample records", "bytes per cloud", held / count, f"{count} clouds of 1,000 categories")]


def score_rows(states: int = 1000, clouds: int = 1000) -> list[tuple[str, str, float, str]]:
    """A run with a million scored clouds in a thousand shards: size, and one query of it."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        spec = RunSpec(Part("S"), Part("D"), Part("M"), Part("Naive"), 0, "f", evaluate="new")
        write_yaml(folder / "spec.yaml", spec.as_dict())
        for state in range(states):
            names = [f"category_{state:04d}/test/cloud_{i:04d}" for i in range(clouds)]
            category = [f"category_{state:04d}"] * clouds
            y = rng.integers(0, 2, clouds)
            values = [state, state, category, category, names, names, np.where(y, "bulge", ""), y,
                      rng.random(clouds), category, ";"]  # fmt: skip
            write_parquet(folder / "rows" / f"objects_{state}.parquet", pd.DataFrame(dict(zip(COLUMNS, values))))
        size = sum(p.stat().st_size for p in (folder / "rows").iterdir())
        whole, _ = timed(lambda: scores([place]))
        part, _ = timed(lambda: scores([place], ["y", "object_score"], field("trained_on") == 500))
        three, frame = timed(lambda: scores([place], ["y", "object_score"]))
    what = f"{states * clouds:,} scores in {states} shards"
    return [(what, "bytes per score", size / (states * clouds), ""), (what, "s, all columns", whole, ""),
            (what, "s, two columns", three, f"{frame.memory_usage(deep=True).sum() / 1e6:.0f} MB in memory"),
            (what, "s, two columns of one state", part, "")]  # fmt: skip


def matrix_rows() -> list[tuple[str, str, float, str]]:
    """R matrices from scores: every task tested after every task, and only the new one."""
    found = []
    for tasks in (50, 100, 200):
        grid = np.stack(np.meshgrid(range(tasks), range(tasks), indexing="ij"), -1).reshape(-1, 2).repeat(4, 0)
        rng = np.random.default_rng(0)
        state, task = grid.T
        frame = pd.DataFrame({"trained_on": state, "experience": task, "category": task.astype(str)})
        frame["y"], frame["object_score"] = np.tile([0, 0, 1, 1], tasks * tasks), rng.random(len(grid))
        seconds, _ = timed(lambda frame=frame, tasks=tasks: r_matrix_from_scores(frame, tasks=tasks))
        found.append((f"R matrix of {tasks} tasks", "s, all tested", seconds, f"{len(frame):,} scores"))
        few = frame[frame["trained_on"] == frame["experience"]]
        seconds, _ = timed(lambda few=few, tasks=tasks: r_matrix_from_scores(few, tasks=tasks))
        found.append((f"R matrix of {tasks} tasks", "s, new tested", seconds, f"{len(few):,} scores"))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for part in (bank_rows, sample_rows, matrix_rows, score_rows):
        rows += part()
        print(pd.DataFrame(rows, columns=["what", "unit", "value", "note"]).to_string(index=False), flush=True)
    if options.csv:
        pd.DataFrame(rows, columns=["what", "unit", "value", "note"]).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
