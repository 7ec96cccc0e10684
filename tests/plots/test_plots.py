"""Each figure is drawn from numbers worked out here by hand, and what it shows is compared with them."""

import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from toolkit import metrics, plots
from toolkit.errors import OutputError
from toolkit.metrics import MetricInputError
from toolkit.plots import style

pytestmark = pytest.mark.filterwarnings("error")

R = np.array([[0.50, 0.40, 0.50], [0.60, 0.90, 0.60], [0.70, 0.70, 0.55], [0.80, 0.50, 0.90]])
JOINT = np.vstack([np.full((3, 3), np.nan), [0.9, 0.8, 0.7]])
MATRICES = {"naive": [R, R - 0.1], "replay": [R, R + 0.05], "joint": [JOINT]}


def table_of_objects(seed=0, n=80):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return pd.DataFrame({"strategy": "naive", "y": y, "object_score": rng.normal(size=n) + y})


def drift_table():
    rng = np.random.default_rng(0)
    rows = [(t, e, k % 2, rng.normal() + k % 2 + t) for t in range(3) for e in range(2) for k in range(40)]
    return pd.DataFrame(rows, columns=["trained_on", "experience", "y", "object_score"])


def ranked():
    base = np.linspace(0, 1, 20)
    return metrics.critical_difference({"worst": base - 1, "best": base + 1, "good": base + 0.9, "bad": base - 0.9})


def open_set_rows():
    rows = [("A", 0.9, 0.6, 0.7), ("A", 0.8, 0.7, 0.75), ("B", 0.7, 0.45, 0.5)]
    return pd.DataFrame(rows, columns=["strategy", "known_auroc", "unknown_auroc", "overall_auroc"])


def openness_rows():
    return pd.DataFrame(
        {
            "strategy": ["A"] * 3,
            "unknown": [0, 1, 2],
            "openness": [0.0, 0.18, 0.29],
            "auroc_mean": [0.9, 0.8, 0.75],
            "auroc_min": [0.9, 0.7, 0.75],
            "auroc_max": [0.9, 0.85, 0.75],
        }
    )


COSTS = pd.DataFrame({"strategy": list("abcd"), "score_s": [1.0, 2.0, 4.0, 8.0], "average": [0.6, 0.8, 0.7, 0.9]})

DRAW = {
    "r_matrix": lambda ax: plots.r_matrix(R, ax=ax),
    "auroc_over_tasks": lambda ax: plots.auroc_over_tasks(plots.matrices_frame(MATRICES), ax=ax),
    "forgetting_lines": lambda ax: plots.forgetting_lines(plots.matrices_frame({"naive": [R]}), ax=ax),
    "bars": lambda ax: plots.bars(plots.transfer_frame(MATRICES), ax=ax),
    "known_unknown": lambda ax: plots.known_unknown(open_set_rows(), ax=ax),
    "stability_plasticity": lambda ax: plots.stability_plasticity(plots.stability_plasticity_frame(MATRICES), ax=ax),
    "pareto": lambda ax: plots.pareto(COSTS, ax=ax),
    "openness_curve": lambda ax: plots.openness_curve(openness_rows(), ax=ax),
    "score_drift": lambda ax: plots.score_drift(drift_table(), threshold=1.5, ax=ax),
    "score_histograms": lambda ax: plots.score_histograms(table_of_objects(), thresholds=(0.5,), ax=ax),
    "critical_difference": lambda ax: plots.critical_difference(ranked(), ax=ax),
}


@pytest.mark.parametrize("name", DRAW)
def test_draws_on_given_axes_and_on_its_own(name, tmp_path):
    figure, ax = plt.subplots()
    assert DRAW[name](ax) is ax
    assert len(plt.get_fignums()) == 1
    own = DRAW[name](None)
    assert own is not ax and len(plt.get_fignums()) == 2
    png = plots.save(own, tmp_path / name, close=True)
    assert len(plt.get_fignums()) == 1
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and png.stat().st_size > 5000
    written = pd.read_csv(png.with_suffix(".csv"))
    shown = plots.data_of(own)
    assert len(written) == len(shown) > 0 and list(written.columns) == list(map(str, shown.columns))
    figure.canvas.draw()


