"""Disentanglement of a model's codes against known factors: levels of factors, all metrics, and groups of codes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from toolkit.errors import LabelError
from toolkit.metrics import disentanglement as metrics


def levels(table: pd.DataFrame, count: int = 5) -> NDArray[np.int64]:
    """(n, f) levels of factors: texts and whole numbers of few values by value, others cut into equally full bins.

    Args:
        table: a factor per column, without gaps.
        count: bins.

    Raises:
        LabelError: missing values.
    """
    if table.isna().any().any():
        raise LabelError(f"factors: missing values in {', '.join(table.columns[table.isna().any()])}.")
    found = []
    for _, column in table.items():
        if pd.api.types.is_numeric_dtype(column) and column.nunique() > count:
            found.append(pd.qcut(column, count, labels=False, duplicates="drop").to_numpy())
        else:
            found.append(pd.factorize(column, sort=True)[0])
    return np.stack(found, 1).astype(np.int64)


def disentanglement(codes: ArrayLike, factors: ArrayLike, seed: int = 0) -> dict[str, float]:
    """MIG, SAP, DCI, modularity, FactorVAE, BetaVAE and IRS of (n, c) codes against (n, f) levels."""
    scores = {
        "mig": metrics.mig(codes, factors),
        "sap": metrics.sap(codes, factors, seed=seed),
        "modularity": metrics.modularity(codes, factors),
        "factor_vae": metrics.factor_vae_score(codes, factors, votes=250, seed=seed),
        "beta_vae": metrics.beta_vae_score(codes, factors, batches=150, seed=seed),
        "irs": metrics.irs(codes, factors),
    }
    return {**scores, **metrics.dci(codes, factors, seed=seed)}


def told_by_groups(
    groups: Mapping[str, ArrayLike], factors: ArrayLike, names: list[str], seed: int = 0
) -> pd.DataFrame:
    """How well each group of codes alone tells each factor: 0 = no better than the commonest level, 1 = always.

    Axis-wise metrics punish a factor that fills two codes of its group; groups are what a grouped model promises.

    Args:
        groups: name -> (n, c) codes.
        factors: (n, f) levels.
        names: of the factors.
        seed: of the split in halves and of the classifier, a random forest.
    """
    from sklearn.ensemble import RandomForestClassifier

    levels = np.asarray(factors)
    order = np.random.default_rng(seed).permutation(len(levels))
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    rows: dict[str, list[float]] = {}
    for group, codes in groups.items():
        z = np.asarray(codes)
        rows[group] = []
        for k in range(levels.shape[1]):
            model = RandomForestClassifier(100, random_state=seed).fit(z[train], levels[train, k])
            right = float(model.score(z[test], levels[test, k]))
            guess = float(np.bincount(levels[test, k]).max() / len(test))
            rows[group].append(max(0.0, (right - guess) / (1 - guess)) if guess < 1 else 0.0)
    return pd.DataFrame.from_dict(rows, orient="index", columns=names)
