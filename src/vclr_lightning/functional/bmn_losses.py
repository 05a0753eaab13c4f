"""Labels and losses of boundary-matching networks (BMN)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.functional.proposals import Floats, covered_share, temporal_iou

_EPSILON = 1e-5


class BMNLabels(NamedTuple):
    """Labels of one video, on ``T`` positions.

    Attributes:
        iou: largest tIoU of every cell with any true segment, ``(T, T)``: ``iou[d, s]`` is the
            cell that starts at position ``s`` and is ``d + 1`` positions long.
        start: how much of each position's neighbourhood is a true start, ``(T,)``.
        end: the same for ends, ``(T,)``.
    """

    iou: Floats
    start: Floats
    end: Floats


def bmn_labels(segments: Floats, positions: int = 100) -> BMNLabels:
    """Return the labels of a video with these true segments.

    Args:
        segments: start and end as shares of the video, ``(g, 2)``.
        positions: T.

    Example:
        >>> labels = bmn_labels(np.array([[0.2, 0.6]]), positions=10)
        >>> float(labels.iou[3, 2].round(6)), int(labels.start.argmax()), int(labels.end.argmax())
        (1.0, 1, 5)
    """
    gap = 1.0 / positions
    start = gap * np.arange(positions)
    duration = gap * np.arange(1, positions + 1)
    cells = np.stack(np.broadcast_arrays(start, start + duration[:, None]), axis=-1).reshape(-1, 2)
    anchors = np.stack([start - 0.5 * gap, start + 1.5 * gap], axis=1)

    def largest(shares: Floats) -> Floats:
        best: Floats = shares.max(axis=1, initial=0.0)
        return best

    def boundary(times: Floats) -> Floats:
        near = np.stack([times - 1.5 * gap, times + 1.5 * gap], axis=1)
        return largest(covered_share(anchors, near))

    return BMNLabels(
        iou=largest(temporal_iou(cells, segments)).reshape(positions, positions),
        start=boundary(segments[:, 0]),
        end=boundary(segments[:, 1]),
    )


def weighted_logistic(scores: Tensor, labels: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Binary logistic loss with equal total weight of positives and negatives.

    Positives are labels above ``threshold``. With ``r`` the entries per positive, clamped to 1.05
    and 21, positives weigh ``r / 2`` and negatives ``r / (2 (r - 1))``.

    Shape: ``scores`` (probabilities), ``labels``: the same shape; returns a scalar.

    Example:
        >>> loss = weighted_logistic(torch.tensor([0.9, 0.1]), torch.tensor([1.0, 0.0]))
        >>> f"{loss.item():.4f}"  # both classes weigh 1: -log 0.9
        '0.1053'
    """
    positive = (labels > threshold).to(scores.dtype)
    ratio = (positive.numel() / positive.sum().clamp_min(1)).clamp(1.05, 21)
    gain = 0.5 * ratio
    loss = gain * positive * torch.log(scores + _EPSILON)
    loss = loss + gain / (ratio - 1) * (1 - positive) * torch.log(1 - scores + _EPSILON)
    return -loss.mean()


def regression_weights(
    iou: Tensor, valid: Tensor, *, generator: torch.Generator, high: float = 0.7, low: float = 0.3
) -> Tensor:
    """Weigh the cells whose IoU is regressed: all high ones, and about as many medium and low ones.

    Cells above ``high`` are all taken; those in ``(low, high]`` and those in ``(0, low]`` are drawn
    with the probability that gives about as many. Where the high cells outnumber such a pool, the
    authors' draw accepts every cell of the grid, inside the pool or not; the published numbers were
    produced that way. Cells taken more than once weigh as often.

    Shape:
        ``iou``: ``(..., T, T)``; ``valid``: ``(T, T)``, 1 where the cell ends inside the video;
        returns 0, 1, 2 or 3 in ``iou``'s shape.

    Example:
        >>> iou = torch.tensor([[0.8, 0.5], [0.1, 0.0]])
        >>> rng = torch.Generator().manual_seed(0)
        >>> regression_weights(iou, torch.ones(2, 2), generator=rng).tolist()
        [[1.0, 1.0], [1.0, 0.0]]
        >>> iou[0, 1] = 0.8  # two high ones, none between
        >>> regression_weights(iou, torch.ones(2, 2), generator=rng).tolist()
        [[3.0, 3.0], [2.0, 2.0]]
    """
    inside = valid.expand_as(iou) > 0
    top = (iou > high) & inside
    middle = (iou <= high) & (iou > low) & inside
    bottom = (iou <= low) & (iou > 0) & inside
    weights = top.to(iou.dtype)
    for pool in (middle, bottom):
        chance = top.sum() / pool.sum()  # infinite or NaN for an empty pool
        draw = torch.rand(iou.shape, generator=generator, device=iou.device)
        weights = weights + ((pool & (draw < chance)) | (chance > 1))
    return weights


