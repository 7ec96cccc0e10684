"""``continual3d grid GRID.yaml``: every combination of scenarios, datasets, strategies, modes, seeds and orders.

    scenario: [{name: class_incremental, split: "even:4"}]
    dataset: [{name: Synthetic, points: 2048}]
    strategy: [BTF, {name: C3DAD, epochs: 20}, {name: C3DAD, preset: paper}]
    continual: [Naive, {name: Replay, mem_size: 16}]
    seed: [0, 1, 2]
    order: [listed, "random:0"]        # left out for scenarios without an order
    options: {evaluate: seen}          # any further options of `continual3d run`

Each combination is a cell: one run that is found again by its hash. The same command goes on after a kill, skips what
is finished, and may be started twice at once: a cell that another process works on is waited for. Combinations that
make no sense (a memory bank under EWC) are named and left out.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from toolkit.errors import Continual3DError, HyperparameterError, UnknownNameError
from toolkit.registry import resolve
from toolkit.runs.cell import key_of_cell, parse
from toolkit.runs.executors import Job, Outcome, drive, make_executor
from toolkit.runs.files import read_json, write_json
from toolkit.runs.fleet import FleetView

PARTS = ("scenario", "dataset", "strategy", "continual")
AXES = (*PARTS, "seed", "order")
FIGURES = {"object_auroc": "final", "point_auroc": "final", "object_ap": "final", "point_ap": "final",
           "average": "continual", "forgetting": "continual", "bwt": "continual", "fwt": "continual"}  # fmt: skip
"""Columns of ``table.csv`` and where ``result.json`` has them."""
COSTS = ("train_seconds", "score_seconds_per_cloud", "peak_memory_mb", "state_bytes")


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        labels: what stands in the table, one text or number per axis.
        scenario, config: see `toolkit.runs.cell`.
        key: of the cell; set once its dataset is known.
    """

    labels: dict[str, Any]
    scenario: str
    config: dict[str, Any]
    key: str = ""

    @property
    def title(self) -> str:
        """All labels in a line."""
        named = {**self.labels, "seed": f"seed {self.labels['seed']}" if self.labels["seed"] != "" else ""}
        return " ".join(str(v) for v in named.values() if v not in ("", "Naive"))


