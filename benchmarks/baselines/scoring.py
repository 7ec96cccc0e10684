"""Metrics as released code has them: scikit-learn, and AU-PRO by thresholding again and again."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score


def three_metrics(score: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """AUROC, average precision and the largest F1."""
    precision, recall, _ = precision_recall_curve(y, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return roc_auc_score(y, score), average_precision_score(y, score), float(f1.max())


def thresholded_au_pro(score: np.ndarray, region: np.ndarray, limit: float, levels: int) -> float:
    """Area under the per-region overlap up to a false positive rate, from `levels` thresholds and their masks."""
    normal = region == 0
    members = [region == number for number in range(1, int(region.max()) + 1)]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.quantile(score[normal], np.linspace(1, max(0.0, 1 - 1.2 * limit), levels)):
        flagged = score >= threshold
        rates.append(float(flagged[normal].mean()))
        overlaps.append(float(np.mean([flagged[member].mean() for member in members])))
    order = np.argsort(rates)
    rate, overlap = np.array(rates)[order], np.array(overlaps)[order]
    inside = rate <= limit
    edge = np.interp(limit, rate, overlap)
    return float(np.trapezoid([*overlap[inside], edge], [*rate[inside], limit]) / limit)