def test_r_matrix_writes_every_number_and_marks_the_learned_task():
    holes = R.copy()
    holes[1, 2] = np.nan
    ax = plots.r_matrix(holes, tasks=["bolt", "nut", "ring"])
    numbers = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in ax.texts if t.get_text()}
    assert numbers == {(i, j): f"{holes[i, j]:.2f}" for i in range(4) for j in range(3) if (i, j) != (1, 2)}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["before", "task 1", "task 2", "task 3"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["bolt", "nut", "ring"]
    assert [p.get_xy() for p in ax.patches] == [(0, 1), (1, 2), (2, 3)]
    assert ax.get_ylim() == (4, 0)
    large = plots.r_matrix(np.full((31, 30), 0.7))
    assert not [t for t in large.texts if t.get_text()]
    huge = plots.r_matrix(np.full((201, 200), 0.7))
    assert not huge.patches and max(huge.figure.get_size_inches()) < 15
    with pytest.raises(MetricInputError, match="T"):
        plots.r_matrix(R[1:])


def test_auroc_over_tasks_draws_mean_and_range_over_runs():
    ax = plots.auroc_over_tasks(plots.matrices_frame(MATRICES))
    lines = {line.get_label(): line for line in ax.lines}
    expected = metrics.cumulative_averages(R)
    assert lines["naive"].get_ydata() == pytest.approx(expected - 0.05)
    assert lines["replay"].get_ydata() == pytest.approx(expected + 0.025)
    assert lines["joint"].get_ydata() == pytest.approx([0.8, 0.8])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "3"]
    band = plots.data_of(ax).set_index(["strategy", "trained_on"])
    assert band.loc[("naive", 2), "min"] == pytest.approx(expected[2] - 0.1)
    assert band.loc[("naive", 2), "count"] == 2
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in (lines["naive"], lines["replay"])}
    assert len({look[0] for look in looks}) == len({look[1] for look in looks}) == len({look[2] for look in looks}) == 2


def test_forgetting_lines_start_when_a_task_is_learned():
    ax = plots.forgetting_lines(plots.matrices_frame({"naive": [R, R - 0.1]}), tasks=["bolt", "nut", "ring"])
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["bolt"].get_ydata() == pytest.approx(R[1:, 0] - 0.05)
    assert lines["nut"].get_ydata() == pytest.approx(R[2:, 1] - 0.05)
    assert lines["nut"].get_xdata().tolist() == [1, 2]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["before", "1", "2", "3"]
    many = plots.forgetting_lines(plots.matrices_frame({"naive": [np.full((31, 30), 0.7)]}))
    assert many.get_legend() is None and len({str(line.get_color()) for line in many.lines}) > 30
    assert many.figure.axes[1].get_ylabel() == "tested on task"


def test_bars_show_means_and_runs():
    ax = plots.bars(plots.transfer_frame({"naive": [R, JOINT], "replay": [R, R]}))
    heights = [bar.get_height() for container in ax.containers for bar in container]
    forgetting, bwt = metrics.chaudhry_forgetting(R), metrics.lopez_paz_bwt(R)
    assert heights == pytest.approx([forgetting, forgetting, bwt, bwt])  # a joint run has neither
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert sum(len(line.get_ydata()) for line in dots) == 6


def test_known_unknown_bars_start_at_chance():
    ax = plots.known_unknown(open_set_rows())
    tops = {
        (c.get_label(), i): bar.get_y() + bar.get_height() for c in ax.containers for i, bar in enumerate(c.patches)
    }
    assert tops["known defects", 0] == pytest.approx(0.85)
    assert tops["unknown defects", 1] == pytest.approx(0.45)
    assert {round(bar.get_y(), 6) for c in ax.containers for bar in c.patches} == {0.5}


def test_stability_plasticity_positions():
    frame = plots.stability_plasticity_frame(MATRICES)
    assert list(frame.strategy) == ["naive", "naive", "replay", "replay"]  # joint was never learned task by task
    shown = plots.data_of(plots.stability_plasticity(frame)).set_index("strategy")
    assert shown.loc["naive", "stability"] == pytest.approx(metrics.stability(R) - 0.05)
    assert shown.loc["replay", "plasticity"] == pytest.approx(metrics.plasticity(R) + 0.025)


