"""What a finished run shows: tables on the terminal, figures in its folder."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import UnknownNameError
from toolkit.runs.files import read_json


def number(value: float | None, digits: int = 3) -> str:
    """``0.813``; a dash for what does not exist."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


MOST_COLUMNS = 20
"""Streams of more tasks get no table of all of them on the terminal; ``result.json`` has it."""


def print_result(folder: Path) -> None:
    """One run: per-task object AUROC after each task, where a terminal has room for it, and the summary."""
    result = read_json(folder / "result.json")
    method = method_of(result)
    console = _console()
    if result["independent_tasks"]:
        console.print(_tasks_table(result, method))
    elif len(result["tasks"]) <= MOST_COLUMNS:
        console.print(_matrix_table(result, method))
    console.print(comparison([result]))
    if result["slices"]:
        console.print(slices_table(result))
    console.print(f"files: {folder}", soft_wrap=True, highlight=False)


def _tasks_table(result: dict[str, Any], method: str) -> Any:
    """Tasks that are experiments of their own: a row each."""
    from rich.table import Table

    spec = result["spec"]
    table = Table(title=f"{method} on {spec['dataset']['name']}, seed {spec['seed']}: a fresh model per task")
    for column in ("task", "object AUROC", "point AUROC"):
        table.add_column(column, justify="left" if column == "task" else "right")
    own = [np.diagonal(matrix(result, name), -1) for name in ("object_auroc", "point_auroc")]
    for name, *values in zip(result["tasks"], *own):
        table.add_row(name, *(number(float(v)) for v in values))
    return table


def _matrix_table(result: dict[str, Any], method: str) -> Any:
    from rich.table import Table

    spec = result["spec"]
    table = Table(title=f"{method} on {spec['dataset']['name']}, seed {spec['seed']}: object AUROC (rows: after task)")
    table.add_column("after")
    for position, name in enumerate(result["tasks"], 1):
        table.add_column(f"task {position}\n{shorten(name)}", justify="right")
    for state, row in zip(range(-1, len(result["tasks"])), result["matrices"]["object_auroc"]):
        if any(value is not None for value in row):
            table.add_row("none" if state < 0 else f"task {state + 1}", *(number(v) for v in row))
    return table


def slices_table(result: dict[str, Any]) -> Any:
    """The parts of the test clouds that the scenario reports on their own, beside all of them."""
    from rich.table import Table

    table = Table(title="parts of the test clouds, after the last task")
    for column in ("part", "object AUROC", "object AP", "point AUROC", "point AP", "pooled AUROC", "false alarms"):
        table.add_column(column, justify="left" if column == "part" else "right")
    names = ("object_auroc", "object_ap", "point_auroc", "point_ap", "pooled_object_auroc", "false_alarm_rate")
    for part, values in {"all": result["final"], **result["slices"]}.items():
        table.add_row(part, *(number(values.get(name)) for name in names))
    return table


SUMMARY: dict[str, tuple[Callable[[dict[str, Any]], float | None], tuple[int, bool]]] = {
    "object AUROC": (lambda r: r["final"]["object_auroc"], (3, True)),
    "point AUROC": (lambda r: r["final"]["point_auroc"], (3, True)),
    "forgetting": (lambda r: r["continual"]["forgetting"], (3, True)),
    "BWT": (lambda r: r["continual"]["bwt"], (3, True)),
    "FWT": (lambda r: r["continual"]["fwt"], (3, True)),
    "train s": (lambda r: r["cost"]["train_seconds"], (1, False)),
    "s / cloud": (lambda r: r["cost"]["score_seconds_per_cloud"], (3, False)),
    "peak MB": (lambda r: r["cost"]["peak_memory_mb"], (0, False)),
}
"""Figures of every comparison of runs, their digits, and whether a mean comes with its standard deviation. AUROCs are
means over categories after the last task."""

COLUMNS = ("method", *SUMMARY, "seed")
WORSE = " ▼"


