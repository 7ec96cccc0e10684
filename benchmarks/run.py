"""Run the benchmark suite: ``python -m benchmarks.run [GROUP ...] [--threads 1] [--pairs 15] [--seconds 20]``.

Writes one dated CSV per group of comparisons into ``benchmarks/results`` and then BENCHMARKS.md from the newest of
them all.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch

import toolkit  # noqa: F401  (its work-arounds for other packages come first)
from benchmarks.harness import Bench, as_dicts, write

GROUPS = ("sampling", "neighbours", "descriptors", "banks", "scores", "reading")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("groups", nargs="*", default=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=15, help="most pairs per comparison")
    parser.add_argument("--seconds", type=float, default=20.0, help="processor time after which a comparison ends")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.groups:
        bench = Bench(pairs=options.pairs, seconds=options.seconds, say=lambda line: print(line, flush=True))
        importlib.import_module(f"benchmarks.{name}").run(bench)
        print("written", write(as_dicts(bench.rows), name, options.results), flush=True)


if __name__ == "__main__":
    main()
