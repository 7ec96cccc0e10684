"""Point metrics of many clouds together: closed form, naive loop, independent libraries, and the bounds of bins."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from toolkit.errors import LabelError
from toolkit.metrics import POINT_METRICS, MetricInputError, PointScores, au_pro


def clouds(seed=0, count=6, size=3000):
    """Clouds with two, one or no region."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        region = np.zeros(size, dtype=int)
        for k in range(i % 3):
            region[200 * k : 200 * k + 40 * (i + 1)] = k + 1
        made.append(((rng.normal(size=size) + 1.5 * (region > 0)).astype(np.float32), region))
    return made


def filled(made, **options):
    points = PointScores(**options)
    for score, region in made:
        points.update(score, region)
    return points


def test_closed_form():
    found = PointScores().update([4, 3, 2, 1], [1, 0, 2, 0]).metrics()
    assert found["point_auroc"] == 0.75  # 3 of 4 pairs in order
    assert found["point_ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["point_f1_max"] == pytest.approx(0.8)
    assert found["point_fpr95"] == 0.5
    assert found["au_pro_30"] == pytest.approx(0.5)  # region 1 is found at rate 0, region 2 at 0.5, beyond the limit
    assert found["point_error"] == 0


def test_against_libraries_and_a_naive_loop():
    made = clouds()
    found = filled(made).metrics()
    score, y = np.concatenate([s for s, _ in made]), np.concatenate([r > 0 for _, r in made])
    assert found["point_auroc"] == pytest.approx(roc_auc_score(y, score))
    assert found["point_ap"] == pytest.approx(average_precision_score(y, score))
    precision, recall, _ = precision_recall_curve(y, score)
    assert found["point_f1_max"] == pytest.approx(np.nanmax(2 * precision * recall / (precision + recall)))
    fpr, tpr, _ = roc_curve(y, score, drop_intermediate=False)
    assert found["point_fpr95"] == pytest.approx(fpr[np.argmax(tpr >= 0.95)])
    numbered, used = [], 0
    for _, region in made:
        numbered.append(np.where(region > 0, region + used, 0))
        used += region.max()
    expected = au_pro(score, np.concatenate(numbered))
    assert [found[f"au_pro_{p}"] for p in (30, 10, 5, 1)] == pytest.approx(list(expected.values()))
    thresholds = np.sort(score[~y])[::-1]
    pro = [np.mean([(score[np.concatenate(numbered) == k] > t).mean() for k in range(1, used + 1)]) for t in thresholds]
    count = int(0.05 * len(thresholds))  # each normal point is one step of the curve
    assert found["au_pro_5"] == pytest.approx(np.mean(pro[:count]), abs=2e-3)


@pytest.mark.parametrize("bits", [12, 16, 20])
def test_the_stated_error_holds_and_shrinks(bits):
    made = clouds(1)
    exact, binned = filled(made).metrics(), filled(made, exact_points=100, bits=bits).metrics()
    worst = max(abs(exact[name] - binned[name]) for name in POINT_METRICS)
    assert worst <= binned["point_error"] + 1e-12
    assert binned["point_error"] < {12: 1.0, 16: 0.1, 20: 0.01}[bits]
    assert binned["point_error"] > 0


def test_bins_take_over_in_the_middle_without_losing_a_cloud():
    made = clouds(2)
    early, late = (filled(made, exact_points=n, bits=20) for n in (1, 3 * 3000))
    assert early.metrics() == pytest.approx(late.metrics())
    assert early.points == late.points == 18000 and early.defective == sum(int((r > 0).sum()) for _, r in made)


def test_a_class_that_is_missing_gives_nan_and_bad_input_is_named():
    for limit in (1, 10**6):
        assert np.isnan(PointScores(limit).update([1.0, 2.0], [0, 0]).metrics()["au_pro_30"])
    assert np.isnan(PointScores().metrics()["point_auroc"])
    with pytest.raises(LabelError, match="region"):
        PointScores().update([1.0, 2.0], [0])
    with pytest.raises(MetricInputError, match="NaN"):
        PointScores().update([np.nan], [0])


def test_memory_stays_bounded():
    points = PointScores(exact_points=10_000, bits=16)
    rng = np.random.default_rng(0)
    for _ in range(20):
        points.update(rng.random(50_000), np.zeros(50_000, int))
    assert not points._kept and points.points == 10**6
