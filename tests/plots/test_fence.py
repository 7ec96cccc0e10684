"""The figure of the Fence Theorem and its trends, on numbers worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from toolkit.metrics import MetricInputError
from toolkit.plots import fence, fence_frame, fence_sweep, fence_trend


def result(cells, points, matching="template", registration=True, name="Patch3D", seed=0):
    rows = [{"category": c, "object_auroc": 0.5, "point_auroc": p} for c, p in zip("ab", points)]
    arguments = {"cells": cells, "matching": matching, "registration": registration}
    return {"spec": {"strategy": {"name": name, "arguments": arguments}, "seed": seed}, "per_category": rows}


RESULTS = [
    result(1, (0.80, 0.60)),
    result(4, (0.84, 0.60)),
    result(16, (0.88, 0.60)),
    result(4, (0.70, 0.50), registration=False),
    result(1, (0.10, 0.10), name="BTF"),
]


def test_the_uncut_run_starts_every_line():
    frame = fence_frame(RESULTS)
    assert len(frame) == 4 + 2 + 2 + 2
    assert sorted(frame["setting"].unique()) == ["template", "template, not registered"]
    starts = frame[frame["cells"] == 1]
    assert starts["point_auroc"].tolist() == [0.80, 0.60, 0.80, 0.60]


def test_trend_by_hand():
    trend = fence_trend(fence_frame(RESULTS)).set_index("setting")
    aligned = trend.loc["template"]
    assert aligned["gain"] == pytest.approx(0.04) and aligned["better"] == 0.5
    assert aligned["standard_error"] == pytest.approx(np.std([0.08, 0.0], ddof=1) / np.sqrt(2))
    assert aligned["per_doubling"] == pytest.approx((0.02 + 0.0) / 2)  # 0.08 over 4 doublings in one of two classes
    assert trend.loc["template, not registered", "gain"] == pytest.approx(-0.1)


def test_figure_shows_means_and_the_spread_of_the_gain():
    ax = fence(fence_frame(RESULTS))
    line = ax.lines[0]
    assert line.get_xdata().tolist() == [1, 4, 16]
    assert line.get_ydata() == pytest.approx([0.70, 0.72, 0.74])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(0.74 + 0.04)  # standard error of gains 0.08 and 0
    assert band[band[:, 0] == 1][:, 1] == pytest.approx(0.70)  # nothing has been gained yet
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "4", "16"]
    assert ax.get_ylabel() == "point AUROC"


def test_seeds_are_averaged_and_categories_not_run_everywhere_left_out():
    more = [*RESULTS, result(1, (0.90, 0.60), seed=1)]
    ax = fence(fence_frame(more))
    assert ax.lines[0].get_ydata()[0] == pytest.approx((0.85 + 0.60) / 2)
    frame = fence_frame(RESULTS)
    frame = frame[~((frame["cells"] == 16) & (frame["category"] == "b"))]
    assert fence_trend(frame).loc[0, "gain"] == pytest.approx(0.08)


def test_nothing_to_draw_is_an_error():
    with pytest.raises(MetricInputError, match="empty"):
        fence(fence_frame([result(1, (0.1, 0.1), name="BTF")]))


def test_sweep_draws_both_metrics_and_prints_the_trends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fence_sweep, "find_runs", lambda folders: [SimpleNamespace(result=r) for r in RESULTS])
    assert fence_sweep.main([str(tmp_path)]) == 0
    kept = pd.read_csv(tmp_path / "fence.csv")
    assert len(kept) == 10 and (tmp_path / "fence.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "point_auroc" in said and "object_auroc" in said and "0.04" in said
