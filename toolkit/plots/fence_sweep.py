"""Figure and trends of the Fence Theorem's sweep, from the folder of its runs.

continual3d grid docs/grids/fence.yaml --output runs    # the sweep
python -m toolkit.plots.fence_sweep runs                # fence.png and fence.csv in that folder; trends are printed
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from toolkit.plots.fence import fence, fence_frame, fence_trend
from toolkit.runs.load import find_runs


def main(folders: Sequence[str]) -> int:
    """Draw ``fence.png`` (with its numbers in fence.csv) in the first folder, and print the trends."""
    frame = fence_frame([run.result for run in find_runs(folders)])
    metrics = ("point_auroc", "object_auroc")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for metric, ax in zip(metrics, axes, strict=True):
        fence(frame, ax, metric=metric)
        print(f"{metric}\n{fence_trend(frame, metric).round(4).to_string(index=False)}\n")
    frame.to_csv(Path(folders[0]) / "fence.csv", index=False)
    figure.savefig(Path(folders[0]) / "fence.png", dpi=200)
    plt.close(figure)
    print(f"figure: {Path(folders[0]) / 'fence.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["runs"]))