def comparison(results: Sequence[dict[str, Any]], title: str = "after the last task", average: bool = False) -> Any:
    """A rich table with one row per run, or per method if its runs are averaged."""
    from rich.table import Table

    rows = rows_of(results, average)
    table = Table(title=title, caption=_note(rows) or None, caption_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        table.add_row(*row)
    return table


def rows_of(results: Sequence[dict[str, Any]], average: bool = False) -> list[list[str]]:
    """Cells of `COLUMNS` of each run; methods of one name are told apart by the arguments in which they differ.

    Args:
        results: of finished runs.
        average: one row per method of a stream: means over seeds, orders and draws, AUROCs and what follows from them
            with the standard deviation; the results then need their ``folder``.
    """
    from toolkit.runs.groups import method_names
    from toolkit.runs.spec import RunSpec

    groups, told = _repetitions(results) if average else ([[r] for r in results], [])
    names = method_names([RunSpec.from_dict(group[0]["spec"]) for group in groups])
    behind = _behind(results, average)
    rows = []
    for i, (name, group) in enumerate(zip(names, groups)):
        cells = [mean_of([value(r) for r in group], *form) for value, form in SUMMARY.values()]
        cells[0] += WORSE if group[0]["hash"] in behind else ""
        rows.append([name, *cells, told[i] if average else str(group[0]["spec"]["seed"])])
    return rows


def mean_of(values: Sequence[float | None], digits: int = 3, spread: bool = True) -> str:
    """``0.813``; of several values their mean, with the standard deviation: ``0.813 ± 0.004``."""
    known = np.array([v for v in values if v is not None], dtype=float)
    if not len(known):
        return number(None)
    deviation = f" ± {known.std(ddof=1):.{digits}f}" if spread and len(known) > 1 else ""
    return number(float(known.mean()), digits) + deviation


def _repetitions(results: Sequence[dict[str, Any]]) -> tuple[list[list[dict[str, Any]]], list[str]]:
    """The results of each method of each stream, and what tells them apart in words."""
    from toolkit.runs.groups import streams_of
    from toolkit.runs.load import load_run

    methods = [m for s in streams_of([load_run(Path(r["folder"])) for r in results]) for m in s.methods]
    words = [re.sub("^seeds? ", "", m.repeated) for m in methods]
    told = [f"{len(m.runs)} runs" if ";" in said else said for m, said in zip(methods, words)]
    return [[run.result for run in m.runs] for m in methods], told


def _behind(results: Sequence[dict[str, Any]], average: bool) -> set[str]:
    """Hashes of runs that `toolkit.runs.uncertainty.behind` finds worse, of those whose folder is known."""
    folders = [r["folder"] for r in results if "folder" in r]
    if len(folders) < 2:
        return set()
    from toolkit.runs.load import load_run
    from toolkit.runs.uncertainty import behind

    return behind([load_run(Path(folder)) for folder in folders], average)


def markdown(results: Sequence[dict[str, Any]], average: bool = False) -> str:
    """The comparison as a Markdown table; the README's tables are made by this."""
    rows = rows_of(results, average)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", _note(rows)] if _note(rows) else lines)


def _note(rows: Sequence[Sequence[str]]) -> str:
    """What the sign behind an AUROC means, or that nothing has it."""
    if len(rows) < 2:
        return ""
    if any(row[1].endswith(WORSE) for row in rows):
        return (f"{WORSE.strip()} worse than the best row of the same stream beyond noise (paired bootstrap over test "
                "objects, Holm-adjusted); without it the difference is within noise.")  # fmt: skip
    return "No row is worse than the best one beyond noise (paired bootstrap over test objects, Holm-adjusted)."


def comparison_of(folders: Sequence[Path]) -> None:
    """Several runs of one method, and their mean with the standard deviation."""
    results = [{**read_json(folder / "result.json"), "folder": str(folder)} for folder in folders]
    _console().print(comparison(results, f"{len(results)} orders"))
    for name in ("object AUROC", "point AUROC"):
        value, form = SUMMARY[name]
        print(f"{name}: {mean_of([value(r) for r in results], *form)} (mean ± standard deviation)")


def print_matrix() -> None:
    """Which strategy runs in which scenario, and what a stream or dataset must offer where one does not."""
    from rich.table import Table

    from toolkit.registry import entries

    scenarios = {name: entry.load() for name, entry in entries("scenario").items()}
    table = Table(title="which strategy runs where (. = yes; else what is missing)")
    spaced = [re.sub("(?<=[a-z])(?=[A-Z])", " ", name) for name in scenarios]  # so that long names can wrap
    for column in ("strategy", *spaced, "dataset must have", "continual modes"):
        table.add_column(column)
    for name, entry in entries("strategy").items():
        strategy = entry.load()
        wanted = [need for need in strategy.requires if need == "known_defects"]
        cells = [", ".join(n.replace("_", " ") for n in wanted if n not in s.offers) or "." for s in scenarios.values()]
        others = ", ".join(n for n in strategy.requires if n not in wanted) or "-"
        table.add_row(name, *cells, others, "all" if strategy.learns_by_gradient() else "without gradients")
    _console().print(table)


def find_results(folders: Sequence[str]) -> list[dict[str, Any]]:
    """``result.json`` of every finished run at or below the folders, with its ``folder``, by scenario, dataset, method.

    Raises:
        UnknownNameError: a folder does not exist or holds no finished run.
    """
    results = []
    for folder in folders:
        paths = sorted(Path(folder).rglob("result.json"))
        if not paths:
            raise UnknownNameError(f"{folder}: no finished run (result.json) in it or below it.")
        results += [{**read_json(path), "folder": str(path.parent)} for path in paths]
    unique = {
        (r["spec"]["scenario"]["name"], r["spec"]["dataset"]["name"], method_of(r), r["hash"]): r for r in results
    }
    return [unique[key] for key in sorted(unique)]


def print_table(results: Sequence[dict[str, Any]], form: str = "terminal", average: bool = False) -> None:
    """Print the comparison, one table per scenario and dataset: terminal, markdown or csv."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        spec = result["spec"]
        title = f"{spec['scenario']['name']} on {spec['dataset']['name']}, {len(result['tasks'])} tasks"
        groups.setdefault(title, []).append(result)
    if form == "csv":
        spread = [name for name, (_, (_, has)) in SUMMARY.items() if has] if average else []
        writer = csv.writer(sys.stdout)
        writer.writerow(["stream", *(n for c in COLUMNS for n in ([c, f"{c} deviation"] if c in spread else [c]))])
        for title, group in groups.items():
            for row in rows_of(group, average):
                cells = [cell.removesuffix(WORSE).partition(" ± ")[::2] for cell in row]
                writer.writerow([title, *(v for c, pair in zip(COLUMNS, cells) for v in pair[: 1 + (c in spread)])])
        return
    for title, group in groups.items():
        if form == "markdown":
            print(f"{title}\n\n{markdown(group, average)}\n")
        else:
            _console().print(comparison(group, title, average))


def method_of(result: dict[str, Any]) -> str:
    """``C3DAD + Replay``."""
    from toolkit.runs.spec import RunSpec

    return RunSpec.from_dict(result["spec"]).method


def shorten(name: str, width: int = 18) -> str:
    """A task's name cut to fit a column."""
    return name if len(name) <= width else name[: width - 1] + "…"


def write_into(target: str, table: str) -> None:
    """Replace what stands between ``<!-- table:NAME -->`` and ``<!-- end:NAME -->`` in a file by a Markdown table.

    Raises:
        UnknownNameError: the file or its markers do not exist.
    """
    path, _, name = target.rpartition(":")
    begin, end = f"<!-- table:{name} -->", f"<!-- end:{name} -->"
    text = Path(path).read_text(encoding="utf-8") if path and Path(path).is_file() else ""
    if begin not in text or end not in text:
        raise UnknownNameError(f"--into {target}: expected a file with the lines {begin} and {end}.")
    head, tail = text.split(begin)[0], text.split(end)[1]
    Path(path).write_text(f"{head}{begin}\n{table}\n{end}{tail}", encoding="utf-8")


def matrix(result: dict[str, Any], name: str = "object_auroc") -> np.ndarray:
    """An R matrix of ``result.json`` as an array, NaN where nothing was scored."""
    return np.array([[np.nan if v is None else v for v in row] for row in result["matrices"][name]], dtype=float)


def _console() -> Any:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=140)
