import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from toolkit import metrics
from toolkit.metrics import ObjectPoints, resampled_objects, resampled_point_auroc, won_pairs


def objects(rng, sizes, step=8):
    """Scores with many ties, and labels; every second object is defective."""
    found = []
    for i, size in enumerate(sizes):
        y = (rng.random(size) < 0.3) & (i % 2 == 1)
        found.append(((rng.normal(size=size) + y).round(1) * step // 1 / step, y))
    return found


def test_shares_against_counting_every_pair():
    made = objects(np.random.default_rng(0), [20, 30, 7, 25])
    won = won_pairs([ObjectPoints.of(*each) for each in made])
    for i, (score, y) in enumerate(made):
        for j, (other, label) in enumerate(made):
            pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in score[y] for b in other[~label]]
            assert won[i, j] == pytest.approx(np.mean(pairs) if pairs else 0)


def test_resampled_auroc_is_that_of_the_points_of_the_resample():
    rng = np.random.default_rng(1)
    made = objects(rng, [200, 300, 150, 250, 220, 180])
    described = [ObjectPoints.of(*each) for each in made]
    y = np.array([label.any() for _, label in made])
    weight = np.vstack([np.ones(6), resampled_objects(y, n=20)])
    found = resampled_point_auroc(won_pairs(described), [d.normal_points for d in described],
                                  [d.defective_points for d in described], weight)  # fmt: skip
    for counts, value in zip(weight.astype(int), found, strict=True):
        drawn = [made[i] for i in np.repeat(np.arange(6), counts)]
        score, label = (np.concatenate(part) for part in zip(*drawn, strict=True))
        assert value == pytest.approx(roc_auc_score(label, score))


def test_thinning_errs_by_less_than_its_step():
    rng = np.random.default_rng(2)
    made = objects(rng, [9000, 20_000], step=10_000)
    exact = won_pairs([ObjectPoints.of(*each, most=10**6) for each in made])
    thinned = [ObjectPoints.of(*each, most=128) for each in made]
    assert thinned[1].normal.size == 128 and thinned[1].normal_points == int((~made[1][1]).sum())
    assert np.abs(won_pairs(thinned) - exact).max() < 1 / 128


def test_draws_are_those_of_the_object_bootstrap():
    rng = np.random.default_rng(3)
    y = np.arange(30) % 2
    score = rng.normal(size=30) + y
    weight = resampled_objects(y, np.arange(30) // 3, n=50, seed=5)
    expected = metrics.bootstrap_auroc(score, y, group=np.arange(30) // 3, n=50, seed=5).samples
    assert metrics.weighted_auroc(score, y, weight) == pytest.approx(expected)


def test_bad_input():
    with pytest.raises(metrics.MetricInputError, match="most"):
        ObjectPoints.of([1.0, 2.0], [0, 1], most=0)
    with pytest.raises(metrics.MetricInputError, match="shares"):
        resampled_point_auroc(np.zeros((2, 2)), [1, 1], [1, 1], np.ones((4, 3)))
    assert np.isnan(resampled_point_auroc(np.zeros((2, 2)), [1, 1], [0, 0], np.ones((1, 2)))).all()
