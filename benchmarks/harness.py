"""A paired benchmark: baseline and candidate take turns in one process, and what counts is the ratio of each pair.

A loaded machine stretches both halves of a pair alike, so the median ratio holds where absolute times do not. Times are
processor time of this process, all threads together. Every comparison carries a check of the two results, made before
anything is timed: a fast wrong answer raises.
"""

from __future__ import annotations

import csv
import ctypes
import dataclasses
import datetime
import gc
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "open3d-cpu", "open3d", "pykdtree", "fpsample", "faiss-cpu",
            "small-gicp", "pandas", "numba")  # fmt: skip


class CheckFailed(AssertionError):
    """The candidate's result is not what it must be for its speed to mean anything."""


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        group, case: what was measured, on what.
        baseline, candidate: names of the two ways.
        target: ratio to reach; nan where none was set.
        ratio, low, high: median of baseline time / candidate time over the pairs, and its 95 % bootstrap interval.
        pairs: how many.
        baseline_ms, candidate_ms: median processor time.
        baseline_mb, candidate_mb: rise of the resident memory at its peak, in 10^6 bytes; nan where unknown.
        check: what was found equal, or within which bound.
        note: anything a reader must know, e.g. that the baseline was extrapolated.
    """

    group: str
    case: str
    baseline: str
    candidate: str
    target: float
    ratio: float
    low: float
    high: float
    pairs: int
    baseline_ms: float
    candidate_ms: float
    baseline_mb: float
    candidate_mb: float
    check: str
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the target was reached; True without one."""
        return not self.ratio < self.target


class Bench:
    """Runs comparisons and keeps their rows.

    Args:
        pairs: at most so many pairs.
        seconds: stop a comparison after so much processor time, but not before three pairs (two, where a baseline takes
            more than 4 s).
        say: called with a line per finished comparison.
        save: called with all rows so far after each.
    """

    def __init__(self, *, pairs: int = 15, seconds: float = 20.0, say: Callable[[str], None] = print,
                 save: Callable[[list[Row]], Any] = lambda rows: None):  # fmt: skip
        self.pairs, self.seconds, self.say, self.save = pairs, seconds, say, save
        self.rows: list[Row] = []

    def paired(self, group: str, case: str, baseline: tuple[str, Callable[[], Any]],
               candidate: tuple[str, Callable[[], Any]], check: Callable[[Any, Any], str], *,
               target: float = float("nan"), note: str = "", scale: float = 1.0) -> Row:  # fmt: skip
        """Compare two ways of computing the same.

        Args:
            group, case: what is measured, on what.
            baseline, candidate: name and function without arguments.
            check: of the two results; returns in words what holds, or raises (see `equal`, `close`, `at_most`).
            target: ratio to reach.
            note: for the reader.
            scale: the baseline does 1 / scale of the work; its times are multiplied (say so in `note`).
        """
        first, baseline_mb, spent = _observed(baseline[1])
        second, candidate_mb, quick = _observed(candidate[1])
        verdict = check(first, second)
        del first, second
        inner = _repeats(candidate[1], quick)
        outer = _repeats(baseline[1], spent)
        # Of a baseline that takes seconds the first call counts too; it is nothing that warms up.
        slow, fast = ([spent], [_timed(candidate[1], inner)]) if spent > self.seconds / 3 else ([], [])
        least = 3 if spent < 4 else 2
        begin = time.process_time()
        enabled = gc.isenabled()
        gc.disable()
        try:
            while len(slow) < self.pairs and (len(slow) < least or time.process_time() - begin < self.seconds):
                turns = [(slow, baseline[1], outer), (fast, candidate[1], inner)]
                for times, function, count in turns if len(slow) % 2 == 0 else reversed(turns):
                    times.append(_timed(function, count))
        finally:
            if enabled:
                gc.enable()
        slow = [scale * t for t in slow]
        ratio, low, high = median_ratio(np.array(slow) / np.array(fast))
        row = Row(group, case, baseline[0], candidate[0], target, ratio, low, high, len(slow), 1e3 * _median(slow),
                  1e3 * _median(fast), baseline_mb, candidate_mb, verdict, note)  # fmt: skip
        return self.add(row)

    def add(self, row: Row) -> Row:
        """Take up a row that was measured elsewhere."""
        self.rows.append(row)
        self.say(in_words(row))
        self.save(self.rows)
        return row


