"""The README's table of strategies."""

from tests.runs.stored import made_up, separated
from toolkit.registry import entries, resolve
from toolkit.runs.show import write_into
from toolkit.runs.strategy_table import strategies_markdown
from toolkit.tuning.space import arguments


def result_of(name, distance=1.0, seed=0, **changed):
    default = arguments(resolve("strategy", name))
    return made_up(separated(distance), name, seed, arguments={**default, **changed}).result


def test_every_strategy_has_a_row_and_measured_ones_their_figures():
    measured = result_of("BTF")
    lines = strategies_markdown([measured]).splitlines()
    rows = {line.split(" | ")[0].strip("| "): line for line in lines[2:]}
    assert list(rows) == list(entries("strategy"))
    assert f"{measured['final']['object_auroc']:.3f}" in rows["BTF"] and "| none |" in rows["BTF"]
    assert all(resolve("strategy", name).paper in row for name, row in rows.items())
    assert "| - | - |" in rows["PatchCore"]


def test_only_runs_with_default_arguments_count():
    other, default = result_of("BTF", 3.0, voxel=0.5), result_of("BTF", 0.0)
    row = next(line for line in strategies_markdown([other, default]).splitlines() if line.startswith("| BTF "))
    assert f"{default['final']['object_auroc']:.3f}" in row


def test_several_seeds_give_mean_and_deviation():
    runs = [result_of("BTF", seed=seed) for seed in (1, 0)]
    first, second = (run["final"]["object_auroc"] for run in runs)
    row = next(line for line in strategies_markdown([*runs, runs[0]]).splitlines() if line.startswith("| BTF "))
    assert f"| {(first + second) / 2:.3f} ± {abs(first - second) / 2**0.5:.3f} |" in row and first != second
    assert row.endswith("| 0, 1 |")


def test_seconds_are_those_of_the_run_that_had_no_cache_and_auroc_of_the_one_with_most_categories():
    whole = result_of("BTF", 0.0)
    part = {**result_of("BTF", 9.0), "categories": [["c0"]]}
    part["spec"] = {**part["spec"], "fingerprint": "g"}
    part["cost"] = {**part["cost"], "score_seconds_per_cloud": 7.25}
    row = next(line for line in strategies_markdown([part, whole]).splitlines() if line.startswith("| BTF "))
    assert f"| 7.25 | {whole['final']['object_auroc']:.3f} |" in row


def test_the_table_goes_between_its_marks_and_nothing_else_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table:x -->\nold\n<!-- end:x -->\nafter\n")
    write_into(f"{page}:x", "| a |")
    assert page.read_text() == "before\n<!-- table:x -->\n| a |\n<!-- end:x -->\nafter\n"
