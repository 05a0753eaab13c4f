"""The losses of boundary-matching networks (BMN)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_EPSILON = 1e-5


def weighted_logistic(scores: Tensor, labels: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Binary logistic loss in which positives and negatives weigh alike.

    Positives are labels above ``threshold``. With ``r`` the entries per positive, kept within 1.05
    and 21, positives weigh ``r / 2`` and negatives ``r / (2 (r - 1))``.

    Shape:
        ``scores`` (probabilities), ``labels``: the same shape; returns a scalar.

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
    """Weigh the cells whose IoU is regressed: all high ones, about as many of the others each.

    Cells above ``high`` are all taken; those in ``(low, high]`` and those in ``(0, low]`` are drawn
    with the chance that gives about as many. Where the high cells outnumber such a pool, the
    authors' draw passes every cell of the grid, inside the pool or not; the published numbers were
    made so. Cells taken more than once weigh as often.

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
        chance = top.sum() / pool.sum()  # infinite, or not a number, of an empty pool
        draw = torch.rand(iou.shape, generator=generator, device=iou.device)
        weights = weights + ((pool & (draw < chance)) | (chance > 1))
    return weights


def regression_loss(scores: Tensor, iou: Tensor, weights: Tensor) -> Tensor:
    """Half the sum of squared weighted errors, by the sum of the weights.

    Shape:
        ``scores``, ``iou``, ``weights``: the same shape; returns a scalar.

    Example:
        >>> one = torch.ones(2, 2)
        >>> regression_loss(0.5 * one, one, torch.eye(2)).item()
        0.125
    """
    error = ((scores - iou) * weights).square()
    return 0.5 * error.sum() / weights.sum().clamp_min(1)


def classification_loss(
    scores: Tensor, iou: Tensor, valid: Tensor, *, threshold: float = 0.9
) -> Tensor:
    """Weighted logistic loss over the valid cells: is the IoU above ``threshold``?

    Shape:
        ``scores``, ``iou``: ``(B, T, T)``; ``valid``: ``(T, T)``; returns a scalar.

    Example:
        >>> scores = torch.full((1, 2, 2), 0.5)
        >>> valid = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
        >>> loss = classification_loss(scores, torch.tensor([[[1.0, 0.0], [0.0, 9.0]]]), valid)
        >>> f"{loss.item():.4f}"  # the mean weight is 1: log 2
        '0.6931'
    """
    inside = valid.expand_as(scores) > 0
    return weighted_logistic(scores[inside], iou[inside], threshold=threshold)


class BMNLosses(NamedTuple):
    """The parts of a loss, scalars; :attr:`total` is what is minimised."""

    boundary: Tensor
    regression: Tensor
    classification: Tensor

    @property
    def total(self) -> Tensor:
        """The weighted sum: regression counts tenfold."""
        return self.boundary + 10 * self.regression + self.classification


def valid_cells(positions: int) -> Tensor:
    """Mark the cells ``[d, s]`` of proposals that end inside the video, ``(T, T)``, 0 or 1.

    Example:
        >>> valid_cells(2).tolist()
        [[1.0, 1.0], [1.0, 0.0]]
    """
    at = torch.arange(positions)
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
    """Compare what a boundary-matching network gives with the labels of its videos.

    Args:
        maps: regression and classification of every cell.
        start: probability that each position is a start.
        end: the same for ends.
        iou, start_label, end_label: see :class:`~vclr_lightning.functional.bmn_labels.BMNLabels`.
        generator: draws the cells that are regressed.

    Shape:
        ``maps``: ``(B, 2, T, T)``; ``iou``: ``(B, T, T)``; all others ``(B, T)``.
    """
    valid = valid_cells(iou.shape[-1]).to(iou.device)
    weights = regression_weights(iou, valid, generator=generator)
    return BMNLosses(
        boundary=weighted_logistic(start, start_label) + weighted_logistic(end, end_label),
        regression=regression_loss(maps[:, 0], iou * valid, weights),
        classification=classification_loss(maps[:, 1], iou, valid),
    )
