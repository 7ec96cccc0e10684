"""Published tables as runs, and the verdicts on them."""

import re

import numpy as np
import pandas as pd
import pytest

from tests.data import miniatures
from tests.runs.stored import made_up, separated
from toolkit.cli import main, parse_run
from toolkit.data import counts
from toolkit.errors import UnknownNameError
from toolkit.published import COLUMNS, published
from toolkit.runs import reproduce
from toolkit.runs.load import find_runs
from toolkit.runs.recipes import command_line, find_table, load_recipes, tables, targets
from toolkit.runs.uncertainty import Resampled, over_runs


def row(**facts):
    """A published row with defaults."""
    usual = {"table": "Table 9", "source": "Someone (2026)", "dataset": "Real3D-AD", "split": "", "task": pd.NA,
             "method": "BTF (FPFH)", "category": "mean", "metric": "object_auroc", "value": 0.5,
             "setting": "one model per category", "notes": ""}  # fmt: skip
    return {**usual, **facts}


def frame(*rows):
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"task": "Int64"})


def only(roots=(), **facts):
    (target,) = targets(frame(row(**facts)), dict(roots), load_recipes())
    return target


def test_every_published_row_is_in_one_table_and_gets_a_target():
    everything = published()
    found = tables(everything)
    assert sum(len(rows) for rows in found.values()) == len(everything)
    assert all(re.fullmatch(r"[a-z0-9/-]+", name) for name in found)
    recipes = load_recipes()
    for rows in found.values():
        made = targets(rows, {}, recipes)
        assert sum(len(t.rows) for t in made) == len(rows)
        assert all(t.problem for t in made)  # nothing runs without data


def test_tables_are_found_by_the_beginning_of_their_name():
    everything = published()
    assert len(find_table("c3d-ad/table-1", everything)) == 44
    assert len(find_table("Real3D-AD", everything)) == 74
    with pytest.raises(UnknownNameError, match="5 tables are called so"):
        find_table("c3d-ad/", everything)
    with pytest.raises(UnknownNameError, match="there is no such table"):
        find_table("c4d", everything)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"method": "IMRNet"}, "strategy not available"),
        ({"method": "MC3D-AD: LGE, no AGMA"}, "strategy not available"),
        ({"setting": "one model per category; 3 blocks"}, "setting not available: one model per category; 3 blocks"),
        ({"setting": ""}, "setting not available: not stated"),
        ({"dataset": "Anomaly-ShapeNet-New"}, "no reader for this dataset"),
        ({"metric": "gpu_gb"}, "not compared: depends on the machine"),
        ({}, "dataset not present: --root Real3DAD=FOLDER; real3d-ad-pcd.zip, linked at github.com/M-3LAB/Real3D-AD"),
    ],
)
def test_what_cannot_run_says_why(facts, said):
    assert only(**facts).problem == said


def test_a_folder_that_is_not_the_published_dataset_is_not_run(tmp_path):
    root = str(miniatures.real3d(tmp_path))
    assert only({"Real3DAD": root}).problem == "dataset not complete: 10 of 12 classes are missing"
    assert "does not exist" in only({"Real3D-AD": str(tmp_path / "gone")}).problem


def test_commands_parse_to_what_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr(counts, "published_counts", lambda dataset: {})
    root = str(miniatures.real3d(tmp_path / "with space"))
    target = only(
        {"Real3DAD": root}, split="8_4", setting="continual, class-incremental; seen", method="PatchCore (FPFH)"
    )
    assert (target.problem, target.scenario) == ("", "class_incremental")
    line = command_line(target.scenario, {**target.config, "seed": 1, "figures": False})
    assert line.startswith("continual3d run class_incremental --dataset Real3DAD --dataset.root '")
    import shlex

    words = [re.sub(r"^--(strategy|dataset)$", r"--\1.name", w) for w in shlex.split(line)[3:]]
    classes, options = parse_run("class_incremental", words)
    _, direct = parse_run("class_incremental", config={**target.config, "seed": 1, "figures": False})
    assert classes["strategy"].__name__ == "PatchCore" and options.seed == 1
    assert {k: v for k, v in options.as_dict().items() if k != "config"} == {
        k: v for k, v in direct.as_dict().items() if k != "config"
    }


