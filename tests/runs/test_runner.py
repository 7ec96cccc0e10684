"""A run's files, resuming, and what happens to broken or foreign files."""

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from scenarios.class_incremental import ClassIncremental
from tests.toys import Toy, ToyBank, ToyNet
from toolkit.errors import CheckpointError, HyperparameterError, OutputError, RequirementError
from toolkit.registry import entries, resolve
from toolkit.runs import checkpoint, session
from toolkit.runs import spec as run_spec
from toolkit.runs.ledger import COLUMNS
from toolkit.runs.load import load_run
from toolkit.runs.result import _Part
from toolkit.runs.runner import locked, run
from toolkit.runs.spec import Part, RunSpec
from toolkit.runs.uncertainty import Resampled

MODES = list(entries("continual"))


class Interrupted(Exception):
    pass


class Bomb:
    """Stops the process's run in the middle of a task, as a kill would."""

    supports_distributed = True

    def __init__(self, task: int):
        self.task = task

    def after_training_epoch(self, strategy, **kwargs):
        if strategy.clock.train_exp_counter == self.task:
            raise Interrupted


def start(output, mode="Naive", strategy_class=ToyNet, loggers=(), seed=0, split="even:3", **more):
    scenario, dataset, continual = ClassIncremental(split), Toy(), resolve("continual", mode)()
    strategy = strategy_class(seed=seed, plugins=continual.plugins())
    spec = RunSpec(Part("ClassIncremental", scenario.arguments()), Part("Toy"),
                   Part(strategy_class.__name__, strategy.arguments()), Part(mode, continual.arguments()), seed,
                   dataset.fingerprint(), **more)  # fmt: skip
    return run(spec, scenario, dataset, strategy, continual, output, loggers=loggers)


def test_result_can_be_recomputed_from_the_scores_table(tmp_path):
    folder = start(tmp_path, save_point_scores=True)
    result = json.loads((folder / "result.json").read_text())
    scores = pd.read_parquet(folder / "scores.parquet")
    assert list(scores.columns) == COLUMNS
    assert sorted(scores["trained_on"].unique()) == [-1, 0, 1, 2]
    last = scores[scores["trained_on"] == 2]
    by_category = [roc_auc_score(g["y"], g["object_score"]) for _, g in last.groupby("category")]
    assert result["final"]["object_auroc"] == pytest.approx(np.mean(by_category))
    matrix = np.array(result["matrices"]["object_auroc"])
    assert matrix.shape == (4, 3)
    assert result["continual"]["bwt"] == pytest.approx(np.mean([matrix[3, j] - matrix[j + 1, j] for j in range(2)]))
    from safetensors.torch import load_file

    points = load_file(folder / "point_scores" / "2.safetensors")
    assert set(points) == set(last["sample_id"])
    dataset = Toy()
    aurocs = []
    for category in "abcd":
        samples = dataset.select(category=category, split="test")
        labels = np.concatenate([dataset.load(s).point_y.numpy() for s in samples])
        aurocs.append(roc_auc_score(labels, np.concatenate([points[s.sample_id].numpy() for s in samples])))
    assert result["final"]["point_auroc"] == pytest.approx(np.mean(aurocs))
    resampled = Resampled(load_run(folder), draws=50)
    assert resampled.point_final()[0] == pytest.approx(np.mean(aurocs))
    won = load_run(folder).pairs
    assert won["trained_on"].unique().tolist() == [2]
    a, b = (
        dataset.load(next(s for s in dataset.samples if s.sample_id == won.iloc[0][k])) for k in ("defective", "normal")
    )
    y, other = a.point_y.numpy() > 0, b.point_y.numpy() > 0
    score = np.concatenate([points[a.sample_id].numpy()[y], points[b.sample_id].numpy()[~other]])
    label = np.repeat([1, 0], [y.sum(), (~other).sum()])
    assert won.iloc[0]["won"] == pytest.approx(roc_auc_score(label, score), abs=2e-3)


