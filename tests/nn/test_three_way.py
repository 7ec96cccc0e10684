"""Three-way decisions: costs, calibration, regions."""

import math

import numpy as np
import pytest
import torch

from toolkit.errors import CloudError, HyperparameterError
from toolkit.nn.three_way import Calibration, Costs, largest_region


@pytest.mark.parametrize("costs", [Costs(), Costs(10, 1, 0.1), Costs(1, 3, 0.6)])
def test_verdict_is_the_cheapest_decision(costs):
    for p in np.linspace(0, 1, 101):
        price = {"reject": (1 - p) * costs.false_alarm, "accept": p * costs.miss, "re-inspect": costs.inspection}
        assert price[costs.verdict(float(p))] <= min(price.values()) + 1e-9


def test_useless_or_free_inspections_are_refused():
    for wrong in ({"inspection": 0.6}, {"inspection": 0.0}, {"miss": -1.0}):
        with pytest.raises(HyperparameterError, match="costs"):
            Costs(**wrong)


def test_calibration_recovers_a_known_law():
    """Log scores of two normal laws of equal width w at m0 and m1: the log odds are exactly linear in them."""
    rng = np.random.default_rng(0)
    m0, m1, w = -4.0, -2.5, 0.6
    fitted = Calibration.fit(np.exp(rng.normal(m0, w, 20_000)), np.exp(rng.normal(m1, w, 20_000)), floor=0.0)
    assert math.isclose(fitted.slope, (m1 - m0) / w**2, rel_tol=0.05)
    assert abs(fitted.probability(math.exp((m0 + m1) / 2)) - 0.5) < 0.02
    for p in (0.2, 0.5, 0.8):
        assert math.isclose(fitted.probability(fitted.score_at(p)), p, rel_tol=1e-6)


def test_higher_scores_never_look_better():
    fitted = Calibration.fit([2.0, 3.0, 4.0], [0.1, 0.2])
    assert fitted.slope == 0 and fitted.probability(1.0) == 0.5 and fitted.score_at(0.7) == math.inf
    assert Calibration(1e6, 0).probability(1e9) == 1.0
    with pytest.raises(CloudError, match="both kinds"):
        Calibration.fit([], [1.0])


def test_largest_region_of_two_islands():
    x = torch.arange(100) * 0.01
    pos = torch.stack([x, torch.zeros(100), torch.zeros(100)], 1)
    point = torch.zeros(100)
    point[10:14], point[60:70] = 1.0, 1.0
    assert largest_region(point, pos, 0.5, k=3) == pytest.approx(0.10)
    point[65] = 0.0
    assert largest_region(point, pos, 0.5, k=3) == pytest.approx(0.05)
    assert largest_region(point, pos, 2.0) == 0.0