def median_ratio(ratios: np.ndarray, resamples: int = 2000) -> tuple[float, float, float]:
    """Median of (P,) ratios and the bounds of its 95 % percentile bootstrap interval, the same every time."""
    draws = np.random.default_rng(0).integers(0, len(ratios), (resamples, len(ratios)))
    medians = np.median(ratios[draws], axis=1)
    return float(np.median(ratios)), *map(float, np.quantile(medians, (0.025, 0.975)))


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _timed(function: Callable[[], Any], count: int) -> float:
    """Processor seconds of one call, the mean of `count` in a row."""
    begin = time.process_time()
    for _ in range(count):
        function()
    return max(time.process_time() - begin, 1e-7) / count


def _repeats(function: Callable[[], Any], seconds: float) -> int:
    """So many calls in a row that the clock's steps do not matter: some 20 ms."""
    if seconds < 0.02:
        seconds = min(seconds, _timed(function, 1))
    return max(1, min(1000, round(0.02 / max(seconds, 1e-6))))


def _observed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, rise of the resident memory at its peak in 10^6 bytes, and processor seconds of one call."""
    with Peak() as peak:
        begin = time.process_time()
        result = function()
        spent = time.process_time() - begin
    return result, peak.rise / 1e6, spent


class Peak:
    """Rise of the resident memory above what it was, at its highest, within a ``with`` block.

    Linux forgets a process's peak when told to, so the number is exact; elsewhere `rise` is nan.
    """

    rise = float("nan")

    def __enter__(self) -> Peak:
        gc.collect()
        self._before = 0
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).malloc_trim(0)  # or memory freed earlier would be used again without a trace
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status("VmRSS")
        return self

    def __exit__(self, *args: Any) -> None:
        if self._before:
            self.rise = float(max(0, _status("VmHWM") - self._before))


def _status(name: str) -> int:
    line = next(part for part in Path("/proc/self/status").read_text().splitlines() if part.startswith(name + ":"))
    return int(line.split()[1]) * 1024


# ---- checks: each gives a function of (baseline's result, candidate's result) ----------------------------------------


def equal(first: Any, second: Any) -> str:
    """Both arrays are the same."""
    if not np.array_equal(np.asarray(first), np.asarray(second)):
        raise CheckFailed("results differ")
    return "equal"


def close(atol: float, what: str = "results") -> Callable[[Any, Any], str]:
    """No element differs by more than `atol`."""

    def check(first: Any, second: Any) -> str:
        away = float(np.abs(np.asarray(first, np.float64) - np.asarray(second, np.float64)).max())
        if not away <= atol:
            raise CheckFailed(f"{what} differ by {away:.3g}, more than {atol:g}")
        return f"{what} within {away:.1e}" if away else f"{what} equal"

    return check


def at_most(measure: Callable[[Any], float], what: str, slack: float = 0.0) -> Callable[[Any, Any], str]:
    """A figure of the candidate's result is no larger than the baseline's times (1 + slack)."""

    def check(first: Any, second: Any) -> str:
        theirs, ours = measure(first), measure(second)
        if not ours <= theirs * (1 + slack):
            raise CheckFailed(f"{what} is {ours:.4g}, the baseline's {theirs:.4g}")
        return f"{what} {ours:.4g}, baseline's {theirs:.4g}"

    return check


# ---- records -------------------------------------------------------------------------------------------------------


def in_words(row: Row) -> str:
    """One line for the terminal."""
    target = "" if np.isnan(row.target) else f" (target {row.target:g}{'' if row.met else ', NOT MET'})"
    return (f"{row.group:14} {row.case:34} {row.candidate} vs {row.baseline}: {row.ratio:.3g}x "
            f"[{row.low:.3g}, {row.high:.3g}]{target}; {row.baseline_ms:.4g} -> {row.candidate_ms:.4g} ms; "
            f"{row.baseline_mb:.0f} -> {row.candidate_mb:.0f} MB; {row.check}")  # fmt: skip


def environment() -> dict[str, str]:
    """Hardware, threads and versions, as they go beside every result."""
    import torch

    return {"date": datetime.date.today().isoformat(), "cpu": _cpu(), "cores": str(os.cpu_count()),
            "threads": str(torch.get_num_threads()), "capability": torch.backends.cpu.get_cpu_capability(),
            "python": platform.python_version(), "versions": " ".join(_versions())}  # fmt: skip


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    facts = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    return f"{facts.get('model name', '?')} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def _versions() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name}={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def write(rows: list[dict[str, Any]], name: str, folder: Path) -> Path:
    """Write rows with the environment beside each, as ``<date>_<name>.csv``; a file of the same day is replaced."""
    facts = environment()
    path = folder / f"{facts['date']}_{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *facts])
        writer.writeheader()
        writer.writerows({**{k: _short(v) for k, v in row.items()}, **facts} for row in rows)
    return path


def _short(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value


def as_dicts(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows as plain dicts, in the order of their fields."""
    return [dataclasses.asdict(row) for row in rows]
