"""A stream of 1,000 categories on a small machine: what each task costs as the stream grows.

    python -m benchmarks.thousand_categories --output DIR [--designs 50] [--evaluate new] [--policy growing]

The categories are designs of the synthetic dataset's 20 parts, one per task; the method is BTF with a small bank. The
run is an ordinary one: it can be killed and started again, and what is measured is read off the files it leaves. A CSV
with one row per task goes to ``--csv``; the summary is printed. Times are wall times, so a busy machine inflates them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from toolkit.cli import main as continual3d

STREAM = ["--dataset.points", "1024", "--dataset.train", "2", "--dataset.test_normal", "2", "--dataset.test_defective",
          "2", "--dataset.severity", "[0.7,1.0]", "--dataset.noise", "0.001",
          "--dataset.within_class_variation", "0.1"]  # fmt: skip
METHOD = ["--strategy", "BTF", "--strategy.voxel", "0.02"]


def measured(folder: Path) -> pd.DataFrame:
    """One row per task of a finished run: seconds of training, scoring and all else, bytes kept, peak memory."""
    paths = sorted((folder / "rows").glob("cost_*.json"), key=lambda p: int(p.stem.split("_")[1]))
    frame = pd.DataFrame([json.loads(p.read_text()) for p in paths])
    frame["wall_seconds"] = np.diff([p.stat().st_mtime for p in paths], prepend=np.nan)
    frame["other_seconds"] = frame["wall_seconds"] - frame["train_seconds"] - frame["score_seconds"]
    return frame.rename(columns={"trained_on": "task"})


def summary(frame: pd.DataFrame, bins: int = 5) -> pd.DataFrame:
    """Means over equal parts of the stream, the last task, which tests everything, on its own."""
    body = frame.iloc[:-1]
    parts = np.minimum(np.arange(len(body)) * bins // max(len(body), 1), bins - 1)
    means = body.groupby(parts).agg({
        "task": "max", "wall_seconds": "mean", "train_seconds": "mean", "score_seconds": "mean",
        "other_seconds": "mean", "clouds_scored": "mean", "state_bytes": "max", "peak_memory_mb": "max"})  # fmt: skip
    return pd.concat([means, frame.iloc[[-1]][means.columns]], ignore_index=True).round(3)


def main() -> int:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder of runs")
    parser.add_argument("--designs", type=int, default=50, help="of each of the 20 parts")
    parser.add_argument("--evaluate", default="new")
    parser.add_argument("--policy", default="growing", help="of the bank; all but growing keep to --budget")
    parser.add_argument("--budget", default="4MB")
    parser.add_argument("--bank-size", type=int, default=64, help="rows per category, before the policy")
    parser.add_argument("--csv", default="", help="where to write a row per task")
    options = parser.parse_args()
    output = Path(options.output)
    known = set(output.rglob("result.json"))
    begin = time.monotonic()
    code = continual3d(["run", "class_incremental", "--split", f"even:{20 * options.designs}", "--dataset.designs",
                        str(options.designs), *STREAM, *METHOD, "--strategy.bank_size", str(options.bank_size),
                        "--strategy.policy", options.policy, "--strategy.budget", options.budget, "--evaluate",
                        options.evaluate, "--figures", "false", "--threads", "1", "--cache", str(output / "cache"),
                        "--output", str(output)])  # fmt: skip
    if code:
        return code
    new = sorted(set(output.rglob("result.json")) - known)
    if not new:
        print("this run was finished before; choose another --output to measure it again", file=sys.stderr)
        return 2
    folder = new[0].parent
    frame = measured(folder)
    if options.csv:
        frame.to_csv(options.csv, index=False)
    print(summary(frame).to_string(index=False))
    files = [p for p in folder.rglob("*") if p.is_file()]
    print(f"{time.monotonic() - begin:.0f} s in all; run folder: {len(files)} files, "
          f"{sum(p.stat().st_size for p in files) / 1e6:.1f} MB")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
