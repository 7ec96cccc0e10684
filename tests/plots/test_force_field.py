"""The force field shows the strongest forces, where they act, on one scale."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from toolkit.metrics import MetricInputError
from toolkit.plots import style
from toolkit.plots.force_field import force_field


def test_strongest_forces_are_drawn_on_one_scale():
    rng = np.random.default_rng(0)
    pos = rng.normal(size=(300, 3))
    force = np.zeros((300, 3))
    force[:5, 2] = [1, 2, 3, 4, 5]
    axes = force_field(pos, {"internal": force, "external": 0.5 * force}, arrows=5, title="two fields")
    for ax, factor in zip(axes, (1.0, 0.5)):
        data = style.data_of(ax)
        assert sorted(data["force"]) == pytest.approx([factor * v for v in (1, 2, 3, 4, 5)])
        best = data.loc[data["force"].idxmax()]
        assert best[["x", "y", "z"]].to_numpy(float) == pytest.approx(pos[4])
        arrows = [c for c in ax.collections if hasattr(c, "_segments3d")]
        # Three segments per arrow, shaft first or last; shafts are as long as the force, whatever the view.
        lengths = np.sort([np.linalg.norm(np.diff(s, axis=0)) for s in arrows[0]._segments3d])
        assert lengths[-1] == pytest.approx(5 * factor)
        assert arrows[0].norm.vmax == pytest.approx(np.quantile(np.linalg.norm(force, axis=1), 0.999))
    plt.close(axes[0].figure)


def test_shapes_must_match():
    with pytest.raises(MetricInputError, match="force_field"):
        force_field(np.zeros((4, 3)), {"joint": np.zeros((5, 3))})
    with pytest.raises(MetricInputError, match="at least one"):
        force_field(np.zeros((4, 3)), {})
