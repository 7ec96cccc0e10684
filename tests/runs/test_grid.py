"""Grids: what a file means, what is skipped, and that disturbed grids end with the bytes of undisturbed ones."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from toolkit.cli import main
from toolkit.errors import HyperparameterError, UnknownNameError
from toolkit.runs import cell as cells_module
from toolkit.runs.grid import expand, finished, read_grid

ROOT = Path(__file__).resolve().parents[2]
TOYS = f"{ROOT}/tests/toys.py"
GRID = {
    "scenario": [{"name": "class_incremental", "split": "even:2"}, "single_class"],
    "dataset": f"{TOYS}:Toy",
    "strategy": [{"name": f"{TOYS}:ToyNet", "epochs": 1}, f"{TOYS}:ToyBank"],
    "continual": ["Naive", {"name": "EWC", "ewc_lambda": 10.0}],
    "order": ["listed", "random:1"],
    "options": {"evaluate": "seen", "cache": "none", "device": "cpu"},
}


@pytest.fixture
def grid(tmp_path):
    """Writes a grid file and gives its path."""

    def write(content=GRID, name="toy", **changes):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**content, **changes}))
        return path

    return write


def test_expand_makes_every_combination_once(grid):
    cells = expand(read_grid(grid(seed=[0, 1, 1])))
    assert len(cells) == 2 * 2 * (2 * 2 + 1 * 2)  # seeds x (strategies x modes) x (orders; single_class has none)
    assert len({c.key for c in cells}) == len(cells)
    first = cells[0]
    assert first.config["strategy"] == {"name": f"{TOYS}:ToyNet", "epochs": 1} and first.config["split"] == "even:2"
    assert first.title == "class_incremental(split=even:2) Toy ToyNet(epochs=1) seed 0 listed"
    assert all("order" not in c.config for c in cells if c.scenario == "single_class")


def test_key_knows_what_changes_scores(grid):
    def key(**changes):
        one = {"scenario": "class_incremental", "strategy": f"{TOYS}:ToyNet", "continual": "Naive", "order": "listed"}
        (cell,) = expand(read_grid(grid(**{**one, **changes})))
        return cell.key

    base = key()
    assert base == key(seed=0) == key(scenario="ClassIncremental") == key(continual="naive")
    assert base == key(options={**GRID["options"], "output": "elsewhere", "threads": 3})
    assert key(seed=1) != base and key(dataset={"name": f"{TOYS}:Toy", "points": 60}) != base
    assert key(options={**GRID["options"], "evaluate": "all"}) != base


def test_presets_are_part_of_the_strategy(grid):
    strategy = f"{ROOT}/tests/tuning/test_sweep.py:Knob"
    file = grid(scenario="class_incremental", continual="Naive", order="listed", strategy=[
        strategy, {"name": strategy, "preset": "paper"}, {"name": strategy, "size": 90, "width": 4}])  # fmt: skip
    small, paper = expand(read_grid(file))  # the third is what the second stands for
    assert paper.config["preset"] == "paper" and paper.labels["strategy"] == "Knob(preset=paper)"
    assert small.key != paper.key and small.labels["strategy"] == "Knob"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scenario": "class_decremental"}, "Did you mean"),
        ({"strategy": [{"name": f"{TOYS}:ToyNet", "widht": 3}]}, "ToyNet(widht=3)"),
        ({"strategy": [{"epochs": 3}]}, "expected a name"),
        ({"colour": ["red"]}, "colour is no axis"),
        ({"seed": ["one"]}, "seed"),
        ({"options": {"evalute": "seen"}}, "evalute"),
        ({"dataset": {"name": "Folder", "root": "/no/such/place"}}, "/no/such/place"),
    ],
)
def test_mistakes_name_the_cell(grid, tmp_path, capsys, changes, said):
    assert main(["grid", str(grid(**changes)), "--output", str(tmp_path / "runs"), "--executor", "inline"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_files_that_are_no_grid(tmp_path):
    with pytest.raises(UnknownNameError):
        read_grid(tmp_path / "none.yaml")
    for text in ("", "[1, 2]", "a: b: c", "dataset: Synthetic"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(HyperparameterError):
            read_grid(tmp_path / "bad.yaml")


def run(path, output, *more):
    return main(["grid", str(path), "--output", str(output), "--executor", "inline", *more])


def test_interrupted_grid_goes_on_and_ends_with_the_same_table(grid, tmp_path, monkeypatch, capsys):
    path = grid()
    assert run(path, tmp_path / "whole") == 0
    out, err = capsys.readouterr()
    expected = (tmp_path / "whole" / "grids" / "toy" / "table.csv").read_bytes()
    table = pd.read_csv(tmp_path / "whole" / "grids" / "toy" / "table.csv")
    assert list(table["status"]).count("done") == 8 and list(table["status"]).count("unfit") == 4
    assert table.loc[table["strategy"] == "ToyBank", "object_auroc"].dropna().eq(1).all()
    assert "ToyBank" in out and "12/12" in err
    summary = pd.read_csv(tmp_path / "whole" / "grids" / "toy" / "summary.csv")
    naive = table[(table["strategy"] == "ToyNet(epochs=1)") & (table["continual"] == "Naive")].iloc[:2]
    assert summary.loc[0, "runs"] == 2 and summary.loc[0, "average_mean"] == pytest.approx(naive["average"].mean())
    assert summary.loc[0, "average_std"] == pytest.approx(naive["average"].std())

    build, calls = cells_module.build, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return build(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(cells_module, "build", interrupted)
        assert run(path, tmp_path / "cut") == 130
    assert "goes on from there" in capsys.readouterr().err
    assert sum(finished(tmp_path / "cut" / "grids" / "toy", c) is not None for c in expand(read_grid(path))) == 3
    assert run(path, tmp_path / "cut") == 0
    assert (tmp_path / "cut" / "grids" / "toy" / "table.csv").read_bytes() == expected
    assert "3 finished before" in capsys.readouterr().err

    monkeypatch.setattr(cells_module, "build", None)  # nothing that is finished is touched again
    shutil.rmtree(tmp_path / "cut" / "ClassIncremental")
    assert run(path, tmp_path / "whole", "--dry-run") == 0
    assert capsys.readouterr().out.count("finished") == 8
    assert run(path, tmp_path / "cut", "--dry-run") == 0
    assert capsys.readouterr().out.count("finished") == 2


def test_a_failing_cell_is_named_and_tried_again_next_time(grid, tmp_path, monkeypatch, capsys):
    path = grid(strategy=f"{TOYS}:ToyBank", continual="Naive")
    build = cells_module.build

    def broken(name, config):
        if config.get("order") == "random:1":
            raise ZeroDivisionError("by nothing")
        return build(name, config)

    with monkeypatch.context() as patched:
        patched.setattr(cells_module, "build", broken)
        assert run(path, tmp_path) == 1
    assert "failed: class_incremental(split=even:2) Toy ToyBank random:1: ZeroDivisionError" in capsys.readouterr().err
    assert run(path, tmp_path) == 0


# ---- real processes that are killed, a real disk that is full: minutes on a busy machine

SLOW = {
    "scenario": [{"name": "class_incremental", "split": "even:4"}],
    "dataset": f"{TOYS}:Toy",
    "strategy": [{"name": f"{TOYS}:ToyNet", "epochs": 60}],
    "continual": ["Naive", {"name": "Replay", "mem_size": 4}],
    "seed": [0, 1],
    "options": {"evaluate": "seen", "cache": "none", "device": "cpu"},
}


def start(path, output, *more):
    command = [sys.executable, "-m", "toolkit.cli", "grid", str(path), "--output", str(output), "--workers", "2",
               "--memory", "0.5", *more]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                            start_new_session=True, preexec_fn=heed_interrupts)  # fmt: skip


def heed_interrupts():
    """A shell starts what it puts into the background deaf to Ctrl-C; that would be inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(condition, process, seconds=1500):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Bytes of the table of the slow grid."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "toy.yaml").write_text(yaml.safe_dump(SLOW))
    assert run(folder / "toy.yaml", folder / "runs") == 0
    return (folder / "runs" / "grids" / "toy" / "table.csv").read_bytes()


