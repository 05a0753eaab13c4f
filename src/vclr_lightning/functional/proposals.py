"""Temporal action proposals: overlap, candidates, soft NMS, and average recall (AR@AN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""ActivityNet's tIoU thresholds, 0.5 to 0.95 in steps of 0.05."""


def temporal_iou(a: Floats, b: Floats) -> Floats:
    """Return the temporal intersection over union (tIoU) of every pair; 0 for two empty ones.

    Shape: ``a``: ``(n, 2)``; ``b``: ``(m, 2)``, start and end; returns ``(n, m)``.

    Example:
        >>> temporal_iou(np.array([[0.0, 2.0]]), np.array([[1.0, 2.0], [5.0, 6.0]])).tolist()
        [[0.5, 0.0]]
    """
    shared = _intersection(a, b)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def covered_share(a: Floats, b: Floats) -> Floats:
    """Return the share of each ``a`` that each ``b`` covers.

    Shape: ``a``: ``(n, 2)``, none of them empty; ``b``: ``(m, 2)``; returns ``(n, m)``.

    Example:
        >>> covered_share(np.array([[0.0, 4.0]]), np.array([[1.0, 9.0]])).tolist()
        [[0.75]]
    """
    share: Floats = _intersection(a, b) / (a[:, 1] - a[:, 0])[:, None]
    return share


def _intersection(a: Floats, b: Floats) -> Floats:
    low = np.maximum(a[:, None, 0], b[None, :, 0])
    high = np.minimum(a[:, None, 1], b[None, :, 1])
    shared: Floats = np.clip(high - low, 0.0, None)
    return shared


def boundary_positions(scores: Floats) -> NDArray[np.bool_]:
    """Mark likely boundaries: local maxima, and scores above half the maximum.

    Shape:
        ``scores``: ``(T,)``; returns ``(T,)`` bool. The first and last position are no local
        maxima; the caller adds the one it needs.

    Example:
        >>> boundary_positions(np.array([0.1, 0.2, 0.1, 0.9, 0.5])).tolist()
        [False, True, False, True, True]
    """
    marked: NDArray[np.bool_] = scores > 0.5 * scores.max()
    inner = scores[1:-1]
    marked[1:-1] |= (inner > scores[:-2]) & (inner > scores[2:])
    return marked


def candidate_proposals(start: Floats, end: Floats, confidence: Floats) -> Floats:
    """Pair every likely start with every likely end after it.

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
    """Soft non-maximum suppression: the best proposal lowers the scores of those it overlaps.

    A proposal whose tIoU with the selected one exceeds ``low + (high - low) * width`` of the
    selected one has its score multiplied by ``exp(-tIoU ** 2 / alpha)``.

    Shape:
        ``proposals``: ``(n, 3)``, start and end as shares of the video, and score; returns at most
        ``(keep, 3)``, best first, with their scores when selected.

    Example:
        >>> two = np.array([[0.0, 0.5, 0.9], [0.0, 0.48, 0.8], [0.6, 0.9, 0.5]])
        >>> soft_nms(two).round(2).tolist()
        [[0.0, 0.5, 0.9], [0.6, 0.9, 0.5], [0.0, 0.48, 0.08]]
    """
    left = proposals * 1.0  # a copy, in floating point
    selected: list[Floats] = []
    while len(left) and len(selected) < keep:
        best = int(left[:, 2].argmax())
        chosen = left[best]
        selected.append(chosen)
        left = np.delete(left, best, axis=0)
        overlap = temporal_iou(chosen[None, :2], left[:, :2])[0]
        near = overlap > low + (high - low) * (chosen[1] - chosen[0])
        left[near, 2] *= np.exp(-(overlap[near] ** 2) / alpha)
    return np.array(selected).reshape(-1, 3)


def random_proposals(rng: np.random.Generator, number: int) -> Floats:
    """Draw ``number`` segments uniformly, the chance level of proposals.

    Shape: returns ``(number, 3)``: start, end and score, each within 0 to 1; highest score first.

    Example:
        >>> random_proposals(np.random.default_rng(0), 2).round(2).tolist()
        [[0.27, 0.64, 0.91], [0.02, 0.04, 0.81]]
    """
    ends = np.sort(rng.random((number, 2)), axis=1)
    return np.column_stack([ends, np.sort(rng.random(number))[::-1]])


class AverageRecall(NamedTuple):
    """Recall of proposals, as computed by ActivityNet's own toolkit; all are fractions."""

    recall: Floats  # (thresholds, 100), share of the true segments found
    average_number: Floats  # (100,), average proposals per video in each column
    curve: Floats  # (100,), recall averaged over the thresholds
    auc: float  # area under the curve over the average number, divided by its maximum

    def at(self, number: int) -> float:
        """Return AR@``number``, the recall at that average number of proposals (1 to 100)."""
        return float(self.curve[number - 1])


def average_recall(
    proposals: Sequence[Floats],
    truths: Sequence[Floats],
    *,
    thresholds: Floats = THRESHOLDS,
    max_number: int = 100,
) -> AverageRecall:
    """Compute recall at every average number of proposals up to ``max_number``.

    Every video keeps the same share of its proposals, the best by score; column ``j`` allows an
    average of ``j`` per video. AR@AN thus counts by the average over all videos, not by the best
    ``AN`` of each.

    Args:
        proposals: of each video, start, end and score.
        truths: of each video, start and end of the true segments, in the proposals' unit.
        thresholds: tIoU from which a true segment counts as found.
        max_number: largest average number, at least 1.

    Shape: ``proposals[v]``: ``(n_v, 3)``; ``truths[v]``: ``(g_v, 2)``.

    Raises:
        ValueError: no true segment, no proposal, or lists of different lengths.

    Example:
        >>> found = np.array([[0.0, 1.0, 0.9], [4.0, 5.0, 0.1]])
        >>> result = average_recall([found], [np.array([[0.0, 1.0], [4.0, 5.0]])])
        >>> result.at(1), result.at(100)
        (0.5, 1.0)
    """
    if len(proposals) != len(truths):
        raise ValueError(f"{len(proposals)} videos with proposals, {len(truths)} with truth")
    count = sum(len(p) for p in proposals)
    segments = sum(len(t) for t in truths)
    if not count or not segments:
        raise ValueError(f"{count} proposals and {segments} true segments: nothing to compare")
    videos = len(proposals)
    ratio = max_number * videos / count
    kept = [min(len(p), int(len(p) * ratio)) for p in proposals]
    total = sum(kept)
    steps = np.arange(1, max_number + 1) / max_number * (max_number * videos / max(total, 1))
    hits = np.zeros((len(thresholds), max_number))
    for video, truth, keep in zip(proposals, truths, kept, strict=True):
        used = np.minimum(keep, (keep * steps).astype(np.int64))  # (max_number,)
        if not keep or not len(truth):
            continue
        best = video[np.argsort(-video[:, 2], kind="stable")[:keep], :2]
        # Best tIoU of each truth with the first k proposals, for every k at once; 0 for none.
        reached = np.maximum.accumulate(temporal_iou(truth, best), axis=1)
        reached = np.pad(reached, ((0, 0), (1, 0)))[:, used]  # (g, max_number)
        hits += (reached[None] >= thresholds[:, None, None]).sum(axis=1)
    recall = hits / segments
    number = steps * total / videos  # nominal, before each video's share is cut to an integer
    curve = recall.mean(axis=0)
    return AverageRecall(recall, number, curve, float(np.trapezoid(curve, number) / number[-1]))
