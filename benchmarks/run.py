"""Run the benchmark suite: ``python -m benchmarks.run [GROUP ...] [--threads 1] [--pairs 15] [--seconds 8]``.

Writes a dated CSV per group into ``benchmarks/results`` and then BENCHMARKS.md from the newest of each.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

OPERATORS = ("sampling", "neighbours", "descriptors", "banks", "scores", "reading")
GROUPS = (*OPERATORS, "pipelines", "memory", "growth")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("groups", nargs="*", default=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=15, help="most pairs per comparison")
    parser.add_argument("--seconds", type=float, default=8.0, help="processor time after which a comparison ends")
    parser.add_argument(
        "--results", type=Path, help="folder of the CSVs; elsewhere than the default no page is written"
    )
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before the libraries read it

    import torch

    import toolkit  # noqa: F401  (its work-arounds for other packages come first)
    from benchmarks import page
    from benchmarks.harness import write

    torch.set_num_threads(options.threads)
    for name in options.groups:
        print("written", write(_rows(name, options.pairs, options.seconds), name, options.results or page.RESULTS))
    if options.results is None:
        page.main()


def _rows(name: str, pairs: int, seconds: float) -> list[dict[str, Any]]:
    """Measure a group."""
    from benchmarks.harness import Bench, as_dicts

    if name == "growth":
        from benchmarks.growth import curves

        return [_told(row) for row in curves()]
    if name == "memory":
        from benchmarks.memory import in_a_process
        from toolkit.registry import entries

        return [_told(in_a_process(strategy)) for strategy in sorted(entries("strategy"))]
    bench = Bench(pairs=pairs, seconds=seconds, say=lambda line: print(line, flush=True))
    importlib.import_module(f"benchmarks.{name}").run(bench)
    return as_dicts(bench.rows)


def _told(row: dict[str, Any]) -> dict[str, Any]:
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