def regression_loss(scores: Tensor, iou: Tensor, weights: Tensor) -> Tensor:
    """Half the sum of squared weighted errors over the sum of the weights.

    Shape: ``scores``, ``iou``, ``weights``: the same shape; returns a scalar.

    Example:
        >>> one = torch.ones(2, 2)
        >>> regression_loss(0.5 * one, one, torch.eye(2)).item()
        0.125
    """
    error = ((scores - iou) * weights).square()
    return 0.5 * error.sum() / weights.sum().clamp_min(1)


def classification_loss(scores: Tensor, iou: Tensor, *, threshold: float = 0.9) -> Tensor:
    """Weighted logistic loss over the valid cells, positive where the IoU exceeds ``threshold``.

    Valid are the cells of :func:`valid_cells`.

    Shape: ``scores``, ``iou``: ``(B, T, T)``; returns a scalar.

    Example:
        >>> scores = torch.full((1, 2, 2), 0.5)
        >>> loss = classification_loss(scores, torch.tensor([[[1.0, 0.0], [0.0, 9.0]]]))
        >>> f"{loss.item():.4f}"  # the mean weight is 1: log 2
        '0.6931'
    """
    # By index: a mask would be read back from a GPU, which the host would wait for.
    positions = scores.shape[-1]
    duration, last = torch.triu_indices(positions, positions, device=scores.device)
    cells = duration * positions + last - duration
    inside = [x.flatten(1).index_select(1, cells).flatten() for x in (scores, iou)]
    return weighted_logistic(*inside, threshold=threshold)


class BMNLosses(NamedTuple):
    """The terms of the loss, scalars."""

    boundary: Tensor
    regression: Tensor
    classification: Tensor

    @property
    def total(self) -> Tensor:
        """The weighted sum, which is minimised: regression counts tenfold."""
        return self.boundary + 10 * self.regression + self.classification


def valid_cells(positions: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Mark the cells ``[d, s]`` of proposals that end inside the video, ``(T, T)``, 0 or 1.

    Example:
        >>> valid_cells(2).tolist()
        [[1.0, 1.0], [1.0, 0.0]]
    """
    at = torch.arange(positions, device=device)
    return (at[:, None] + at[None, :] < positions).float()


def bmn_losses(
    maps: Tensor,
    start: Tensor,
    end: Tensor,
    *,
    iou: Tensor,
    start_label: Tensor,
    end_label: Tensor,
    generator: torch.Generator,
) -> BMNLosses:
    """Compare a boundary-matching network's output with the labels of its videos.

    Args:
        maps: regression and classification of every cell, ``(B, 2, T, T)``.
        start: probability that each position is a start, ``(B, T)``.
        end: the same for ends.
        iou, start_label, end_label: see :class:`BMNLabels`, with a batch dimension.
        generator: draws the cells that are regressed.
    """
    valid = valid_cells(iou.shape[-1], device=iou.device)
    weights = regression_weights(iou, valid, generator=generator)
    return BMNLosses(
        boundary=weighted_logistic(start, start_label) + weighted_logistic(end, end_label),
        regression=regression_loss(maps[:, 0], iou * valid, weights),
        classification=classification_loss(maps[:, 1], iou),
    )