def test_false_alarms_of_a_part_by_hand():
    """Six normal clouds of the reference: its highest is the threshold, not infinity."""

    def part(scores):
        rows = pd.DataFrame({"object_score": scores, "y": 0, "trained_on": 0, "experience": 0, "category": "c"})
        return _Part(rows, pd.DataFrame({"trained_on": [], "experience": []}), 1, True)

    assert part([2.0, 7.0, 7.5, 3.0]).false_alarms(part([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])) == 0.5
    assert part([19.5, 17.0]).false_alarms(part(np.arange(20.0))) == 0.5  # one in ten of the reference is above 17


def test_a_finished_run_is_left_alone(tmp_path):
    folder = start(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert start(tmp_path) == folder
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_other_seed_other_folder_and_same_seed_same_scores(tmp_path):
    first, other, again = start(tmp_path / "a"), start(tmp_path / "a", seed=1), start(tmp_path / "b")
    assert first.name != other.name and first.name == again.name
    assert (first / "scores.parquet").read_bytes() == (again / "scores.parquet").read_bytes()
    assert (first / "scores.parquet").read_bytes() != (other / "scores.parquet").read_bytes()


@pytest.mark.parametrize("mode", [m for m in MODES if m != "Joint"])
def test_interrupted_and_resumed_equals_undisturbed(tmp_path, mode):
    expected = start(tmp_path / "whole", mode)
    with pytest.raises(Interrupted):
        start(tmp_path / "cut", mode, loggers=[Bomb(2)])
    resumed = start(tmp_path / "cut", mode)
    assert (resumed / "scores.parquet").read_bytes() == (expected / "scores.parquet").read_bytes()


def test_joint_trains_once_and_leaves_rows_before_and_after(tmp_path):
    result = json.loads((start(tmp_path, "Joint") / "result.json").read_text())
    rows = [[v is not None for v in row] for row in result["matrices"]["object_auroc"]]
    assert rows == [[True] * 3, [False] * 3, [False] * 3, [True] * 3]
    assert result["continual"]["forgetting"] is None


def test_evaluate_seen_scores_only_tasks_met(tmp_path):
    result = json.loads((start(tmp_path, evaluate="seen") / "result.json").read_text())
    matrix = np.array(result["matrices"]["object_auroc"], dtype=float)
    assert np.isnan(matrix[0]).all() and np.isnan(matrix[1, 1:]).all() and np.isfinite(matrix[3]).all()


@pytest.mark.parametrize(("evaluate", "rows"), [
    ("new", ["....", "x...", ".x..", "..x.", "xxxx"]),
    ("sampled:1", ["....", "x...", "xx..", "?", "xxxx"]),
    ("sampled:9", ["....", "x...", "xx..", "xxx.", "xxxx"]),
])  # fmt: skip
def test_evaluation_of_a_few_tasks_agrees_with_that_of_all(tmp_path, evaluate, rows):
    few, all_ = (json.loads((start(tmp_path, evaluate=e, split="even:4") / "result.json").read_text())
                 for e in (evaluate, "all"))  # fmt: skip
    matrix, full = (np.array(r["matrices"]["object_auroc"], dtype=float) for r in (few, all_))
    for row, expected in zip(matrix, rows):
        if expected != "?":
            assert "".join(".x"[int(v == v)] for v in row) == expected
    if evaluate == "sampled:1":
        assert np.isfinite(matrix[3]).sum() == 2 and np.isfinite(matrix[3, 2])
    assert (matrix[np.isfinite(matrix)] == full[np.isfinite(matrix)]).all()
    for name in ("average", "bwt", "learning_accuracy", "point_average"):
        assert few["continual"][name] == pytest.approx(all_["continual"][name])
    if evaluate == "new":
        assert few["continual"]["forgetting"] == pytest.approx(-few["continual"]["bwt"])


def test_sampled_tasks_are_the_same_for_all_and_spread():
    drawn = [run_spec.tested("sampled:3", 50, 100, False) for _ in range(2)]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 4 and drawn[0][-1] == 50
    early = sum(p < 250 for i in range(1000) for p in run_spec.tested("sampled:3", i, 1000, False)[:-1])
    assert early == pytest.approx(sum(3 * min(1, 250 / i) for i in range(1, 1000)), rel=0.05)  # each as likely


@pytest.mark.parametrize("evaluate", ["none", "sampled", "sampled:0", "sampled:-1", "sampled:x", "New", ""])
def test_unknown_evaluation(evaluate):
    with pytest.raises(HyperparameterError, match="sampled:10"):
        RunSpec(Part("S"), Part("D"), Part("M"), Part("C"), 0, "f", evaluate=evaluate)


def test_newest_checkpoints_are_kept_beyond_a_thousand_tasks(tmp_path):
    strategy = ToyBank()
    for position in (8, 99, 998, 999, 1000, 1001):
        checkpoint.save(tmp_path, position, strategy, [], {})
    assert checkpoint.latest(tmp_path) == 1001
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "task_1000.plugins", "task_1000.pt", "task_1001.plugins", "task_1001.pt"]  # fmt: skip


