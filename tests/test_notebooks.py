"""Notebooks run from top to bottom under nbmake, show what they say they show, and are what their .py says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
pytest.importorskip("nbmake")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
QUICK = ("01_first_experiment", "07_your_own_dataset")


def test_there_are_notebooks_and_each_has_its_twin():
    assert [p.stem[:2] for p in NOTEBOOKS] == [f"{i:02d}" for i in range(1, len(NOTEBOOKS) + 1)] and len(NOTEBOOKS) >= 8
    assert [p.stem for p in NOTEBOOKS] == [p.stem for p in sorted((ROOT / "notebooks").glob("*.ipynb"))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_notebook_is_what_the_script_says(path):
    """After an edit: ``jupytext --to ipynb notebooks/*.py``."""
    script, notebook = jupytext.read(path), jupytext.read(path.with_suffix(".ipynb"))
    assert [(c.cell_type, c.source) for c in script.cells] == [(c.cell_type, c.source) for c in notebook.cells]
    assert not any(c.get("outputs") for c in notebook.cells)


@pytest.mark.parametrize(
    "path",
    [p if p.stem in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in NOTEBOOKS],
    ids=lambda p: p.stem,
)
def test_notebook_runs(path, tmp_path, monkeypatch):
    """In a folder of its own, because a notebook writes where it lies."""
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    copy = Path(shutil.copy(path.with_suffix(".ipynb"), tmp_path))
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "-c", str(tmp_path / "none.ini"),
               "--nbmake", "--nbmake-timeout=900", "--overwrite", str(copy)]  # fmt: skip
    (tmp_path / "none.ini").write_text("[pytest]\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    cells = [c for c in jupytext.read(copy).cells if c.cell_type == "code"]
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    assert sum("image/png" in data for data in outputs) >= sum(c.source.count("axes = ") for c in cells)
    assert any("image/png" in data or "<table" in data.get("text/html", "") for data in outputs)
    assert any((tmp_path / name).is_dir() for name in ("runs", "sweeps"))
