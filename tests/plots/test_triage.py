import matplotlib.pyplot as plt
import numpy as np
import pytest

from toolkit import plots
from toolkit.metrics import MetricInputError


def test_frame_against_counting():
    score, y = np.array([0.0, 0.2, 0.45, 0.5, 0.6, 1.0]), [0, 0, 1, 0, 1, 1]
    frame = plots.triage_frame(score, y, 0.4, 0.6, steps=5).set_index("width")
    assert frame.loc[1.0, ["accepted", "reinspected", "rejected"]].tolist() == pytest.approx([2 / 6, 2 / 6, 2 / 6])
    assert frame.loc[1.0, "decided_error"] == 0
    assert frame.loc[0.0, "reinspected"] == 0 and frame.loc[0.0, "decided_error"] == pytest.approx(2 / 6)
    assert (frame["reinspected"].diff().dropna() >= 0).all()
    assert np.allclose(frame[["accepted", "reinspected", "rejected"]].sum(axis=1), 1)
    with pytest.raises(MetricInputError):
        plots.triage_frame(score, y, 0.6, 0.4)


def test_figure_shows_the_frame():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    frame = plots.triage_frame(rng.normal(size=200) + 1.5 * y, y, 0.3, 1.2)
    ax = plots.triage(frame, title="MC4AD")
    line = next(one for one in ax.lines if one.get_label() == "error among the decided")
    assert np.allclose(line.get_ydata(), frame["decided_error"], equal_nan=True)
    assert plots.data_of(ax).equals(frame)
    plt.close(ax.figure)