def test_memory_bank_refuses_gradient_modes_before_anything_is_written(tmp_path):
    with pytest.raises(RequirementError, match="without gradients"):
        start(tmp_path, "EWC", ToyBank)
    assert not list(tmp_path.iterdir())


def test_memory_bank_runs(tmp_path):
    result = json.loads((start(tmp_path, "Naive", ToyBank) / "result.json").read_text())
    assert result["final"]["object_auroc"] > 0.9
    assert result["matrices"]["object_auroc"][0] == [0.5, 0.5, 0.5]


def test_truncated_checkpoint_is_named_and_older_one_is_used_after_deleting_it(tmp_path):
    expected = start(tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(tmp_path / "cut", loggers=[Bomb(2)])
    newest = sorted(tmp_path.glob("cut/**/task_*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=newest.name):
        start(tmp_path / "cut")
    newest.unlink()
    resumed = start(tmp_path / "cut")
    assert (resumed / "scores.parquet").read_bytes() == (expected / "scores.parquet").read_bytes()


def test_two_processes_do_not_share_a_folder(tmp_path):
    folder = start(tmp_path)
    (folder / "result.json").unlink()
    with locked(folder), pytest.raises(OutputError, match="Another process"):
        start(tmp_path)


def test_killed_process_goes_on_and_ends_with_the_same_bytes(tmp_path):
    root = Path(__file__).resolve().parents[2]
    toys = str(root / "tests" / "toys.py")
    command = [sys.executable, str(root / "scenarios" / "class_incremental.py"), "--strategy", f"{toys}:ToyNet",
               "--dataset", f"{toys}:Toy", "--split", "even:4", "--strategy.epochs", "150", "--continual", "replay",
               "--continual.mem_size", "4", "--threads", "1", "--cache", "none", "--figures", "false"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def go(output, wait=True):
        process = subprocess.Popen([*command, "--output", str(output)], env=environment, stderr=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL)  # fmt: skip
        if wait:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()
        return process

    victim = go(tmp_path / "cut", wait=False)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("cut/**/task_001.pt")):
        assert victim.poll() is None, victim.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not list(tmp_path.glob("cut/**/result.json"))
    go(tmp_path / "cut")
    go(tmp_path / "whole")
    first, second = (next(tmp_path.glob(f"{name}/**/scores.parquet")) for name in ("cut", "whole"))
    assert first.read_bytes() == second.read_bytes()


def test_the_next_run_frees_the_strategy_of_the_last(tmp_path):
    """Strategies hold themselves in circles, with up to 512 MB of prepared clouds; the collector seldom looks."""
    options = argparse.Namespace(category_at_test="known", seed=0, evaluate="all", save_point_scores=False,
                                 precision="float32")  # fmt: skip
    classes = {"dataset": Toy, "strategy": ToyNet, "continual": resolve("continual", "Replay")}
    given = {"dataset": {}, "strategy": {}, "continual": {"mem_size": 4}}
    scenario, dataset = ClassIncremental("even:2"), Toy()

    def assembled():
        return session.assemble(scenario, dataset, classes, given, options, "cpu", 1, None)

    gc.disable()
    try:
        spec, strategy, continual = assembled()
        run(spec, scenario, dataset, strategy, continual, tmp_path)
        first = weakref.ref(strategy)
        del strategy, continual
        assembled()
        assert first() is None
    finally:
        gc.enable()
