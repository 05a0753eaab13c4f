"""From the maps of a boundary-matching network to ranked proposals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vclr_lightning.functional.intervals import Floats, temporal_iou


def boundary_positions(scores: Floats) -> NDArray[np.bool_]:
    """Mark likely boundaries: local maxima, and scores above half the largest.

    Shape:
        ``scores``: ``(T,)``; returns ``(T,)`` bool. The first and the last position are local
        maxima of nothing; the caller adds the one it needs.

    Example:
        >>> boundary_positions(np.array([0.1, 0.2, 0.1, 0.9, 0.5])).tolist()
        [False, True, False, True, True]
    """
    marked: NDArray[np.bool_] = scores > 0.5 * scores.max()
    inner = scores[1:-1]
    marked[1:-1] |= (inner > scores[:-2]) & (inner > scores[2:])
    return marked


def candidate_proposals(start: Floats, end: Floats, confidence: Floats) -> Floats:
    """Pair every likely start with every likely end behind it.

    Position 0 is always a start and position T - 1 always an end. A pair from ``s`` to ``e`` scores
    start times end times both confidences of the cell that begins at ``s`` and is ``e - s`` long.

    Args:
        start: probability that each position is a start.
        end: probability that each position is an end.
        confidence: regression and classification maps, ``confidence[:, d, s]``.

    Shape:
        ``start``, ``end``: ``(T,)``; ``confidence``: ``(2, T, T)``; returns ``(n, 3)``: start and
        end as shares of the video, and score.

    Example:
        >>> start, end = np.array([0.9, 0.1, 0.1]), np.array([0.1, 0.1, 0.8])
        >>> candidate_proposals(start, end, np.ones((2, 3, 3))).round(2).tolist()
        [[0.0, 0.67, 0.72]]
    """
    positions = len(start)
    starts, ends = boundary_positions(start), boundary_positions(end)
    starts[0] = ends[-1] = True
    s, e = np.nonzero(starts[:, None] & ends[None, :] & ~np.tri(positions, dtype=bool))
    score = start[s] * end[e] * confidence[0, e - s - 1, s] * confidence[1, e - s - 1, s]
    return np.stack([s / positions, e / positions, score], axis=1)


def soft_nms(
    proposals: Floats,
    *,
    alpha: float = 0.4,
    low: float = 0.5,
    high: float = 0.9,
    keep: int = 100,
) -> Floats:
    """Pick the best proposal again and again, and let it fade those it overlaps.

    A proposal whose tIoU with the picked one exceeds ``low + (high - low) * width`` of the picked
    one has its score multiplied by ``exp(-tIoU ** 2 / alpha)``.

    Shape:
        ``proposals``: ``(n, 3)``, start and end as shares of the video, and score; returns at most
        ``(keep, 3)``, best first, with the scores they were picked at.

    Example:
        >>> two = np.array([[0.0, 0.5, 0.9], [0.0, 0.48, 0.8], [0.6, 0.9, 0.5]])
        >>> soft_nms(two).round(2).tolist()
        [[0.0, 0.5, 0.9], [0.6, 0.9, 0.5], [0.0, 0.48, 0.08]]
    """
    left = proposals * 1.0  # a copy, and no whole numbers
    picked: list[Floats] = []
    while len(left) and len(picked) < keep:
        best = int(left[:, 2].argmax())
        chosen = left[best]
        picked.append(chosen)
        left = np.delete(left, best, axis=0)
        overlap = temporal_iou(chosen[None, :2], left[:, :2])[0]
        faded = overlap > low + (high - low) * (chosen[1] - chosen[0])
        left[faded, 2] *= np.exp(-(overlap[faded] ** 2) / alpha)
    return np.array(picked).reshape(-1, 3)


def random_proposals(rng: np.random.Generator, number: int) -> Floats:
    """Return segments drawn evenly from all there are, ``(number, 3)``: what chance proposes.

    Args:
        rng: random numbers.
        number: of segments.

    Shape:
        start, end and score, each within 0 to 1; the highest score first.

    Example:
        >>> random_proposals(np.random.default_rng(0), 2).round(2).tolist()
        [[0.27, 0.64, 0.91], [0.02, 0.04, 0.81]]
    """
    ends = np.sort(rng.random((number, 2)), axis=1)
    return np.column_stack([ends, np.sort(rng.random(number))[::-1]])