def read_grid(path: str | Path) -> dict[str, Any]:
    """The content of a grid file, each axis a list.

    Raises:
        HyperparameterError: it is no YAML, or has keys that mean nothing.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UnknownNameError(f"{path}: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise HyperparameterError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict) or "scenario" not in content:
        raise HyperparameterError(f"{path}: expected 'scenario:' and further axes ({', '.join(AXES[1:])}).")
    unknown = sorted(set(content) - {*AXES, "options"})
    if unknown:
        raise HyperparameterError(f"{path}: {', '.join(unknown)} is no axis; there are {', '.join(AXES)}, options.")
    grid: dict[str, Any] = {a: v if isinstance(v, list) else [v] for a, v in content.items() if a != "options"}
    grid["options"] = content.get("options") or {}
    for axis in PARTS:
        for entry in grid.get(axis, []):
            if not isinstance(entry, str) and not (isinstance(entry, dict) and isinstance(entry.get("name"), str)):
                raise HyperparameterError(f"{path}: {axis}: expected a name or {{name: .., option: ..}}, got {entry}.")
    return grid


def expand(grid: dict[str, Any], threads: int = 1) -> list[Cell]:
    """All combinations, in the order of the file, checked, each once.

    Args:
        grid: from `read_grid`.
        threads: CPU threads per run, unless the grid's options say.

    Raises:
        Continual3DError: a name or an option is wrong; the message says in which cell.
    """
    cells: dict[str, Cell] = {}
    fingerprints: dict[str, str] = {}
    for values in itertools.product(*(grid.get(axis, [None]) for axis in AXES)):
        chosen = {axis: value for axis, value in zip(AXES, values) if value is not None}
        scenario, own = _name_and_options(chosen.pop("scenario"))
        if "order" in chosen and "order" not in [f.name for f in fields(resolve("scenario", scenario))]:
            del chosen["order"]
        config = {"threads": threads, "figures": False, **grid["options"], **own}
        labels = {"scenario": _label(scenario, own)}
        for axis, value in chosen.items():
            if axis in PARTS:
                name, options = _name_and_options(value)
                labels[axis] = _label(name, options)
                if axis == "strategy" and "preset" in options:
                    config["preset"] = options.pop("preset")
                config[axis] = {"name": name, **options}
            else:
                config[axis] = labels[axis] = value
        cell = Cell({axis: labels.get(axis, "") for axis in AXES}, scenario, config)
        try:
            classes, options = parse(scenario, config)
            dataset = {k: v for k, v in options["dataset"].items() if k != "name"}
            known = repr((options["dataset"]["name"], dataset))
            if known not in fingerprints:
                fingerprints[known] = classes["dataset"](**dataset).fingerprint()
        except Continual3DError as error:
            raise type(error)(f"cell {cell.title}: {error}") from None
        key = key_of_cell(scenario, options, fingerprints[known])
        cells.setdefault(key, Cell(cell.labels, scenario, config, key))
    return list(cells.values())


def run_grid(cells: Sequence[Cell], folder: Path, executor: Any, output: str, view: FleetView) -> list[Outcome]:
    """Run what is not finished; returns how each cell ended, in the order of `cells`.

    Args:
        cells: from `expand`.
        folder: of this grid; ``cells/KEY.json`` in it says where a finished cell's run is.
        executor: from `make_executor`.
        output: folder of all runs.
        view: is told what happens.
    """
    jobs = {c.key: Job(c.key, "toolkit.runs.cell:run_cell",
                       {"scenario": c.scenario, "config": {**c.config, "output": output}}, c.title)
            for c in cells}  # fmt: skip
    ended: dict[str, Outcome] = {}
    for cell in cells:
        place = finished(folder, cell)
        if place is not None:
            ended[cell.key] = Outcome(jobs[cell.key], "done", str(place))
    view.begin(len(cells), len(ended))
    for outcome in drive(executor, [job for key, job in jobs.items() if key not in ended], tick=view.tick):
        ended[outcome.job.key] = outcome
        if outcome.status == "done":
            write_json(_marker(folder, outcome.job.key), {"folder": outcome.value})
        view.ended(outcome)
    return [ended[cell.key] for cell in cells]


def finished(folder: Path, cell: Cell) -> Path | None:
    """Folder of the cell's finished run, or None."""
    marker = _marker(folder, cell.key)
    if not marker.exists():
        return None
    place = Path(read_json(marker)["folder"])
    return place if (place / "result.json").exists() else None


def tables(cells: Sequence[Cell], outcomes: Sequence[Outcome], folder: Path) -> Any:
    """Write ``table.csv`` (equal bytes for equal runs), ``costs.csv`` and ``summary.csv``; return the summary."""
    import pandas as pd

    rows, costs = [], []
    for cell, outcome in zip(cells, outcomes):
        row = {**cell.labels, "status": outcome.status, "error": outcome.error}
        if outcome.status == "done":
            result = read_json(Path(outcome.value) / "result.json")
            rows.append({**row, "hash": result["hash"], **{n: result[where][n] for n, where in FIGURES.items()}})
            costs.append({**cell.labels, **{name: result["cost"][name] for name in COSTS}, "folder": outcome.value})
        else:
            rows.append({**row, "hash": "", **dict.fromkeys(FIGURES)})
    table = pd.DataFrame(rows).astype(dict.fromkeys(FIGURES, float))
    groups = table[table["status"] == "done"].groupby(list(PARTS), sort=False, dropna=False)
    summary = groups[list(FIGURES)].agg(["mean", "std"])
    summary.columns = [f"{name}_{what}" for name, what in summary.columns]
    summary.insert(0, "runs", groups.size())
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in (("table", table), ("costs", pd.DataFrame(costs)), ("summary", summary.reset_index())):
        _write_csv(folder / f"{name}.csv", frame)
    return summary.reset_index()


