"""One query over the shards of many runs."""

import pandas as pd
import pytest
from pyarrow.dataset import field

from toolkit.errors import UnknownNameError
from toolkit.runs.load import find_runs
from toolkit.runs.query import dataset, scores


def test_one_query_gives_what_reading_every_file_gives(toys):
    runs = find_runs([p for p in toys])
    whole = scores(toys)
    assert len(whole) == sum(len(r.scores) for r in runs) and whole["run"].nunique() == len(runs)
    for run in runs:
        mine = whole[whole["run"] == run.result["hash"]]
        pd.testing.assert_frame_equal(mine[run.scores.columns].reset_index(drop=True), run.scores)
        assert set(mine["method"]) == {run.spec.method} and set(mine["seed"]) == {run.spec.seed}
    asked = scores(toys, ["method", "object_score"], (field("trained_on") == 1) & (field("y") == 1))
    expected = whole[(whole["trained_on"] == 1) & (whole["y"] == 1)][["method", "object_score"]]
    pd.testing.assert_frame_equal(asked, expected.reset_index(drop=True))
    points = scores(toys, kind="points")
    assert len(points) == sum(len(r.points) for r in runs)


def test_runs_that_are_not_asked_for_are_not_opened(toys, tmp_path):
    import shutil

    for number, folder in enumerate(toys):
        shutil.copytree(folder, tmp_path / str(number))
    runs = find_runs([tmp_path])
    wanted = runs[0]
    table = dataset([tmp_path])
    for run in runs[1:]:
        (run.folder / "scores.parquet").write_bytes(b"not parquet at all")
    kept = table.to_table(filter=field("run") == wanted.result["hash"]).to_pandas()
    assert len(kept) == len(wanted.scores)


def test_a_run_that_still_goes_on_is_read_from_its_shards(toys, tmp_path):
    import shutil

    shutil.copytree(toys[0], tmp_path / "run")
    merged = scores([tmp_path])
    for name in ("scores.parquet", "point_metrics.parquet", "result.json"):
        (tmp_path / "run" / name).unlink()
    pd.testing.assert_frame_equal(scores([tmp_path]), merged)


def test_mistakes(toys, tmp_path):
    with pytest.raises(UnknownNameError, match="no run"):
        scores([tmp_path])
    with pytest.raises(UnknownNameError, match="colour; there are trained_on"):
        scores(toys, ["colour"])