def test_pareto_front_against_a_loop():
    rng = np.random.default_rng(0)
    cost, quality = rng.integers(0, 8, 40), rng.integers(0, 8, 40)
    beaten = [
        any(c <= cost[i] and q >= quality[i] and (c, q) != (cost[i], quality[i]) for c, q in zip(cost, quality))
        for i in range(40)
    ]
    assert plots.pareto_front(cost, quality).tolist() == np.logical_not(beaten).tolist()
    assert plots.data_of(plots.pareto(COSTS)).on_front.tolist() == [True, True, False, True]


def test_openness_curve_and_its_upper_axis():
    ax = plots.openness_curve(openness_rows())
    assert ax.lines[0].get_ydata().tolist() == [0.9, 0.8, 0.75]
    assert [t.get_text() for t in ax.child_axes[0].get_xticklabels()] == ["0.00", "0.18", "0.29"]


def test_roc_pr_agrees_with_sklearn():
    from sklearn.metrics import precision_recall_curve, roc_curve

    frame = pd.concat([table_of_objects(0), table_of_objects(1).assign(strategy="replay")])
    frame["object_score"] = frame["object_score"].round(1)
    left, right = plots.roc_pr(frame)
    naive = frame[frame.strategy == "naive"]
    fpr, tpr, _ = roc_curve(naive.y, naive.object_score, drop_intermediate=False)
    assert np.column_stack(left.lines[0].get_data()) == pytest.approx(np.column_stack([fpr, tpr]))
    precision, recall, _ = precision_recall_curve(naive.y, naive.object_score)
    drawn = np.column_stack(right.lines[0].get_data())
    theirs = np.column_stack([recall, precision])[::-1][1:]
    assert drawn[: len(theirs)] == pytest.approx(theirs)
    assert f"({metrics.auroc(naive.object_score, naive.y):.3f})" in left.lines[0].get_label()
    assert set(plots.data_of(left.figure).panel) == {0, 1}
    many = pd.DataFrame({"strategy": "naive", "y": np.arange(50_000) % 2, "object_score": np.linspace(0, 1, 50_000)})
    assert len(plots.roc_pr(many)[0].lines[0].get_xdata()) <= 2001


def test_score_drift_writes_false_alarms_under_the_tasks():
    table = drift_table()
    ax = plots.score_drift(table, threshold=1.5)
    labels = [t.get_text() for t in ax.get_xticklabels()]
    first = table[table.experience == 0]
    for t, label in enumerate(labels):
        normal = first[(first.trained_on == t) & (first.y == 0)].object_score
        assert label == f"{t + 1}\n{(normal > 1.5).mean():.0%}"
    medians = first[first.y == 1].groupby("trained_on").object_score.median()
    assert {line.get_label(): line for line in ax.lines}["defective"].get_ydata() == pytest.approx(medians.to_numpy())


def test_score_drift_says_when_no_threshold_could_be_promised():
    ax = plots.score_drift(drift_table(), threshold=np.inf)
    assert "infinite" in ax.get_xlabel() and "threshold" not in {line.get_label() for line in ax.lines}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1\n0%", "2\n0%", "3\n0%"]


def test_histogram_shares_sum_to_one():
    shown = plots.data_of(plots.score_histograms(table_of_objects()))
    assert shown["normal"].sum() == pytest.approx(1) and shown["defective"].sum() == pytest.approx(1)


def test_critical_difference_bars_join_what_is_not_told_apart():
    ax = plots.critical_difference(ranked())
    texts = [t.get_text() for t in ax.texts]
    assert {"best (1.00)", "good (2.00)", "bad (3.00)", "worst (4.00)"} <= set(texts)
    thick = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 4]
    assert np.array(thick) == pytest.approx(np.array([[0.96, 2.04], [1.96, 3.04], [2.96, 4.04]]))
    assert plots.data_of(ax).groups.astype(str).tolist() == ["0", "0 1", "1 2", "2"]


def cube(n=5000, seed=0):
    rng = np.random.default_rng(seed)
    pos = rng.random((n, 3)) * [1, 10, 5]
    return pos, np.abs(pos[:, 1] - 2) < 0.1


