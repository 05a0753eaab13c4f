"""Classification accuracy."""

from __future__ import annotations

import torch
from torch import Tensor


def topk_accuracy(scores: Tensor, targets: Tensor, *, k: int = 1) -> float:
    """Share of rows whose target is among the ``k`` highest scores.

    A target outside the columns (a class without training samples) counts as wrong, and so does
    one with a score of minus infinity, such as a class without votes.

    Shape: - scores: ``(N, classes)``; targets: ``(N,)`` column indices, -1 for none

    Example:
        >>> scores = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.4, 0.1]])
        >>> targets = torch.tensor([1, 1])
        >>> topk_accuracy(scores, targets), topk_accuracy(scores, targets, k=2)
        (0.5, 1.0)
    """
    return float(topk_hits(scores, targets, k=k).double().mean())


def topk_hits(scores: Tensor, targets: Tensor, *, k: int = 1) -> Tensor:
    """Whether each row counts as right in :func:`topk_accuracy`, ``(N,)`` bool.

    Example:
        >>> topk_hits(torch.tensor([[0.1, 0.9], [0.5, 0.4]]), torch.tensor([1, 1])).tolist()
        [True, False]
    """
    score, best = scores.topk(min(k, scores.shape[1]), dim=1)
    right = (best == targets[:, None]) & (score > -torch.inf)
    return right.any(dim=1)


def mean_class_accuracy(predicted: Tensor, targets: Tensor) -> float:
    """Accuracy averaged over the classes present in ``targets``.

    Shape: - predicted, targets: ``(N,)``

    Example:
        >>> mean_class_accuracy(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 2]))
        0.5
    """
    _, group, count = torch.unique(targets, return_inverse=True, return_counts=True)
    right = torch.zeros(len(count), dtype=torch.float64, device=targets.device)
    right.index_add_(0, group, (predicted == targets).double())
    return float((right / count).mean())


def columns_of(labels: Tensor, classes: Tensor) -> Tensor:
    """Return the column of each label among the sorted ``classes``, -1 for other labels.

    Example:
        >>> columns_of(torch.tensor([7, 3, 5]), torch.tensor([3, 7])).tolist()
        [1, 0, -1]
    """
    position = torch.searchsorted(classes, labels).clamp(max=len(classes) - 1)
    return torch.where(classes[position] == labels, position, -1)
