from itertools import product

import numpy as np
import pandas as pd
import pytest

from toolkit.errors import LabelError
from toolkit.metrics.factors import disentanglement, levels, told_by_groups

GRID = np.array(list(product(range(3), range(3))) * 30)


def test_levels_of_texts_whole_numbers_and_reals():
    table = pd.DataFrame({"kind": ["b", "a", "b", "c"] * 5, "count": [1, 1, 2, 2] * 5, "size": np.arange(20.0) ** 2})
    found = levels(table, 4)
    assert found[:4, 0].tolist() == [1, 0, 1, 2] and found[:4, 1].tolist() == [0, 0, 1, 1]
    assert np.bincount(found[:, 2]).tolist() == [5, 5, 5, 5] and (np.diff(found[:, 2]) >= 0).all()
    with pytest.raises(LabelError, match="size"):
        levels(table.assign(size=np.nan))


def test_all_metrics_prefer_codes_that_are_factors():
    noise = np.random.default_rng(0).normal(size=(len(GRID), 2))
    good, bad = disentanglement(GRID.astype(float), GRID), disentanglement(noise, GRID)
    assert set(good) == {"mig", "sap", "modularity", "factor_vae", "beta_vae", "irs", "disentanglement",
                         "completeness", "informativeness"}  # fmt: skip
    assert all(good[name] > bad[name] + 0.2 for name in good if name != "sap")
    assert good["mig"] == pytest.approx(1)


def test_groups_tell_what_they_hold():
    turned = GRID[:, :1] * np.array([[0.6, 0.8]])  # one factor in two codes: axis-wise MIG sees nothing
    noise = np.random.default_rng(1).normal(size=(len(GRID), 1))
    table = told_by_groups({"shape": turned, "rest": np.hstack([GRID[:, 1:], noise])}, GRID, ["first", "second"])
    assert table.loc["shape", "first"] == pytest.approx(1) and table.loc["rest", "second"] > 0.95
    assert table.loc["shape", "second"] < 0.15 and table.loc["rest", "first"] < 0.3
