"""Measures of how much of its space a set of embeddings uses; both fall when it collapses."""

from __future__ import annotations

import torch
from torch import Tensor

from vclr_lightning.functional.precision import full, without_autocast


def spread(x: Tensor) -> Tensor:
    """Return the root mean square distance of unit vectors from their mean: 0 to 1.

    0 when all are the same vector; 1 when they cancel out, as uniformly spread ones do.

    Shape:
        ``(n, D)`` to ``()``.

    Example:
        >>> spread(torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item()
        0.0
        >>> spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item()
        1.0
    """
    x = full(x)
    return (x - x.mean(0)).square().sum(1).mean().sqrt()


def effective_rank(x: Tensor) -> Tensor:
    """Return the number of directions in use: exp of the entropy of the singular values.

    Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007), of the
    centred rows. 1 when all differ along one line, at most ``min(n - 1, D)``; 0 when all are equal.

    Shape:
        ``(n, D)`` to ``()``.

    Example:
        >>> line = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
        >>> f"{effective_rank(line).item():.3f}"
        '1.000'
        >>> cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> f"{effective_rank(cross).item():.3f}"
        '2.000'
    """
    x = full(x)
    x = x - x.mean(0)
    with without_autocast(x):
        gram = x.T @ x if len(x) > x.shape[1] else x @ x.T
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = singular / singular.sum().clamp_min(torch.finfo(x.dtype).tiny)
    rank = torch.exp(torch.special.entr(share).sum())
    return torch.where(singular.sum() > 0, rank, torch.zeros_like(rank))
