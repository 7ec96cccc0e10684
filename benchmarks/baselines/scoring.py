"""Metrics as released code has them: scikit-learn, and AU-PRO by thresholding again and again."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score


def three_metrics(score: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """AUROC, average precision and the largest F1."""
    precision, recall, _ = precision_recall_curve(y, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return roc_auc_score(y, score), average_precision_score(y, score), float(f1.max())


def thresholded_au_pro(scores: list[np.ndarray], regions: list[np.ndarray], limit: float, levels: int) -> float:
    """Area under the per-region overlap up to a false positive rate, from `levels` thresholds and their masks.

    Each threshold makes a mask of every cloud anew, which is counted on its normal points and on each of its regions.
    """
    normal = [region == 0 for region in regions]
    members = [[region == number for number in np.unique(region[region > 0])] for region in regions]
    calm = np.concatenate([score[mask] for score, mask in zip(scores, normal)])
    rates, overlaps = [0.0], [0.0]
    for threshold in np.quantile(calm, np.linspace(1, max(0.0, 1 - 1.2 * limit), levels)):
        false, shares = 0, []
        for score, mask, parts in zip(scores, normal, members):
            flagged = score >= threshold
            false += int(flagged[mask].sum())
            shares += [float(flagged[part].mean()) for part in parts]
        rates.append(false / len(calm))
        overlaps.append(float(np.mean(shares)))
    rate, overlap = np.array(rates), np.array(overlaps)
    inside = rate <= limit
    edge = np.interp(limit, rate, overlap)
    return float(np.trapezoid([*overlap[inside], edge], [*rate[inside], limit]) / limit)
