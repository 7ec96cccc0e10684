"""The README's commands and snippets, executed in order in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.M | re.S)


def shapenet(folder):
    """A small dataset in Anomaly-ShapeNet's layout, in place of the user's DIR."""
    from toolkit.data.convert import convert
    from toolkit.data.synthetic import Synthetic

    convert(Synthetic(categories=["bolt", "bracket"], points=900, train=2, test_normal=2, test_defective=14), folder)
    return folder


def test_commands(tmp_path):
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 5
    data = shapenet(tmp_path / "data")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for command in commands:
        words = shlex.split(command.replace("DIR", str(data)))
        if words[0] == "continual3d":
            words = [sys.executable, "-m", "toolkit.cli", *words[1:]]
        elif words[0] == "python":
            words = [sys.executable, str(ROOT / words[1]), *words[2:]]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert list(tmp_path.glob("runs/*/*/*/*/figures/clouds.png"))


def test_snippets():
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})


def test_files_and_scenarios_named_in_the_readme_exist():
    for name in re.findall(r"`((?:toolkit|scenarios|strategies)/[\w/.]+)`", TEXT):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(\w+\.py)`", TEXT):
        assert (ROOT / "scenarios" / name).exists(), name


def test_documented_columns_are_those_written():
    from toolkit.runs.ledger import COLUMNS

    assert all(f"`{column}`" in TEXT for column in COLUMNS)