def command(argv: Sequence[str]) -> int:
    """``continual3d grid``."""
    parser = argparse.ArgumentParser(prog="continual3d grid", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("grid", help="YAML file")
    parser.add_argument("--output", default="runs", help="folder of all runs")
    parser.add_argument("--dry-run", action="store_true", help="list the cells and stop")
    add_executor_options(parser)
    options = parser.parse_args(argv)
    cells = expand(read_grid(options.grid), options.threads)
    folder = Path(options.output) / "grids" / Path(options.grid).stem
    if options.dry_run:
        for cell in cells:
            print(f"{cell.key}  {'finished' if finished(folder, cell) else 'open    '}  {cell.title}")
        return 0
    executor = executor_from(options, str(folder / "logs"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends like Ctrl-C
    with FleetView(Path(options.grid).stem, bars=options.executor != "inline") as view:
        outcomes = run_grid(cells, folder, executor, options.output, view)
    summary = tables(cells, outcomes, folder)
    _print(summary)
    print(f"tables: {folder}/table.csv, summary.csv, costs.csv; continual3d report {options.output} says which "
          "differences are beyond noise")  # fmt: skip
    for outcome in outcomes:
        if outcome.status in ("failed", "died"):
            print(f"{outcome.status}: {outcome.job.title}: {outcome.error}", file=sys.stderr)
    return 1 if any(o.status in ("failed", "died") for o in outcomes) else 0


def add_executor_options(parser: argparse.ArgumentParser, threads: bool = True) -> None:
    """Options that say where jobs run; ``--threads`` only where the parser has none of its own yet."""
    group = parser.add_argument_group("where it runs")
    group.add_argument("--executor", default="processes", help="inline, processes, ray or slurm")
    group.add_argument("--workers", type=int, default=0, help="jobs at once; 0 = as cores and memory allow")
    if threads:
        group.add_argument("--threads", type=int, default=1, help="CPU threads of each job")
    group.add_argument("--memory", type=float, default=1.5, help="GB that a job is expected to need")
    group.add_argument("--executor-options", nargs="*", default=[], metavar="NAME=VALUE",
                       help="ray: address, gpus; slurm: cluster, hours, gpus, partition, account, ...")  # fmt: skip


def executor_from(options: argparse.Namespace, logs: str) -> Any:
    """The executor that the options ask for."""
    pairs = dict(pair.partition("=")[::2] for pair in options.executor_options)
    return make_executor(options.executor, workers=options.workers, threads=options.threads, memory=options.memory,
                         logs=logs, options=pairs)  # fmt: skip


def _name_and_options(entry: Any) -> tuple[str, dict[str, Any]]:
    return (entry, {}) if isinstance(entry, str) else (entry["name"], {k: v for k, v in entry.items() if k != "name"})


def _label(name: str, options: dict[str, Any]) -> str:
    short = name.rpartition(":")[2]
    return short + (f"({', '.join(f'{k}={v}' for k, v in options.items())})" if options else "")


def _marker(folder: Path, key: str) -> Path:
    return folder / "cells" / f"{key}.json"


def _write_csv(path: Path, frame: Any) -> None:
    from toolkit.runs.files import write_atomically

    write_atomically(path, lambda p: frame.to_csv(p, index=False))


def _print(summary: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = summary.to_dict("records")
    varied = [p for p in PARTS if len({row[p] for row in rows}) > 1] or ["strategy"]
    same = " ".join(str(rows[0][p]) for p in PARTS if p not in varied and rows[0][p]) if rows else "no run is finished"
    table = Table(title=f"{same}: mean ± standard deviation over seeds and orders".removeprefix(": "))
    shown = ("object_auroc", "point_auroc", "average", "forgetting")
    for column in (*varied, "runs", *(name.replace("_", " ") for name in shown)):
        table.add_column(column, justify="left" if column in PARTS else "right", overflow="fold")
    for row in rows:
        cells = [f"{row[f'{n}_mean']:.3f}" + (f" ± {row[f'{n}_std']:.3f}" if row["runs"] > 1 else "") for n in shown]
        table.add_row(*(str(row[p]) for p in varied), str(row["runs"]), *cells)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
