import matplotlib.pyplot as plt
import numpy as np
import pytest

from toolkit.metrics import MetricInputError
from toolkit.plots.latent_traversal import latent_traversal
from toolkit.plots.style import data_of


def decode(code, value):
    """A flat sheet of which code 0 lifts the middle and code 1 removes an edge."""
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(-1, 1, 15), np.linspace(-1, 1, 11)))
    lift = 0.2 * value * np.exp(-(x**2) / 0.1) * (code == 0)
    kept = x > -1 + max(value, 0) * (code == 1)
    return np.stack([x, y, lift], 1)[kept], np.abs(lift)[kept]


def test_pictures_show_what_was_decoded_on_one_scale():
    grid = latent_traversal(decode, [0, 1], [-1.0, 0.0, 0.5], names=["lift", "cut"], label="moved by", title="sheet")
    assert grid.shape == (2, 3)
    lifted, still, cut = data_of(grid[0, 0]), data_of(grid[0, 1]), data_of(grid[1, 2])
    assert lifted["value"].max() == pytest.approx(0.2) and still["value"].max() == 0
    assert len(cut) == len(decode(1, 0.5)[0]) < len(still)
    assert set(lifted["code"]) == {"lift"} and set(cut["latent"]) == {0.5}
    assert all(ax.collections[0].get_clim() == pytest.approx((0.0, 0.2)) for ax in grid.ravel())
    assert "lift" in grid[0, 0].get_title() and "-1.0" in grid[0, 0].get_title()
    plt.close("all")


def test_all_pictures_are_turned_alike():
    grid = latent_traversal(decode, [0], [-1.0, 1.0])
    first, second = (data_of(ax)[["x", "y", "z"]].to_numpy() for ax in grid[0])
    order = np.lexsort(np.round(first, 6).T), np.lexsort(np.round(second, 6).T)
    apart = np.linalg.norm(first[order[0]].mean(0) - second[order[1]].mean(0))
    assert 0 < apart < 0.3  # moved only as far as the lift, not turned or centred anew
    plt.close("all")


def test_wrong_input():
    for codes, values, names in (([], [0.0], None), ([0], [], None), ([0], [0.0], ["a", "b"])):
        with pytest.raises(MetricInputError, match="expected codes"):
            latent_traversal(decode, codes, values, names)