def test_clouds_grid_is_thinned_but_keeps_the_defect():
    pos, defective = cube(20_000)
    sample = plots.ScoredCloud(pos, defective + np.random.default_rng(0).random(len(pos)), defective, "block")
    grid = plots.clouds([sample, sample, plots.ScoredCloud(pos, pos[:, 0])], max_points=2000)
    assert grid.shape == (3, 2)
    shown = plots.data_of(grid[0, 0])
    assert len(shown) == 2000
    assert shown.value.sum() == min(defective.sum(), 500) > 2000 * defective.mean()
    assert len(plots.data_of(grid[0, 0].figure)) == 6 * 2000
    assert "not known" in grid[2, 0].get_title()
    grid[0, 0].figure.canvas.draw()
    assert {tuple(np.round(c, 3)) for c in grid[0, 0].collections[0].get_facecolor()} == {
        tuple(np.round(to_rgba("0.72"), 3)),
        tuple(np.round(to_rgba(style.DEFECTIVE), 3)),
    }


def test_clouds_share_one_scale_unless_told_otherwise():
    pos, _ = cube(500)
    low, high = plots.ScoredCloud(pos, pos[:, 0]), plots.ScoredCloud(pos, 10 * pos[:, 0])
    clims = [ax.collections[0].get_clim() for ax in plots.clouds([low, high])[:, 1]]
    assert clims[0] == clims[1]
    clims = [ax.collections[0].get_clim() for ax in plots.clouds([low, high], shared_limits=False)[:, 1]]
    assert clims[1] == pytest.approx([10 * v for v in clims[0]])


def test_axes_of_a_cloud_are_equal():
    pos, defective = cube()
    ax = plots.cloud(pos, defective)
    spans = [np.ptp(getattr(ax, f"get_{axis}lim")()) for axis in "xyz"]
    aspect = ax._box_aspect
    assert np.array(spans) / np.array(aspect) == pytest.approx(spans[0] / aspect[0])
    flat = plots.cloud(pos * [1, 1, 0], defective)
    flat.figure.canvas.draw()


def test_best_view_turns_without_distorting():
    pos, _ = cube()
    turned = plots.best_view(pos)
    assert turned.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert turned.std(axis=0).argsort().tolist() == [1, 2, 0]  # y, into the picture, is the thinnest
    pairs = np.random.default_rng(0).integers(0, len(pos), (200, 2))
    before = np.linalg.norm(pos[pairs[:, 0]] - pos[pairs[:, 1]], axis=1)
    assert np.linalg.norm(turned[pairs[:, 0]] - turned[pairs[:, 1]], axis=1) == pytest.approx(before)
    rotation = np.linalg.lstsq(pos - pos.mean(axis=0), turned, rcond=None)[0]
    assert np.linalg.det(rotation) == pytest.approx(1)
    for face in (pos[:, 0] < 0.1, pos[:, 0] > 0.9):
        seen = plots.best_view(pos, face)
        assert seen[face, 1].mean() < 0  # towards the camera
    rotated = pos @ np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    assert np.abs(plots.best_view(rotated)) == pytest.approx(np.abs(turned), abs=1e-6)


def test_bad_input():
    with pytest.raises(MetricInputError, match="strategy missing"):
        plots.auroc_over_tasks(plots.matrices_frame(MATRICES).drop(columns="strategy"))
    with pytest.raises(MetricInputError, match="empty"):
        plots.forgetting_lines(plots.matrices_frame(MATRICES).iloc[:0])
    with pytest.raises(MetricInputError, match="at least one"):
        plots.clouds([])
    with pytest.raises(MetricInputError, match="3 scores"):
        plots.clouds([plots.ScoredCloud(np.zeros((4, 3)), np.zeros(3), title="x")])
    with pytest.raises(MetricInputError, match=r"\(N, 3\)"):
        plots.cloud(np.zeros((4, 2)), np.zeros(4))


def test_saving_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        plots.save(plots.r_matrix(R), tmp_path / "file" / "figure.png")


def test_works_without_a_display(tmp_path):
    code = (
        "import numpy as np; from toolkit import plots; "
        f"plots.save(plots.r_matrix(np.full((3, 2), 0.7)), {str(tmp_path / 'figure')!r})"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert (tmp_path / "figure.png").exists() and (tmp_path / "figure.csv").exists()