def test_verdicts():
    runs = [made_up(separated(1.0), seed=s, objects=40) for s in (0, 1)]
    resampled = {run: Resampled(run, 300) for run in runs}
    ours = over_runs([resampled[run].final() for run in runs])
    shown, verdict = reproduce.compare(row(value=ours.value + 0.001), runs, resampled)
    assert verdict == "within interval" and shown.startswith(f"{ours.value:.3f} [")
    _, verdict = reproduce.compare(row(value=ours.high + 0.01), runs, resampled)
    assert verdict == f"differs: ours − published = −{ours.high + 0.01 - ours.value:.3f}"
    assert reproduce.compare(row(category="duck"), runs, resampled) == ("–", "no such category: duck")
    shown, _ = reproduce.compare(row(category="c1"), runs, resampled)
    assert shown.startswith(f"{np.mean([resampled[r].categories()['c1'][0] for r in runs]):.3f}")


def test_continual_rows_are_means_over_the_classes_seen():
    run = made_up(lambda state, y, rng: rng.normal(size=len(y)) + (4 - state) * y, objects=30)
    resampled = {run: Resampled(run, 50)}
    R = np.array(run.result["matrices"]["object_auroc"], dtype=float)
    for task in (1, 2, 3):
        shown, _ = reproduce.compare(row(task=task, split="even"), [run], resampled)
        assert shown.startswith(f"{R[task, :task].mean():.3f}")


@pytest.fixture
def small_world(tmp_path, monkeypatch):
    """A published table about a miniature that passes for the whole dataset."""
    rows = [row(value=0.99), row(metric="point_auroc", value=0.9), row(metric="inference_s", value=1.5),
            row(category="duck", value=0.01, notes="by hand"), row(method="CPMF")]  # fmt: skip
    monkeypatch.setattr("toolkit.published.published", lambda: frame(*rows))
    monkeypatch.setattr(counts, "published_counts", lambda dataset: {})
    root = miniatures.real3d(tmp_path / "data")

    def go(*more):
        return main(["reproduce", "someone", "--root", f"Real3DAD={root}", "--seeds", "2", "--output",
                     str(tmp_path / "runs"), "--write", str(tmp_path / "REPRODUCED.md"), "--threads", "1", "--device",
                     "cpu", *more])  # fmt: skip

    return go


def test_from_a_table_to_the_file_and_again_without_running(small_world, tmp_path, capsys):
    assert small_world("--dry-run") == 0
    planned = capsys.readouterr().out.splitlines()
    assert len(planned) == 3 and planned[2] == "# CPMF on Real3D-AD: strategy not available"
    assert not (tmp_path / "runs").exists()
    assert small_world() == 0
    text = (tmp_path / "REPRODUCED.md").read_text()
    runs = find_runs([tmp_path / "runs"])
    assert sorted(run.spec.seed for run in runs) == [0, 1]
    mean = np.mean([run.result["final"]["object_auroc"] for run in runs])
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| BTF")]
    assert lines[0][7].startswith(f"{mean:.3f} [") and lines[0][8] == "0, 1"
    points = np.mean([run.result["final"]["point_auroc"] for run in runs])
    assert lines[1][7].startswith(f"{points:.3f} [") and lines[1][9].startswith(("within", "differs"))
    assert "not compared" in lines[2][9] and lines[2][6] == "1.50"
    assert lines[3][9].startswith("differs") and lines[3][10] == "by hand |"
    assert "CPMF" in text and "strategy not available" in text
    assert "`continual3d run single_class --dataset Real3DAD --dataset.root FOLDER" in text
    assert all(run.spec.hash in text for run in runs) and str(tmp_path) not in text
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.parquet")}
    assert small_world() == 0
    assert (tmp_path / "REPRODUCED.md").read_text() == text
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.parquet")} == before


def test_a_run_that_fails_is_reported_and_the_others_go_on(small_world, tmp_path, capsys, monkeypatch):
    from toolkit.errors import CloudError
    from toolkit.runs import cell

    def fail(payload):
        raise CloudError("duck/train/261_template.pcd: truncated.")

    monkeypatch.setattr(cell, "run_cell", fail)
    assert small_world() == 1
    text = (tmp_path / "REPRODUCED.md").read_text()
    assert text.count("failed: duck/train/261_template.pcd: truncated.") == 3 and "CPMF" in text
    assert "truncated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Which table?"),
        (["c3d-ad/table-1", "--root", "Real3DAD"], "expected DATASET=FOLDER"),
        (["c3d-ad/table-1", "--method", "Nobody"], "the table has Continual-Reg3D-AD"),
        (["c3d-ad/table-1", "--seeds", "0"], "expected 1 or more"),
    ],
)
def test_mistakes(capsys, arguments, said):
    assert main(["reproduce", *arguments, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_list(capsys):
    assert main(["reproduce", "--list"]) == 0
    out = capsys.readouterr().out
    assert "c3d-ad/table-1" in out and "real3d-ad/main-table" in out
