"""Curves over known samples and known types."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scenarios.class_incremental import ClassIncremental
from scenarios.open_set import OpenSet
from tests.runs.stored import toy_run
from tests.toys import Toy, ToyBank, ToyOpenSet
from toolkit.errors import HyperparameterError
from toolkit.runs.curve import curve_table, curves_of, draw_curve, settings
from toolkit.runs.load import find_runs


class Defects(Toy):
    """A Toy with four dents, three bumps and two holes per category."""

    def __init__(self, *, categories: int = 2, points: int = 60):
        super().__init__(categories=categories, points=points)

    def scan(self):
        samples = [s for s in super().scan() if not s.y]
        for category in "ab"[: self.count]:
            for kind, count in (("dent", 4), ("bump", 3), ("hole", 2)):
                names = [f"{category}/test/{kind}{i}" for i in range(count)]
                samples += [replace(samples[0], category=category, split="test", sample_id=n, group_id=n, y=1,
                                    defect=kind) for n in names]  # fmt: skip
        return samples

    def fingerprint(self):
        return f"defects{self.count}x{self.points}"


def clouds_of(scenario):
    return [{s.sample_id for s in t.test} for t in scenario.tasks(Defects())]


def given_of(scenario):
    return [sum(s.y for s in t.train) for t in scenario.tasks(Defects())]


def test_settings_share_test_clouds_and_leave_out_values_that_add_nothing():
    made = settings(OpenSet(known="dent"), "shots", Defects())
    assert [s.shots for s in made] == [1, 2, 4]  # 3 of 4 dents at most: 5 and 10 are the same as 4
    assert [given_of(s) for s in made] == [[1, 1], [2, 2], [3, 3]]
    assert clouds_of(made[0]) == clouds_of(made[1]) == clouds_of(made[2])
    few, many = ({s.sample_id for t in m.tasks(Defects()) for s in t.train} for m in (made[0], made[2]))
    assert few < many
    assert len(settings(OpenSet(known="dent"), "shots:1,2", Defects())) == 2


def test_settings_over_types_go_by_frequency_or_as_named():
    made = settings(OpenSet(shots=1), "known", Defects())
    assert [s.known for s in made] == ["dent", "dent+bump"]  # the rarest type stays unknown
    assert clouds_of(made[0]) == clouds_of(made[1])
    assert [s.known for s in settings(OpenSet(known="hole+bump+dent", shots=1), "known", Defects())] == [
        "hole",
        "hole+bump",
        "hole+bump+dent",
    ]


@pytest.mark.parametrize(
    "scenario, text, says",
    [
        (OpenSet(known="dent"), "speed", "expected shots, known"),
        (OpenSet(known="dent"), "shots:0,2", "expected shots, known"),
        (OpenSet(shots=1), "known:4", "there are 3 types"),
        (ClassIncremental("even:2"), "shots", "ClassIncremental has none"),
    ],
)
def test_what_makes_no_sense_is_refused(scenario, text, says):
    with pytest.raises(HyperparameterError, match=says):
        settings(scenario, text, Defects())


@pytest.mark.parametrize(
    "test_of, says", [("dent:1", "must take in"), ("bump:9", "must take in"), ("9", "KNOWN:SHOTS")]
)
def test_a_setting_that_would_leak_is_refused(test_of, says):
    with pytest.raises(HyperparameterError, match=says):
        OpenSet(known="dent", shots=2, test_of=test_of).tasks(Defects())


def test_known_types_of_which_no_sample_can_be_given_are_refused():
    class Single(Defects):
        def scan(self):
            return [s for s in super().scan() if not s.sample_id.endswith(("dent1", "dent2", "dent3"))]

    with pytest.raises(HyperparameterError, match="single object"):
        OpenSet(known="dent", shots=2).tasks(Single())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    for method in (ToyOpenSet, ToyBank):
        for draw in (1, 2):
            for scenario in settings(OpenSet(known="dent", draw=draw), "shots:1,2", Defects()):
                toy_run(folder, strategy_class=method, scenario=scenario, dataset=Defects())
    return find_runs([folder])


def test_curve_of_runs(runs):
    (curve,) = curves_of(runs)
    assert curve.axis == "shots" and curve.same_clouds and len(curve.runs) == 4
    rows = curve.frame[(curve.frame["strategy"] == "ToyBank") & (curve.frame["figure"] == "object_auroc")]
    bank = rows.pivot_table(index=["part", "draw"], columns="value", values="score")
    assert np.array_equal(bank[1], bank[2])  # a method that sees no known defect does not depend on their number
    run = next(r for r in runs if r.spec.strategy.name == "ToyOpenSet" and r.spec.scenario.arguments["shots"] == 2)
    row = curve.frame.query("strategy == 'ToyOpenSet' and value == 2 and part == 'unknown' and figure == 'point_ap'")
    assert run.result["slices"]["unknown"]["point_ap"] in list(row["score"])
    assert set(curve.frame["given"]) == {1.0, 2.0}


def test_table_says_whether_more_samples_made_a_difference(runs):
    (curve,) = curves_of(runs)
    table = curve_table(curve, draws=50)
    verdicts = {(row[0], row[1]): row[-1] for row in table.rows}
    assert verdicts["ToyBank", "1"] == "–" and verdicts["ToyBank", "2"] == "0.000, within noise"
    assert "same clouds" in table.note


def test_values_tested_on_other_clouds_are_not_compared(tmp_path):
    for shots in (1, 2):
        toy_run(tmp_path, strategy_class=ToyBank, scenario=OpenSet(known="dent", shots=shots), dataset=Defects())
    (curve,) = curves_of(find_runs([tmp_path]))
    assert not curve.same_clouds
    assert [row[-1] for row in curve_table(curve, draws=20).rows] == ["–", "not tested: other test clouds"]


def test_figure_has_a_line_per_method_in_each_panel(runs):
    import matplotlib.pyplot as plt

    (curve,) = curves_of(runs)
    figure = draw_curve(curve)
    assert [ax.get_title() for ax in figure.axes] == ["all defects", "known defects", "unknown defects"]
    assert all(len(ax.lines) == 2 for ax in figure.axes)
    mean = curve.frame.query("strategy == 'ToyBank' and part == 'all' and figure == 'object_auroc' and value == 2")
    line = next(ln for ln in figure.axes[0].lines if ln.get_label() == "ToyBank")
    assert line.get_ydata()[1] == pytest.approx(mean["score"].mean())
    plt.close(figure)


def test_command_line(tmp_path, capsys):
    from toolkit.cli import scenario_main

    argv = ["--strategy", "tests/toys.py:ToyBank", "--dataset", "tests/runs/test_curve.py:Defects", "--known", "dent",
            "--curve", "shots:1,2", "--draws", "2", "--output", str(tmp_path), "--figures", "false"]  # fmt: skip
    assert scenario_main("OpenSet", argv) == 0
    assert "noise" in capsys.readouterr().out
    (folder,) = (tmp_path / "curves").iterdir()
    assert {p.name for p in folder.iterdir()} == {
        "object_auroc.png", "object_auroc.csv", "point_auroc.png", "point_auroc.csv", "curve.csv"}  # fmt: skip
    assert len(pd.read_csv(folder / "curve.csv")) == 2 * 2 * 3 * 4
    assert len(list(tmp_path.rglob("result.json"))) == 4
    assert json.loads(next(tmp_path.rglob("result.json")).read_text())["given"][0]["known"] in (
        {"dent": 1},
        {"dent": 2},
    )
    assert scenario_main("OpenSet", [*argv[:6], "--curve", "shots:7,8", "--output", str(tmp_path / "new")]) == 2
    assert "only one value" in capsys.readouterr().err and not list((tmp_path / "new").rglob("result.json"))
    assert scenario_main("MultiClass", [*argv[:4], "--draws", "2", "--output", str(tmp_path)]) == 2
    assert "--draws: MultiClass has no draw" in capsys.readouterr().err
