"""Smoothing of point scores, over neighbours in space or in the order of the file."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.errors import CloudError, HyperparameterError
from toolkit.ops.knn import knn


def smooth(value: Tensor, pos: Tensor, *, k: int) -> Tensor:
    """Mean over the ``k`` nearest points, each point counting itself.

    Args:
        value: (N,) values of the points.
        pos: (N, 3) points.
        k: points to average, all if there are fewer.

    Returns:
        (N,), in the dtype of ``value``.

    Raises:
        CloudError: another number of values than points; NaN or infinite coordinates.
        HyperparameterError: ``k`` < 1.
    """
    if value.shape != pos.shape[:1]:
        raise CloudError(f"smooth: {pos.shape[0]} points but values of shape {tuple(value.shape)}.")
    if pos.shape[0] == 0:
        return value.clone()
    index, _ = knn(pos, pos, min(k, pos.shape[0]))
    return value[index].mean(1)


def smooth_by_order(value: Tensor, window: int = 511, *, file_order: Tensor | None = None) -> Tensor:
    """Mean over ``window`` points that stand next to each other in the file, as C3D-AD and MC3D-AD do.

    The first and last ``window // 2`` points are averaged with zeros beyond the ends, and so attenuated. What it does
    depends on the order in which the file lists the points: for reproduction; elsewhere use `smooth`.

    Args:
        value: (N,) values of points.
        window: odd number of points.
        file_order: (N,) where each point stood in its file, if the cloud was sorted since (`toolkit.zorder`).

    Returns:
        (N,), in the dtype of ``value``.

    Raises:
        CloudError: ``value`` is no vector.
        HyperparameterError: ``window`` is not a positive odd number.
    """
    if window < 1 or window % 2 == 0:
        raise HyperparameterError(f"smooth_by_order: window must be a positive odd number, got {window}.")
    if value.dim() != 1:
        raise CloudError(f"smooth_by_order: expected values of shape (N,), got {tuple(value.shape)}.")
    if file_order is not None:
        order, out = file_order.argsort(), torch.empty_like(value)
        out[order] = smooth_by_order(value[order], window)
        return out
    size, half = value.shape[0], window // 2
    # Differences of running sums: the cost does not grow with the window.
    total = torch.cat([value.new_zeros(1, dtype=torch.float64), value.double().cumsum(0)])
    place = torch.arange(size, device=value.device)
    upper, lower = (place + half + 1).clamp_max(size), (place - half).clamp_min(0)
    return ((total[upper] - total[lower]) / window).to(value.dtype)
