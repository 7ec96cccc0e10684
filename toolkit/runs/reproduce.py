"""``continual3d reproduce TABLE... --root DATASET=FOLDER``: published tables beside our own runs.

Every row of a table that names a dataset, a method and a setting that exist here becomes runs, one per seed; the others
say why not. REPRODUCED.md is written from the finished runs alone: our figure with its interval, seeds, command, commit
and a verdict. Finished runs are not run again, so the same command completes or refreshes the file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import Continual3DError, HyperparameterError
from toolkit.runs.files import write_text
from toolkit.runs.load import FinishedRun, load_run
from toolkit.runs.recipes import COMPARED, Target, command_line, find_table, load_recipes, tables, targets
from toolkit.runs.tables import Table, number, with_interval
from toolkit.runs.uncertainty import DRAWS, Draws, Resampled, over_runs

if TYPE_CHECKING:
    import pandas as pd

    from toolkit.metrics import Interval


INTRODUCTION = """Written by `continual3d reproduce`; not edited by hand.

Ours: mean over seeds [95 % bootstrap interval over test objects and seeds]. Point AUROC after a task that is not the
last has no interval; the lowest and highest seed are given. Published numbers are other people's, often with the
checkpoint chosen on the test set."""


def command(argv: list[str]) -> int:
    """The command line of this file; exit code 1 if a run failed."""
    from toolkit.published import published

    parser = argparse.ArgumentParser(prog="continual3d reproduce", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="e.g. c3d-ad/table-1; --list shows all")
    parser.add_argument("--list", action="store_true", help="list the tables and how much of each can be run")
    parser.add_argument("--root", action="append", default=[], metavar="DATASET=FOLDER", help="where a dataset is")
    parser.add_argument("--method", action="append", help="only this published method; may be given several times")
    parser.add_argument("--dataset", action="append", help="only this published dataset; may be given several times")
    parser.add_argument("--seeds", type=int, default=3, help="run seeds 0, 1, ...")
    parser.add_argument("--output", default="runs", help="folder of all runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 = as many as cores")
    parser.add_argument("--write", default="REPRODUCED.md", help="file to write")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    options = parser.parse_args(argv)
    frame = published()
    if options.list:
        print_tables(frame)
        return 0
    if not options.tables:
        raise HyperparameterError("Which table? continual3d reproduce --list shows all.")
    if options.seeds < 1:
        raise HyperparameterError(f"--seeds {options.seeds}: expected 1 or more.")
    shared = {"output": options.output, "device": options.device, "threads": options.threads, "figures": False}
    chosen = {name: _filtered(find_table(name, frame), options.method, options.dataset) for name in options.tables}
    planned = {name: targets(rows, _roots(options.root), load_recipes()) for name, rows in chosen.items()}
    if options.dry_run:
        for line in dict.fromkeys(_commands(planned, options.seeds, shared)):
            print(line)
        return 0
    attempts = run_all(planned, options.seeds, shared)
    text = page({name: [(t, attempts.get(t.key)) for t in found] for name, found in planned.items()})
    write_text(Path(options.write), text)
    print(f"written: {options.write}")
    return 1 if any(attempt.problem for attempt in attempts.values()) else 0


@dataclass
class Attempt:
    """The runs of a target, and what went wrong."""

    runs: list[FinishedRun] = field(default_factory=list)
    problem: str = ""


def run_all(planned: dict[str, list[Target]], seeds: int, shared: dict[str, Any]) -> dict[str, Attempt]:
    """Run what can be run, each distinct configuration once per seed; a failure is kept and the next one goes on.

    Args:
        planned: table -> its targets.
        seeds: run seeds 0, 1, ....
        shared: further options of ``continual3d run``.

    Returns:
        `Target.key` -> its runs.
    """
    from toolkit.runs.cell import run_cell

    attempts: dict[str, Attempt] = {}
    for target in (t for found in planned.values() for t in found if not t.problem):
        if target.key in attempts:
            continue
        attempt = attempts[target.key] = Attempt()
        for seed in range(seeds):
            try:
                folder = run_cell({"scenario": target.scenario, "config": {**target.config, "seed": seed, **shared}})
                attempt.runs.append(load_run(folder))
            except Continual3DError as error:
                attempt.problem = f"failed: {' '.join(str(error).split())}"
                print(f"{target.method} on {target.dataset}: {attempt.problem}", file=sys.stderr)
                break
    return attempts


def page(answered: dict[str, list[tuple[Target, Attempt | None]]]) -> str:
    """REPRODUCED.md.

    Args:
        answered: table -> its targets, each with its runs if it could be run.
    """
    parts = ["# Reproduced tables", INTRODUCTION]
    for name, pairs in answered.items():
        source = pairs[0][0].rows.iloc[0] if pairs else None
        heading = name if source is None else f"{source['source']}, {source['table']}".rstrip(", ")
        resampled = {run: Resampled(run, DRAWS) for _, attempt in pairs if attempt for run in attempt.runs}
        rows = [row for target, attempt in pairs for row in _rows(target, attempt, resampled)]
        columns = ["method", "dataset", "split", "after task", "category", "figure", "published", "ours", "seeds",
                   "verdict", "notes"]  # fmt: skip
        parts.append(Table(heading, columns, rows, words=frozenset(columns) - {"published", "ours"}).markdown())
        made = [_made(target, attempt) for target, attempt in pairs if attempt and attempt.runs]
        parts += ["Commands:", "\n".join(dict.fromkeys(made))] if made else []
    return "\n\n".join(parts) + "\n"


def _rows(target: Target, attempt: Attempt | None, resampled: dict[FinishedRun, Resampled]) -> list[list[str]]:
    rows = []
    for row in target.rows.to_dict("records"):
        ours, seeds, verdict = "–", "–", target.problem or (attempt.problem if attempt else "")
        if row["metric"] not in COMPARED:
            verdict = "not compared: depends on the machine"
        elif not verdict and attempt:
            ours, verdict = compare(row, attempt.runs, resampled)
            seeds = ", ".join(str(run.spec.seed) for run in attempt.runs)
        task = "" if _missing(row["task"]) else str(int(row["task"]))
        digits = 3 if row["metric"] in COMPARED else 2
        figure = row["metric"].replace("_", " ")
        rows.append([row["method"], row["dataset"], row["split"], task, row["category"], figure,
                     number(row["value"], digits), ours, seeds, verdict, row["notes"]])  # fmt: skip
    return rows


def compare(
    row: dict[str, Any], runs: Sequence[FinishedRun], resampled: dict[FinishedRun, Resampled]
) -> tuple[str, str]:
    """Our figure for a published row, and the verdict.

    Args:
        row: of `toolkit.published`; metric object_auroc or point_auroc.
        runs: one per seed.
        resampled: of each run.
    """
    task = None if _missing(row["task"]) else int(row["task"]) - 1
    drawn = [resampled[run] for run in runs]
    final = task is None or all(task == len(run.result["tasks"]) - 1 for run in runs)
    if row["metric"] == "point_auroc" and final and all(run.point_cells for run in drawn):
        found = _interval(drawn, row["category"], Resampled.point_final, Resampled.point_categories)
    elif row["metric"] == "point_auroc":
        values = [point_auroc(run, row["category"], task) for run in runs]
        if np.isnan(values).any():
            return "–", f"no such category: {row['category']}"
        mean = float(np.mean(values))
        spread = f" ({number(min(values))} to {number(max(values))})" if len(values) > 1 else ""
        return number(mean) + spread, f"ours − published = {number(mean - row['value'], signed=True)}; no interval"
    else:
        found = object_auroc(drawn, row["category"], task)
    if found is None:
        return "–", f"no such category: {row['category']}"
    shown = with_interval(found.value, found.low, found.high)
    if found.low <= row["value"] <= found.high:
        return shown, "within interval"
    return shown, f"differs: ours − published = {number(found.value - row['value'], signed=True)}"


def object_auroc(runs: Sequence[Resampled], category: str, task: int | None) -> Interval | None:
    """Object AUROC of a category, or over categories ("mean"); of the classes seen after `task` if one is given."""
    return _interval(runs, category, lambda run: run.final() if task is None else run.seen(task), Resampled.categories)


def _interval(
    runs: Sequence[Resampled],
    category: str,
    mean: Callable[[Resampled], Draws],
    categories: Callable[[Resampled], dict[str, Draws]],
) -> Interval | None:
    """Of the mean over categories, or of one of them; None if a run has no such category."""
    if category == "mean":
        return over_runs([mean(run) for run in runs])
    parts = [categories(run) for run in runs]
    return over_runs([part[category] for part in parts]) if all(category in part for part in parts) else None


def point_auroc(run: FinishedRun, category: str, task: int | None) -> float:
    """The same for the point AUROC of one run; NaN if there is no such category."""
    table = run.points[run.points["slice"] == ""]
    if task is not None:
        table = table[(table["trained_on"] == task) & (table["experience"] <= task)]
    else:
        table = table[table["trained_on"] == (table["experience"] if run.independent else table["trained_on"].max())]
    if category != "mean":
        table = table[table["category"] == category]
    return float(table["point_auroc"].mean())


def print_tables(frame: pd.DataFrame) -> None:
    """``--list``: every table, and how many of its rows have a strategy and a reader here."""
    from toolkit.runs.show import _console

    rows = []
    recipes = load_recipes()
    for name, part in tables(frame).items():
        found = targets(part, {}, recipes)
        possible = sum(len(t.rows) for t in found if t.scenario)
        rows.append([name, str(len(part)), str(possible), ", ".join(dict.fromkeys(part["dataset"]))])
    table = Table("Published tables", ["table", "rows", "runnable", "datasets"], rows, words=frozenset({"datasets"}))
    _console().print(table.rich())


def _made(target: Target, attempt: Attempt) -> str:
    """A list item: the command without machine-dependent parts, hashes and commit."""
    config = {
        **target.config,
        "dataset": {k: "FOLDER" if k == "root" else v for k, v in target.config["dataset"].items()},
    }
    hashes = ", ".join(run.spec.hash for run in attempt.runs)
    commits = ", ".join(dict.fromkeys(run.result["environment"]["commit"] or "none" for run in attempt.runs))
    line = command_line(target.scenario, {**config, "seed": "SEED"})
    return f"- {target.method} on {target.dataset}: `{line}` (runs {hashes}; commit {commits})"


def _commands(planned: dict[str, list[Target]], seeds: int, shared: dict[str, Any]) -> list[str]:
    lines = []
    for target in (t for found in planned.values() for t in found):
        if target.problem:
            lines.append(f"# {target.method} on {target.dataset}: {target.problem}")
        else:
            lines += [command_line(target.scenario, {**target.config, "seed": s, **shared}) for s in range(seeds)]
    return lines


def _filtered(rows: pd.DataFrame, methods: list[str] | None, datasets: list[str] | None) -> pd.DataFrame:
    for column, wanted in (("method", methods), ("dataset", datasets)):
        for name in wanted or ():
            if name not in set(rows[column]):
                known = ", ".join(dict.fromkeys(rows[column]))
                raise HyperparameterError(f"--{column} {name}: the table has {known}.")
        rows = rows[rows[column].isin(wanted)] if wanted else rows
    return rows


def _roots(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            raise HyperparameterError(f"--root {pair}: expected DATASET=FOLDER, e.g. Real3DAD=/data/Real3D-AD-PCD.")
        found[name] = folder
    return found


def _missing(value: Any) -> bool:
    import pandas as pd

    return bool(pd.isna(value))
