"""Sweeps from end to end on toys, in this process."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
import yaml

from tests.toys import ToyNet
from toolkit.cli import main
from toolkit.cloud import AnomalyMap
from toolkit.errors import HyperparameterError, OutputError
from toolkit.tuning.chf import plastic, relaxing, stability_option
from toolkit.tuning.report import find_sweeps, history_frame, importances, rules_frame, trials_frame
from toolkit.tuning.rules import RuleOptions
from toolkit.tuning.space import Float, Int
from toolkit.tuning.study import StudySpec, open_study
from toolkit.tuning.sweep import front
from toolkit.tuning.trials import points_of

TOYS = str(Path(__file__).resolve().parents[1] / "toys.py")


class Knob(ToyNet):
    """Scores well where `good` is near 1, forgets where `lazy` is high, fails where `good` is above 3, counts calls.

    Args:
        good: quality.
        size: of what is kept.
    """

    search_space = {"good": Float(0.0, 2.0), "size": Int(1, 100)}
    presets = {"paper": {"size": 90, "width": 4}}

    def __init__(self, *, good: float = 0.5, size: int = 10, **base):
        self.good, self.size = good, size
        super().__init__(**base)

    def score(self, cloud):
        if self.good > 3:
            raise ZeroDivisionError("good is too good")
        self.bulk_ = torch.zeros(self.size * 1000)
        dent = float((cloud.pos.norm(dim=1) < 0.5).float().mean())
        noise = float(torch.rand(()))  # seeded by the strategy's seed and the cloud
        return AnomalyMap(cloud.pos.norm(dim=1), dent + abs(self.good - 1) * noise)


KNOB = f"{Path(__file__).resolve()}:Knob"
BASE = ["--dataset", f"{TOYS}:Toy", "--dataset.categories", "3", "--split", "even:3", "--cache", "none",
        "--device", "cpu", "--executor", "inline", "--strategy.epochs", "1"]  # fmt: skip


def sweep(output, *options, strategy=KNOB):
    return main(["sweep", "class_incremental", "--strategy", strategy, *BASE, "--output", str(output), "--study", "s",
                 *map(str, options)])  # fmt: skip


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    """A sweep under three rules with two seeds."""
    output = tmp_path_factory.mktemp("sweeps")
    code = sweep(output, "--trials", 5, "--rule", "first-k-tasks", "per-task-validation", "oracle", "--pruner", "none")
    assert code == 0
    return output / "s"


def test_rules_leave_choices_and_the_gap_between_them(rules):
    table = pd.read_csv(rules / "report" / "rules.csv").set_index("rule")
    assert list(table.index) == ["first-k-tasks", "ORACLE (test labels)", "per-task-validation"]
    best = table.loc["ORACLE (test labels)"]
    assert best["gap_to_oracle"] == 0 and (table["tasks_left_out"] == 2).all()
    assert best["selection"] == best["all_tasks"] >= table["all_tasks"].max()
    assert table["chosen_with"]["ORACLE (test labels)"].startswith("ORACLE")
    for rule in ("first-k-tasks", "per-task-validation", "oracle"):
        choice = json.loads((rules / rule / "choice.json").read_text())
        runs = [json.loads((rules / rule / f / "result.json").read_text()) for f in choice["folders"]]
        matrix = np.array(runs[0]["matrices"]["object_auroc"], dtype=float)
        assert choice["final"][0]["unseen_tasks"] == pytest.approx(
            matrix[-1, 2:].mean() if rule == "first-k-tasks" else matrix[-1].mean()
        )
    assert "oracle" in runs[0]["spec"]["scenario"]["name"]


def test_first_trial_is_the_default(rules):
    for found in find_sweeps([rules]):
        frame = trials_frame(found.studies[""], 5)
        assert frame.loc[0, "param_strategy.good"] == 0.5 and len(frame) == 5 and set(frame["state"]) == {"finished"}
        values = history_frame(found.studies[""], 5)
        last = values[values["step"] == values["step"].max()].set_index("place")["value"]
        pd.testing.assert_series_equal(last, frame["objective_average"], check_names=False)


def test_report_has_tables_and_figures_and_best_can_be_run(rules, tmp_path, capsys):
    assert main(["sweep", "report", str(rules), "--output", str(tmp_path / "again")]) == 0
    for name in ("trials.csv", "history.png", "parallel.png", "intermediate.png"):
        assert (rules / "report" / "oracle" / name).stat().st_size > 100
    for name in ("rules.csv", "oracle/trials.csv", "oracle/history.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (rules / "report" / name).read_bytes()
    capsys.readouterr()
    assert main(["sweep", "report", str(rules / "first-k-tasks"), "--best"]) == 0
    text = capsys.readouterr().out
    assert "first 2 tasks" in text.splitlines()[1]
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert main(["run", "class_incremental", "--config", str(config), "--output", str(tmp_path / "runs"), "--cache",
                 "none", "--figures", "false"]) == 0  # fmt: skip
    (result,) = (tmp_path / "runs").rglob("result.json")
    choice = json.loads((rules / "first-k-tasks" / "choice.json").read_text())
    assert json.loads(result.read_text())["hash"] in choice["folders"][0]
    assert main(["sweep", "report", str(rules), "--best"]) == 2


def test_importances_name_what_matters(tmp_path):
    spec = StudySpec("class_incremental", {}, {"a": Float(0.0, 1.0), "b": Float(0.0, 1.0), "c": Float(0.0, 1.0)})
    study = open_study(str(tmp_path / "j"), "s", spec)
    assert importances(study) is None
    for _ in range(30):
        trial = study.ask()
        a, b, _ = (space.suggest(trial, name) for name, space in spec.space.items())
        study.tell(trial, -((a - 0.8) ** 2) + 0.01 * b)
    shares = importances(study)
    assert shares.iloc[0]["option"] == "a" and shares.iloc[0]["importance"] > 0.5
    assert shares["importance"].sum() == pytest.approx(1)


def test_started_again_it_does_nothing_and_then_only_what_is_missing(rules, capsys):
    options = ["--trials", 5, "--rule", "oracle", "--pruner", "none"]
    before = (rules / "oracle" / "study.journal").read_bytes()
    assert sweep(rules.parent, *options) == 0
    assert (rules / "oracle" / "study.journal").read_bytes() == before
    options[1] = 6
    assert sweep(rules.parent, *options) == 0
    study = open_study(str(rules / "oracle" / "study.journal"), "s/oracle")
    assert [p.place for p in points_of(study.trials)] == list(range(6))
    assert sweep(rules.parent, *options, "--sampler", "random") == 2
    assert "another sampler" in capsys.readouterr().err


def test_several_objectives_under_a_limit(tmp_path):
    assert sweep(tmp_path, "--objective", "average", "bytes", "--max-bytes", 250_000, "--trials", 8, "--rule",
                 "oracle", "--sampler", "nsga2") == 0  # fmt: skip
    (found,) = find_sweeps([tmp_path])
    frame = trials_frame(found.studies[""], 8)
    assert ((frame["bytes"] <= 250_000) == frame["within_limits"]).all() and 0 < frame["within_limits"].sum() < 8
    best = front(points_of(found.studies[""].trials), found.spec)
    fit = frame[frame["within_limits"]]
    for point in best:
        value, size = point.last.values
        assert not ((fit["average"] >= value) & (fit["bytes"] < size)).any()
        assert not ((fit["average"] > value) & (fit["bytes"] <= size)).any()
    assert found.choice["params"] == best[0].last.params
    assert (tmp_path / "s" / "report" / "oracle" / "pareto.png").exists()


def test_failures_are_tried_twice_and_kept_with_their_error(tmp_path, capsys):
    space = tmp_path / "space.yaml"
    space.write_text("strategy.good: [0.9, 9.0]\nsplit: ['even:2', 'even:3']\n")
    base = [b for b in BASE if b not in ("--split", "even:3")]
    code = main(["sweep", "class_incremental", "--strategy", KNOB, *base, "--output", str(tmp_path), "--study", "s",
                 "--space", str(space), "--sampler", "grid", "--trials", "9", "--rule", "oracle"])  # fmt: skip
    assert code == 0
    frame = pd.read_csv(tmp_path / "s" / "report" / "oracle" / "trials.csv")
    assert len(frame) == 4
    failed = frame[frame["state"] == "failed"]
    assert (failed["param_strategy.good"] == 9.0).all() and len(failed) == 2
    assert (failed["attempts"] == 2).all() and failed["why"].str.contains("ZeroDivisionError: good is too good").all()
    assert yaml.safe_load((tmp_path / "s" / "oracle" / "best.yaml").read_text())["strategy"]["good"] == 0.9


def test_seeds_and_orders_are_averaged_and_bad_trials_given_up(tmp_path):
    assert sweep(tmp_path, "--trials", 5, "--rule", "oracle", "--seeds", 0, 1, "--order-list", "listed", "random:1",
                 "--sampler", "random") == 0  # fmt: skip
    (found,) = find_sweeps([tmp_path])
    frame = trials_frame(found.studies[""], 5)
    assert set(frame["state"]) == {"finished", "given up"}
    given_up = frame[frame["state"] == "given up"]
    finished = frame[frame["state"] == "finished"]
    assert (finished["tasks_seen"] == 12).all() and (given_up["tasks_seen"] < 12).all()
    trial = points_of(found.studies[""].trials)[int(finished["place"].iloc[0])].last
    results = [json.loads((found.folder / r / "result.json").read_text()) for r in trial.user_attrs["runs"]]
    assert len(results) == 4 and len({r["hash"] for r in results}) == 4
    assert trial.values[0] == pytest.approx(np.mean([r["continual"]["average"] for r in results]))


def test_chf_relaxes_until_new_tasks_are_learned_well_enough(tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("strategy.lr: {low: 1e-3, high: 1e-1, log: true}\n"
                     "continual.ewc_lambda: {low: 1.0, high: 8.0e6}\n")  # fmt: skip
    assert sweep(tmp_path, "--space", space, "--continual", "ewc", "--rule", "chf", "--trials", 2, "--attempts", 3,
                 strategy=f"{TOYS}:ToyNet") == 0  # fmt: skip
    (found,) = find_sweeps([tmp_path])
    assert list(found.studies) == ["plasticity", "stability"]
    tried = trials_frame(found.studies["stability"], 3)
    weights = list(tried["param_continual.ewc_lambda"])
    assert weights == [8e6, 4e6, 2e6][: len(weights)]
    assert (tried["state"].iloc[:-1] == "given up").all()
    first = trials_frame(found.studies["plasticity"], 2)
    assert len(first) == 2 and "param_continual.ewc_lambda" not in first
    choice = json.loads((tmp_path / "s" / "chf" / "choice.json").read_text())
    assert choice["params"]["continual.ewc_lambda"] == weights[-1] and "weights tried" in choice["note"]
    spec = found.spec
    assert stability_option(spec) == "continual.ewc_lambda" and plastic(spec).config["continual"] == {"name": "Naive"}
    second = relaxing(spec, {"strategy.lr": 0.5}, [[0.9, 0.8]])
    assert second.references == ((0.9, 0.8),) and second.config["strategy"]["lr"] == 0.5


def test_chf_gives_up_an_attempt_at_the_first_task_below_the_margin(tmp_path):
    from toolkit.runs.executors.inline import InlineExecutor
    from toolkit.runs.fleet import FleetView
    from toolkit.tuning.sweep import Fleet, run_study

    config = {"split": "even:3", "device": "cpu", "threads": 1, "cache": "none", "continual": {"name": "Naive"},
              "dataset": {"name": f"{TOYS}:Toy", "categories": 3}, "strategy": {"name": KNOB, "epochs": 1}}  # fmt: skip
    base = StudySpec("class_incremental", config, {"strategy.good": Float(0.0, 9.0)}, "chf",
                     RuleOptions(attempts=4, stability="strategy.good"))  # fmt: skip
    fleet = Fleet(lambda _: InlineExecutor(), 1, FleetView(""))
    easy = run_study(relaxing(base, {}, [[0.0] * 3]), tmp_path, str(tmp_path / "easy"), "s", 4, fleet)
    assert list(trials_frame(easy, 4)["state"]) == ["failed", "failed", "finished"]  # 9 and 4.5 raise, 2.25 passes
    hard = run_study(relaxing(base, {}, [[0.0, 2.0, 0.0]]), tmp_path, str(tmp_path / "hard"), "s", 4, fleet)
    frame = trials_frame(hard, 4)
    assert list(frame["state"]) == ["failed", "failed", "given up", "given up"]
    assert frame["why"].iloc[2].startswith("task 2: ") and frame["param_strategy.good"].iloc[3] == 9 / 8


def test_full_disk_stops_the_sweep_and_counts_nothing(tmp_path, monkeypatch, capsys):
    from toolkit.tuning import worker

    def full(*_):
        raise OutputError("Cannot write x: No space left on device.")

    with monkeypatch.context() as patched:
        patched.setattr(worker, "judge", full)
        assert sweep(tmp_path, "--trials", 2, "--rule", "oracle") == 2
    assert "No space left" in capsys.readouterr().err
    assert sweep(tmp_path, "--trials", 2, "--rule", "oracle") == 0
    (found,) = find_sweeps([tmp_path])
    frame = trials_frame(found.studies[""], 2)
    assert list(frame["state"]) == ["finished"] * 2 and list(frame["attempts"]) == [2, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trials", 0], "--trials"),
        (["--rule", "guess"], "per-task-validation"),
        (["--objective", "beauty"], "average"),
        (["--objective", "bytes", "--forgetting-weight", 1], "--forgetting-weight"),
        (["--strategy.good", 1.0, "--strategy.size", 3], "nothing to search"),
        (["--sampler", "magic"], "tpe"),
        (["--objective", "average", "bytes", "--pruner", "median"], "one objective"),
        (["--rule", "chf"], "no stability weight"),
        (["--executor", "cloud"], "processes"),
        (["--split", "even:2"], "fixed"),
        (["--storage", "nosuch://x"], "nosuch"),
        (["--no-such-option", 1], "no-such-option"),
        (["--space", "no_such.yaml"], "no_such.yaml"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(tmp_path, capsys, options, said):
    if said == "fixed":
        (tmp_path / "space.yaml").write_text("split: ['even:2']\n")
        options = [*options, "--space", tmp_path / "space.yaml"]
    assert sweep(tmp_path, *options) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(err) == 1 and said in err[0]


def test_presets_reach_trials_choice_and_final_run(tmp_path, capsys):
    assert sweep(tmp_path, "--trials", 2, "--preset", "paper", "--strategy.good", 0.9) == 0
    (found,) = find_sweeps([tmp_path])
    assert found.spec.config["preset"] == "paper" and found.spec.config["strategy"]["width"] == 4
    frame = trials_frame(found.studies[""], 2)
    assert frame.loc[0, "param_strategy.size"] == 90  # the preset's value is the first that is tried
    capsys.readouterr()
    assert main(["sweep", "report", str(tmp_path / "s"), "--best"]) == 0
    best = yaml.safe_load(capsys.readouterr().out)
    assert best["strategy"]["width"] == 4 and best["strategy"]["good"] == 0.9
    (final,) = (tmp_path / "s" / "first-k-tasks" / "final").rglob("result.json")
    assert json.loads(final.read_text())["spec"]["strategy"]["arguments"]["width"] == 4
    assert sweep(tmp_path, "--preset", "huge") == 2
    assert "small, paper" in capsys.readouterr().err


def test_print_space_can_be_read_back(tmp_path, capsys):
    assert sweep(tmp_path, "--print-space", "--continual", "replay", "--strategy.size", 5) == 0
    text = capsys.readouterr().out
    assert set(yaml.safe_load(text)) == {"strategy.good", "continual.mem_size"}
    (tmp_path / "space.yaml").write_text(text)
    assert sweep(tmp_path, "--print-space", "--continual", "replay", "--space", tmp_path / "space.yaml") == 0
    assert capsys.readouterr().out == text


def test_spec_survives_the_storage(tmp_path):
    spec = StudySpec("class_incremental", {"split": "even:4"}, {"strategy.lr": Float(1e-4, 1e-2, True, "paper")},
                     objectives=("average", "latency"), seeds=(1, 2), limits={"latency": 0.5},
                     references=((0.1, 0.2),))  # fmt: skip
    study = open_study(str(tmp_path / "j"), "s", spec)
    assert StudySpec.from_plain(study.user_attrs["spec"]) == spec
    assert StudySpec.from_plain(json.loads(json.dumps(spec.as_plain()))) == spec
    assert study.directions == [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
    elsewhere = dataclasses.replace(spec, config={"split": "even:4", "cache": "none", "threads": 7, "preset": "small"})
    assert open_study(str(tmp_path / "j"), "s", elsewhere).user_attrs["spec"] == spec.as_plain()
    with pytest.raises(HyperparameterError, match="another config"):
        open_study(str(tmp_path / "j"), "s", dataclasses.replace(spec, config={"split": "even:5"}))
    with pytest.raises(HyperparameterError, match="another seeds"):
        open_study(str(tmp_path / "j"), "s", StudySpec(**{**spec.__dict__, "seeds": (1,)}))


def test_rules_frame_without_any_choice():
    assert len(rules_frame([])) == 0
