"""Overlap of intervals in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _intersection(a: Floats, b: Floats) -> Floats:
    low = np.maximum(a[:, None, 0], b[None, :, 0])
    high = np.minimum(a[:, None, 1], b[None, :, 1])
    shared: Floats = np.clip(high - low, 0.0, None)
    return shared


def temporal_iou(a: Floats, b: Floats) -> Floats:
    """Return the temporal intersection over union (tIoU) of every pair; 0 of two empty ones.

    Shape:
        ``a``: ``(n, 2)``; ``b``: ``(m, 2)``, start and end; returns ``(n, m)``.

    Example:
        >>> temporal_iou(np.array([[0.0, 2.0]]), np.array([[1.0, 2.0], [5.0, 6.0]])).tolist()
        [[0.5, 0.0]]
    """
    shared = _intersection(a, b)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def covered_share(a: Floats, b: Floats) -> Floats:
    """Return which share of each ``a`` each ``b`` covers.

    Shape:
        ``a``: ``(n, 2)``, none of them empty; ``b``: ``(m, 2)``; returns ``(n, m)``.

    Example:
        >>> covered_share(np.array([[0.0, 4.0]]), np.array([[1.0, 9.0]])).tolist()
        [[0.75]]
    """
    share: Floats = _intersection(a, b) / (a[:, 1] - a[:, 0])[:, None]
    return share
