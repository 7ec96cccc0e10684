"""A stream of 1,000 categories on a small machine: what each task costs as the stream grows.

    python -m benchmarks.thousand_categories --output DIR [--designs 50] [--evaluate new] [--policy growing]

The categories are designs of the synthetic dataset's 20 parts, one per task; the method is BTF with a small bank. The
run is an ordinary one: it can be killed and started again, and what is measured is read off the files it leaves. Times
are wall times, so a busy machine inflates them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from toolkit.cli import main as continual3d
from toolkit.runs.show import write_into

STREAM = ["--dataset.points", "1024", "--dataset.train", "2", "--dataset.test_normal", "2", "--dataset.test_defective",
          "2", "--dataset.severity", "[0.7,1.0]", "--dataset.noise", "0.001",
          "--dataset.within_class_variation", "0.1"]  # fmt: skip
METHOD = ["--strategy", "BTF", "--strategy.voxel", "0.02"]


COLUMNS = {"tasks": "tasks", "wall_seconds": "s per task", "train_seconds": "train s", "score_seconds": "score s",
           "other_seconds": "other s", "clouds_scored": "clouds scored", "state_bytes": "bytes kept",
           "peak_memory_mb": "peak MB"}  # fmt: skip


def measured(folder: Path) -> pd.DataFrame:
    """One row per task of a run: seconds of training, scoring and all else, bytes kept, peak memory."""
    paths = sorted((folder / "rows").glob("cost_*.json"), key=lambda p: int(p.stem.split("_")[1]))
    frame = pd.DataFrame([json.loads(p.read_text()) for p in paths])
    frame["wall_seconds"] = np.diff([p.stat().st_mtime for p in paths], prepend=np.nan)
    frame["other_seconds"] = frame["wall_seconds"] - frame["train_seconds"] - frame["score_seconds"]
    return frame.rename(columns={"trained_on": "task"})


def summary(frame: pd.DataFrame, tasks: int, bins: int = 5) -> pd.DataFrame:
    """Medians over equal parts of the stream; the last of all tasks, which tests everything, on its own."""
    parts = np.minimum(frame["task"] * bins // tasks, bins - 1)
    parts[frame["task"] == tasks - 1] = bins
    how = {name: "median" for name in COLUMNS if name != "tasks"} | {"state_bytes": "max", "peak_memory_mb": "max"}
    found = frame.groupby(parts).agg({"task": ["min", "max"], **how})
    ends = found["task"]
    found = found.drop(columns="task", level=0)
    found.columns = found.columns.get_level_values(0)
    found.insert(0, "tasks", [f"{low + 1} to {high + 1}" if low < high else f"{high + 1}"
                              for low, high in zip(ends["min"], ends["max"])])  # fmt: skip
    return found[list(COLUMNS)].rename(columns=COLUMNS)


def markdown(folder: Path, frame: pd.DataFrame, tasks: int) -> str:
    """The summary as a Markdown table, and what the run came to in a sentence."""
    table = summary(frame, tasks)
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---:|" * len(table.columns)]
    for row in table.itertuples(index=False):
        lines.append("| " + " | ".join(v if isinstance(v, str) else f"{v:,.0f}" if v >= 100 or v == int(v)
                                       else f"{v:.2f}" for v in row) + " |")  # fmt: skip
    files = [p for p in folder.rglob("*") if p.is_file()]
    said = f"{len(frame):,} of {tasks:,} tasks are done"
    if (folder / "result.json").exists():
        result = json.loads((folder / "result.json").read_text())
        hours = frame["wall_seconds"].sum() / 3600
        final, later = result["final"], result["continual"]
        said = (f"All {tasks:,} tasks in {hours:.1f} h of wall time; object AUROC {final['object_auroc']:.3f}, point "
                f"AUROC {final['point_auroc']:.3f}, BWT {later['bwt']:.3f}")  # fmt: skip
    size = sum(p.stat().st_size for p in files) / 1e6
    return "\n".join([*lines, "", f"{said}. The run's folder: {len(files):,} files, {size:.0f} MB."])


def main() -> int:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder of runs")
    parser.add_argument("--designs", type=int, default=50, help="of each of the 20 parts")
    parser.add_argument("--evaluate", default="new")
    parser.add_argument("--policy", default="growing", help="of the bank; all but growing keep to --budget")
    parser.add_argument("--budget", default="4MB")
    parser.add_argument("--bank-size", type=int, default=64, help="rows per category, before the policy")
    parser.add_argument("--read", action="store_true", help="do not run; read the run in --output as far as it is")
    parser.add_argument("--csv", default="", help="where to write a row per task")
    parser.add_argument(
        "--into", metavar="FILE:NAME", help="put the table between markers, as `continual3d table` does"
    )
    options = parser.parse_args()
    output, tasks = Path(options.output), 20 * options.designs
    if not options.read:
        code = continual3d(["run", "class_incremental", "--split", f"even:{tasks}", "--dataset.designs",
                            str(options.designs), *STREAM, *METHOD, "--strategy.bank_size", str(options.bank_size),
                            "--strategy.policy", options.policy, "--strategy.budget", options.budget, "--evaluate",
                            options.evaluate, "--figures", "false", "--threads", "1", "--cache", str(output / "cache"),
                            "--output", str(output)])  # fmt: skip
        if code:
            return code
    folders = sorted({p.parent for p in output.rglob("spec.yaml")})
    if len(folders) != 1:
        print(f"{output}: expected one run, found {len(folders)}; use an --output of its own", file=sys.stderr)
        return 2
    frame = measured(folders[0])
    if options.csv:
        frame.round(3).to_csv(options.csv, index=False)
    text = markdown(folders[0], frame, tasks)
    print(text)
    if options.into:
        write_into(options.into, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