@pytest.mark.slow
def test_killed_worker_and_killed_driver(grid, tmp_path, undisturbed):
    path, output = grid(SLOW), tmp_path / "runs"
    driver = start(path, output)
    until(lambda: len(list(output.rglob("task_001.pt"))) > 0, driver)
    workers = psutil.Process(driver.pid).children()
    workers[0].kill()
    until(lambda: any(list(output.rglob("cells/*.json"))), driver)
    left = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(left, timeout=20)
    assert not any(p.is_running() for p in left)
    assert not (output / "grids" / "toy" / "table.csv").exists()
    again = start(path, output)
    _, errors = again.communicate(timeout=1500)
    assert again.returncode == 0, errors
    assert (output / "grids" / "toy" / "table.csv").read_bytes() == undisturbed
    assert len(list(output.rglob("result.json"))) == 4


@pytest.mark.slow
def test_two_drivers_on_one_folder(grid, tmp_path, undisturbed):
    path, output = grid(SLOW), tmp_path / "runs"
    both = [start(path, output), start(path, output)]
    for driver in both:
        _, errors = driver.communicate(timeout=1500)
        assert driver.returncode == 0, errors
    assert (output / "grids" / "toy" / "table.csv").read_bytes() == undisturbed
    assert len(list(output.rglob("result.json"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_politely(grid, tmp_path, undisturbed, how):
    path, output = grid(SLOW), tmp_path / "runs"
    driver = start(path, output)
    until(lambda: len(list(output.rglob("task_000.pt"))) > 0, driver)
    os.killpg(driver.pid, how)  # as a terminal does: to the workers, too
    _, errors = driver.communicate(timeout=600)
    assert driver.returncode == 130 and "the same command goes on" in errors and "Traceback" not in errors
    assert run(path, output) == 0
    assert (output / "grids" / "toy" / "table.csv").read_bytes() == undisturbed


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 600 kB that can be made larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_full_disk(grid, small_disk, undisturbed):
    path = grid(SLOW)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(450_000))
    driver = start(path, small_disk / "runs")
    _, errors = driver.communicate(timeout=1500)
    assert driver.returncode == 2 and "No space left" in errors and "Traceback" not in errors, errors
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = start(path, small_disk / "runs")
    _, errors = again.communicate(timeout=1500)
    assert again.returncode == 0, errors
    assert (small_disk / "runs" / "grids" / "toy" / "table.csv").read_bytes() == undisturbed


@pytest.mark.slow
def test_ray_worker_node_is_killed(grid, tmp_path, undisturbed):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    path, output = grid(SLOW), tmp_path / "runs"
    # the head has no room for jobs, so that all of them run on nodes that can be killed
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        command = [sys.executable, "-m", "toolkit.cli", "grid", str(path), "--output", str(output), "--executor", "ray",
                   "--memory", "0.5", "--executor-options", f"address={cluster.address}"]  # fmt: skip
        driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        until(lambda: len(list(output.rglob("task_001.pt"))) > 0, driver)
        cluster.remove_node(nodes[0], allow_graceful=False)
        cluster.add_node(num_cpus=1)
        _, errors = driver.communicate(timeout=1500)
        assert driver.returncode == 0, errors
    finally:
        cluster.shutdown()
    assert (output / "grids" / "toy" / "table.csv").read_bytes() == undisturbed
    assert len(list(output.rglob("result.json"))) == 4
