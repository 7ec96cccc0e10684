"""The paired harness: what it counts, when it refuses, and the page it ends in."""

import csv
import time

import numpy as np
import pytest

from benchmarks import page
from benchmarks.growth import exponents
from benchmarks.harness import Bench, CheckFailed, Peak, Row, as_dicts, at_most, close, equal, median_ratio, write


def spin(seconds):
    """Keep the processor busy for so long; returns 1."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return 1


def quiet(**options):
    return Bench(say=lambda line: None, **options)


def test_ratio_of_two_known_durations_and_turns():
    calls = []

    def called(name, seconds):
        calls.append(name)
        return spin(seconds)

    row = quiet(pairs=6, seconds=60).paired("g", "c", ("slow", lambda: called("slow", 0.08)),
                                           ("fast", lambda: called("fast", 0.02)), equal, target=3)  # fmt: skip
    assert 3.2 < row.ratio < 4.6 and row.low <= row.ratio <= row.high and row.pairs == 6 and row.met
    assert row.baseline_ms == pytest.approx(80, rel=0.2) and row.candidate_ms == pytest.approx(20, rel=0.3)
    timed = calls[2:]  # the first two were compared
    assert timed[:4] == ["slow", "fast", "fast", "slow"]


def test_a_wrong_result_is_not_timed():
    calls = []
    with pytest.raises(CheckFailed):
        quiet().paired("g", "c", ("a", lambda: calls.append(1) or 1), ("b", lambda: calls.append(2) or 2), equal)
    assert calls == [1, 2]


def test_a_target_that_is_missed_is_said():
    lines = []
    bench = Bench(pairs=3, say=lines.append)
    row = bench.paired("g", "c", ("a", lambda: spin(0.02)), ("b", lambda: spin(0.02)), equal, target=10)
    assert not row.met and "NOT MET" in lines[0] and bench.rows == [row]


def test_extrapolated_baselines_are_scaled():
    row = quiet(pairs=3).paired("g", "c", ("tenth", lambda: spin(0.02)), ("b", lambda: spin(0.02)), equal, scale=10)
    assert row.ratio == pytest.approx(10, rel=0.3)


def test_time_limit_still_gives_three_pairs():
    row = quiet(pairs=50, seconds=0.05).paired("g", "c", ("a", lambda: spin(0.03)), ("b", lambda: spin(0.03)), equal)
    assert 3 <= row.pairs < 6


def test_bootstrap_interval():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(60):
        middle, low, high = median_ratio(rng.lognormal(np.log(5), 0.2, 15), resamples=300)
        assert low <= middle <= high
        inside += low <= 5 <= high
    assert inside >= 50  # 95 % of 60 is 57
    assert median_ratio(np.full(5, 2.0)) == (2.0, 2.0, 2.0)


def test_peak_sees_memory_that_was_freed_again():
    with Peak() as peak:
        block = np.ones(30_000_000)
        del block
    assert peak.rise != peak.rise or 220e6 < peak.rise < 330e6
    with Peak() as small:
        sum(range(1000))
    assert small.rise != small.rise or small.rise < 20e6


def test_checks():
    assert equal([1, 2], [1, 2]) == "equal"
    assert "within" in close(0.1)([1.0], [1.05]) and "equal" in close(0.1, "sums")([1.0], [1.0])
    for wrong in (float("nan"), 2.0):
        with pytest.raises(CheckFailed, match="sums differ"):
            close(0.1, "sums")([1.0], [wrong])
    at_most(len, "length")([1, 2], [1])
    with pytest.raises(CheckFailed, match="length is 3"):
        at_most(len, "length")([1, 2], [1, 2, 3])
    with pytest.raises(CheckFailed, match="residual"):
        at_most(lambda v: v, "residual")(1.0, float("nan"))


def test_records_and_page(tmp_path):
    fine = Row("fps", "case", "loop", "ours", 40.0, 58.1, 55.0, 60.0, 5, 220.0, 3.3, 4.0, 2.0, "equal")
    short = Row("knn", "case", "tree", "ours", 2.0, 1.5, 1.4, 1.6, 5, 2200.0, 3.3, 4.0, 2.0, "equal", "a note")
    path = write(as_dicts([fine, short]), "sampling", tmp_path)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["ratio"] == "58.1" and rows[0]["date"] in path.name
    assert "torch=" in rows[0]["versions"] and rows[0]["threads"] == "1" and rows[0]["cpu"]
    (tmp_path / "2001-01-01_sampling.csv").write_text("group\nyesterday\n")
    text = page.page(tmp_path)
    assert (
        "**58.1** [55, 60] of 5 | 40 |" in text
        and "2, not met" in text
        and "a note" in text
        and "yesterday" not in text
    )
    points = [
        {"axis": "points", "curve": "c", "size": s, "seconds": 1e-6 * s, "megabytes": 1.0} for s in (1e4, 1e5, 1e6)
    ]
    points = [{**row, "size": int(row["size"])} for row in points]
    write(points, "growth", tmp_path)
    assert "No curve exceeds" in page.page(tmp_path) and "| points | c | 1.00 | 10k: 0.01 s" in page.page(tmp_path)


def test_exponents_are_those_of_the_upper_end():
    rows = [{"axis": "points", "curve": "c", "size": s, "seconds": 5.0 + s**2} for s in (10, 100, 1000, 10_000)]
    assert exponents(rows)["points", "c"] == pytest.approx(2, abs=0.01)
