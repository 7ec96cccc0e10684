import numpy as np
import pytest

from toolkit import plots
from toolkit.metrics import MetricInputError
from toolkit.plots.level_set import extract, level_set


def ball(radius=0.8, nodes=41, middle=(0.0, 0.0, 0.0)):
    axis = np.linspace(-1, 1, nodes)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.sqrt((x - middle[0]) ** 2 + (y - middle[1]) ** 2 + (z - middle[2]) ** 2) - radius


def test_the_surface_of_a_ball_has_its_area_place_and_axes():
    vertices, faces = extract(ball(0.5, middle=(0.3, -0.1, 0.2)), edge=1.0)
    away = np.linalg.norm(vertices - [0.3, -0.1, 0.2], axis=1)
    assert np.abs(away - 0.5).max() < 2e-3
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()
    assert area == pytest.approx(4 * np.pi * 0.25, rel=0.01)
    # turned outward: the enclosed volume is positive
    assert (a * np.cross(b, c)).sum() / 6 == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.01)


def test_figure(tmp_path):
    axes = level_set(ball(), edge=1.0)
    assert len(plots.data_of(axes)) % 3 == 0
    plots.save(axes, tmp_path / "ball")
    assert (tmp_path / "ball.png").stat().st_size > 2000


def test_a_level_beyond_the_values_is_an_error():
    with pytest.raises(MetricInputError, match="level 5"):
        extract(ball(), 1.0, level=5)
    with pytest.raises(MetricInputError, match="volume"):
        extract(np.zeros((3, 3)), 1.0)
