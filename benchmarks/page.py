"""BENCHMARKS.md from the newest result file of each kind: ``python -m benchmarks.page``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from benchmarks import OPERATORS
from benchmarks.growth import LIMITS, exponents, figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

HEAD = """# Benchmarks

Written by `python -m benchmarks.page` from the newest files in `benchmarks/results/`; `make bench` measures anew
(`pip install -e '.[bench]'` for faiss and small_gicp, which are compared with and used nowhere else, and for numba:
where its version is named below, registration, FPFH and normals ran with compiled inner loops, which a plain
installation does without; results are the same but for rounding).

Baseline and candidate take turns in one process; the ratio is the median over these pairs of baseline time / candidate
time, with a 95 % bootstrap interval, in processor seconds. Before anything is timed, both results are compared (last
column); a difference stops the suite. Memory is the rise of the resident memory at its peak during one call. Baselines
are this project's own re-statement of how the field's released code computes the same thing
(`benchmarks/baselines/`), or a library. Clouds: a bumpy ellipsoid in random point order, the worst case for caches.

Ratios hold on a loaded machine; absolute times do not, and those below were taken on a machine that other work shared.
"""

PIPELINES = """Times are of all clouds together, in seconds; a cloud's mean time is multiplied by the number of clouds,
ours and the baseline's alike.
"""

MEMORY = """Largest resident memory of the whole process (libraries and network included) while a strategy of default
size scores one cloud of 1,000,000 points. `tests/benchmarks/test_memory.py` (slow) fails above 4 GB.
"""


def page(results: Path = RESULTS) -> str:
    """The text of BENCHMARKS.md."""
    parts = [HEAD]
    tables = {name: rows for name in OPERATORS if (rows := newest(results, name))}
    if tables:
        parts += [
            "## Operators\n",
            _machines(tables.values()),
            _comparison([r for rows in tables.values() for r in rows]),
        ]
    if rows := newest(results, "pipelines"):
        parts += ["## Whole methods\n", PIPELINES, _machines([rows]), _pipelines(rows)]
    if rows := newest(results, "memory"):
        parts += ["## A million points\n", MEMORY, _machines([rows]), _memory(rows)]
    if rows := newest(results, "growth"):
        parts += ["## Growth\n", _growth_text(rows), "![growth curves](docs/images/growth.png)\n", _machines([rows]),
                  _growth(rows)]  # fmt: skip
    return "\n".join(parts)


def newest(results: Path, name: str) -> list[dict[str, str]]:
    """Rows of the newest file of a kind; none if there is no such file."""
    files = sorted(results.glob(f"????-??-??_{name}.csv"))
    if not files:
        return []
    with files[-1].open(newline="") as file:
        return list(csv.DictReader(file))


def _machines(tables: Any) -> str:
    """The date, hardware and versions of some tables, each set once."""
    seen = dict.fromkeys((r["date"], r["cpu"], r["cores"], r["threads"], r["capability"], r["python"], r["versions"])
                         for rows in tables for r in rows)  # fmt: skip
    return "".join(f"{date}: {cpu}, {cores} cores, {threads} thread{'s' * (threads != '1')} used, {capability}; "
                   f"Python {python}, {versions.replace(' ', ', ').replace('=', ' ')}.\n"
                   for date, cpu, cores, threads, capability, python, versions in seen)  # fmt: skip


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _comparison(rows: list[dict[str, str]]) -> str:
    cells = []
    for row in rows:
        ratio, target = float(row["ratio"]), float(row["target"])
        said = "" if target != target else f"{target:.3g}" + ("" if ratio >= target else ", not met")
        note = f" ({row['note']})" if row["note"] else ""
        cells.append([row["group"], row["case"], f"{row['candidate']} / {row['baseline']}",
                      f"**{ratio:.3g}** [{float(row['low']):.3g}, {float(row['high']):.3g}] of {row['pairs']}", said,
                      f"{_number(row['baseline_ms'])} → {_number(row['candidate_ms'])}",
                      _megabytes(row),
                      row["check"] + note])  # fmt: skip
    return _table(["operator", "case", "candidate / baseline", "times faster [interval] of pairs", "target", "ms",
                   "MB", "check"], cells)  # fmt: skip


def _megabytes(row: dict[str, str]) -> str:
    first, second = float(row["baseline_mb"]), float(row["candidate_mb"])
    return "" if first != first else f"{first:.0f} → {second:.0f}"


def _pipelines(rows: list[dict[str, str]]) -> str:
    cells = []
    for row in rows:
        ratio, target = float(row["ratio"]), float(row["target"])
        said = "" if target != target else f"{target:.3g}" + ("" if ratio >= target else ", not met")
        cells.append([row["group"], row["case"], f"`{row['candidate']}`", f"**{ratio:.3g}**", said,
                      f"{float(row['baseline_ms']) / 1e3:.0f} → {float(row['candidate_ms']) / 1e3:.0f}",
                      f"{row['check']} ({row['note']})"])  # fmt: skip
    return _table(["method", "case", "ours", "times faster", "target", "seconds", "quality"], cells)


def _memory(rows: list[dict[str, str]]) -> str:
    return _table(["strategy", "peak, GB", "of which scoring, GB", "while training, GB", "seconds"],
                  [[r["strategy"], f"{float(r['peak_bytes']) / 1e9:.2f}", f"{float(r['rise_bytes']) / 1e9:.2f}",
                    f"{float(r['train_peak_bytes']) / 1e9:.2f}", r["seconds"]] for r in rows])  # fmt: skip


def _growth_text(rows: list[dict[str, str]]) -> str:
    over = [f"{curve} ({slope:.2f})" for (axis, curve), slope in exponents(rows).items() if slope > LIMITS[axis]]
    verdict = "Exceptions: " + ", ".join(over) + "." if over else "No curve exceeds them."
    return ("Exponents of the curves' upper ends: N log N in points and in rows of a bank, and linear in tasks, are at "
            f"most {LIMITS['points']}, {LIMITS['rows']} and {LIMITS['tasks']} here. {verdict} Bytes of a bank under a "
            "budget stay where they are, those of `growing` grow by each task's rows.\n")  # fmt: skip


def _growth(rows: list[dict[str, str]]) -> str:
    slopes = exponents(rows)
    cells = []
    for (axis, curve), slope in slopes.items():
        own = [r for r in rows if (r["axis"], r["curve"]) == (axis, curve)]
        sizes = [f"{_short(r['size'])}: {float(r['seconds']):.3g} s / {float(r['megabytes']):.3g} MB" for r in own]
        cells.append([axis, curve, f"{slope:.2f}", ", ".join(sizes)])
    return _table(["axis", "curve", "exponent", "size: processor seconds / memory"], cells)


def _short(size: str) -> str:
    number = int(size)
    for unit, letter in ((10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:g}{letter}"
    return size


def _number(milliseconds: str) -> str:
    value = float(milliseconds)
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def main() -> None:
    """Write the page and its figure."""
    if rows := newest(RESULTS, "growth"):
        figure(rows, ROOT / "docs" / "images" / "growth.png")
    (ROOT / "BENCHMARKS.md").write_text(page())
    print("written", ROOT / "BENCHMARKS.md")


if __name__ == "__main__":
    main()
