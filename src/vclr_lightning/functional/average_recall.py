"""Average recall of temporal proposals against their average number (AR@AN)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vclr_lightning.functional.intervals import Floats, temporal_iou

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""ActivityNet's tIoU thresholds, 0.5 to 0.95 in steps of 0.05."""


class AverageRecall(NamedTuple):
    """Recall of proposals, as ActivityNet's own toolkit computes it.

    Attributes:
        recall: share of the true segments found, ``(thresholds, 100)``, a fraction.
        average_number: average proposals a video in each column, ``(100,)``.
        curve: recall averaged over the thresholds, ``(100,)``.
        auc: area under the curve over average number, divided by its largest, a fraction.
    """

    recall: Floats
    average_number: Floats
    curve: Floats
    auc: float

    def at(self, number: int) -> float:
        """Return AR@``number``, the recall in the column of that average number (1 to 100)."""
        return float(self.curve[number - 1])


def average_recall(
    proposals: Sequence[Floats],
    truths: Sequence[Floats],
    *,
    thresholds: Floats = THRESHOLDS,
    max_number: int = 100,
) -> AverageRecall:
    """Compute recall at every average number of proposals up to ``max_number``.

    Every video keeps the same share of its proposals, its best by score; column ``j`` allows an
    average of ``j`` a video. So AR@AN counts by the average over all videos, not by the best
    ``AN`` of each.

    Args:
        proposals: of each video, start, end and score.
        truths: of each video, start and end of the true segments, in the proposals' unit.
        thresholds: tIoU from which on a true segment counts as found.
        max_number: last average number, at least 1.

    Shape:
        ``proposals[v]``: ``(n_v, 3)``; ``truths[v]``: ``(g_v, 2)``.

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
