"""The command line as a user meets it: help, listings, dry runs, and what is said of mistakes."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from toolkit.cli import main

ROOT = Path(__file__).resolve().parents[1]
TOY = ["--dataset", f"{ROOT}/tests/toys.py:Toy", "--strategy", f"{ROOT}/tests/toys.py:ToyNet"]


@pytest.fixture
def run(tmp_path, capsys):
    """Runs class_incremental on toys; gives exit code, standard output, standard error."""

    def go(*arguments, output=True):
        base = ["run", "class_incremental", *TOY, "--threads", "1", "--cache", "none", "--figures", "false"]
        more = ["--output", str(tmp_path / "runs")] if output else []
        code = main([*base, *more, *arguments])
        return (code, *capsys.readouterr())

    return go


def test_dry_run_prints_the_stream_and_leaves_nothing(run, tmp_path):
    code, out, _ = run("--split", "even:3", "--dry-run")
    assert code == 0 and "3 tasks" in out and "a, b" in out
    assert not (tmp_path / "runs").exists()


def test_run_then_table_then_again(run, tmp_path, capsys):
    code, out, err = run("--split", "even:2", "--continual", "replay", "--continual.mem_size", "4")
    assert code == 0 and "ToyNet + Replay" in out and "task 2/2 done" in err
    assert main(["table", str(tmp_path)]) == 0
    assert "ToyNet + Replay" in capsys.readouterr().out
    assert main(["table", str(tmp_path), "--format", "markdown"]) == 0
    assert capsys.readouterr().out.count("|") > 20
    assert run("--split", "even:2", "--continual", "replay", "--continual.mem_size", "4", "--seed", "1")[0] == 0
    assert main(["table", str(tmp_path), "--average"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("ToyNet + Replay") == 1 and "±" in shown and "0, 1" in shown
    assert main(["table", str(tmp_path), "--average", "--format", "csv"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["method"] == "ToyNet + Replay" and row["seed"] == "0, 1"
    assert (
        0 < float(row["object AUROC"]) <= 1 and float(row["object AUROC deviation"]) >= 0 and float(row["peak MB"]) > 0
    )
    code, _, err = run("--split", "even:2", "--continual", "replay", "--continual.mem_size", "4")
    assert code == 0 and "score" not in err  # nothing is computed twice


def test_config_file_and_print_config_agree(run, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"strategy: {{name: '{ROOT}/tests/toys.py:ToyNet', width: 9}}\nsplit: even:2\nseed: 7\n")
    code, out, _ = run("--config", str(config), "--seed", "8", "--print_config")
    assert code == 0
    printed = yaml.safe_load(out)
    assert (printed["strategy"]["width"], printed["split"], printed["seed"]) == (9, "even:2", 8)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strategy.widht", "3"], "Did you mean --strategy.width"),
        (["--strategy.width", "much"], "width"),
        (["--strategy.epochs", "0"], "epochs must be at least 1, got 0"),
        (["--split", "even:9"], "between 1 and 4"),
        (["--split", "3_3"], "4 categories"),
        (["--split", "nonsense"], "2_1_1"),
        (["--split", "a+b|z"], "no category z"),
        (["--split", "a+b|b"], "twice"),
        (["--order", "upwards"], "random:SEED"),
        (["--strategy", "BFT"], "Did you mean BTF"),
        (["--dataset", "no_such_file.py:Thing"], "no_such_file.py"),
        (["--continual", "reply"], "Did you mean Replay"),
        (["--device", "tpu"], "expected auto, cpu"),
        (["--threads", "-1"], "threads"),
        (["--config", "no_such.yaml"], "no_such.yaml"),
        (["--nonsense"], "--nonsense"),
        (["--strategy.help"], "--strategy.help needs a name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(run, tmp_path, arguments, said):
    code, _, err = run(*arguments)
    assert code == 2
    assert said in err and err.startswith("error: ") and err.count("\n") == 1
    assert not list(tmp_path.glob("runs/**/*.parquet"))


def test_output_that_cannot_be_written(run):
    code, _, err = run("--output", "/proc/nowhere", output=False)
    assert code == 2 and "/proc/nowhere" in err and err.count("\n") == 1


def test_wrong_root(run):
    code, _, err = run("--dataset", "AnomalyShapeNet", "--dataset.root", "/no/such/folder")
    assert code == 2 and "/no/such/folder" in err and "template" in err


def test_unknown_command(capsys):
    assert main(["dance"]) == 2
    assert "dance" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["list"], ["run", "class_incremental", "--help"], ["--help"]])
def test_help_and_listing_load_nothing_heavy(command):
    heavy = ("torch", "avalanche", "open3d", "matplotlib", "pandas")
    code = (f"import sys; sys.argv = ['continual3d']; from toolkit.cli import main; main({command!r}); "
            f"bad = [m for m in {heavy} if m in sys.modules]; sys.exit(f'loaded {{bad}}' if bad else 0)")  # fmt: skip
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ClassIncremental" in done.stdout or "usage" in done.stdout
    assert time.monotonic() - begin < 20  # two seconds when idle; this only catches an import of torch


def test_strategy_help_shows_options(capsys):
    assert main(["run", "class_incremental", "--strategy.help", f"{ROOT}/tests/toys.py:ToyNet"]) == 0
    out = capsys.readouterr().out
    assert "--strategy.width" in out and "--strategy.epochs" in out and "--strategy.device" not in out
