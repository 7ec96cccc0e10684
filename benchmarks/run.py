"""Run the benchmark suite: ``python -m benchmarks.run [GROUP ...] [--threads 1] [--pairs 15] [--seconds 8]``.

Writes a dated CSV per group into ``benchmarks/results`` and then BENCHMARKS.md from the newest of each.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import OPERATORS

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
    folder = options.results or page.RESULTS
    for name in options.groups:
        measure(name, options.pairs, options.seconds, lambda rows, name=name: write(rows, name, folder))
    if options.results is None:
        page.main()


def measure(name: str, pairs: int, seconds: float, save: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Measure a group; `save` gets all of its rows after each, so that nothing is lost with a killed run."""
    from benchmarks.harness import Bench, as_dicts

    if name in ("growth", "memory"):
        rows = []
        for row in _growth() if name == "growth" else _memory():
            print(row, flush=True)
            rows.append(row)
            save(rows)
        return
    bench = Bench(pairs=pairs, seconds=seconds, say=lambda line: print(line, flush=True),
                  save=lambda found: save(as_dicts(found)))  # fmt: skip
    importlib.import_module(f"benchmarks.{name}").run(bench)


def _growth() -> Iterator[dict[str, Any]]:
    from benchmarks.growth import curves

    return curves()


def _memory() -> Iterator[dict[str, Any]]:
    from benchmarks.memory import in_a_process
    from toolkit.registry import entries

    return (in_a_process(strategy) for strategy in sorted(entries("strategy")))


if __name__ == "__main__":
    main()
