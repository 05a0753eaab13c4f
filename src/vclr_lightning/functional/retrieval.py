"""Recall at k: how often one of the nearest neighbours has the query's class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours

KS = (1, 5, 10, 20, 50)
"""Numbers of neighbours reported in the paper."""


def recall_at_k(
    queries: Tensor,
    gallery: Tensor,
    *,
    query_labels: Tensor,
    gallery_labels: Tensor,
    ks: Sequence[int] = KS,
    chunk: int = 512,
) -> dict[int, float]:
    """Share of queries whose label is among those of the ``k`` nearest gallery rows (cosine).

    Shape:
        - queries: ``(Q, F)``, query_labels ``(Q,)``; gallery: ``(G, F)``, gallery_labels ``(G,)``

    Raises:
        UserError: features are not finite, there is no gallery, or a ``k`` is below 1.

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> labels = torch.tensor([0, 1])
        >>> query = torch.tensor([[2.0, 1.0]])
        >>> recall_at_k(query, gallery, query_labels=labels[1:], gallery_labels=labels, ks=(1, 2))
        {1: 0.0, 2: 1.0}
    """
    _, positions = cosine_neighbours(queries, gallery, largest(ks), chunk=chunk)
    return recalls(first_hits(positions, query_labels, gallery_labels), ks)


def largest(ks: Sequence[int]) -> int:
    """Return the largest of some numbers of neighbours.

    Raises:
        UserError: there is none, or one is no whole number from 1 on.

    Example:
        >>> largest([1, 5])
        5
    """
    try:
        wrong = not ks or any(not hasattr(k, "__index__") or k < 1 for k in ks)
    except TypeError:  # no list
        wrong = True
    if wrong:
        raise UserError(f"ks={ks} must name one or more whole numbers of neighbours from 1")
    return max(ks)


def first_hits(positions: Tensor, query_labels: Tensor, gallery_labels: Tensor) -> Tensor:
    """Return the rank of the first neighbour with the query's label: 1 for the very nearest.

    Args:
        positions: neighbours, nearest first; -1 for none.

    Shape:
        - positions: ``(Q, K)``; query_labels: ``(Q,)``; gallery_labels: ``(G,)``
        - returns: ``(Q,)`` int64; 0 where none of the K has the label

    Example:
        >>> labels = torch.tensor([7, 3, 3])
        >>> first_hits(torch.tensor([[2, 0], [0, 2], [1, 2]]), torch.tensor([3, 3, 7]), labels)
        tensor([1, 2, 0])
    """
    hits = (gallery_labels[positions] == query_labels[:, None]) & (positions >= 0)  # (Q, K)
    return torch.where(hits.any(dim=1), hits.int().argmax(dim=1) + 1, 0)


def recalls(first: Tensor, ks: Sequence[int] = KS) -> dict[int, float]:
    """Return the share of queries with a hit among the ``k`` nearest, by :func:`first_hits`.

    Example:
        >>> recalls(torch.tensor([1, 2, 0, 6]), ks=(1, 5))
        {1: 0.25, 5: 0.5}
    """
    return {k: float(((first > 0) & (first <= k)).double().mean()) for k in ks}


def chance_recall(
    query_labels: Tensor,
    gallery_labels: Tensor,
    *,
    ks: Sequence[int] = KS,
    query_groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
) -> dict[int, float]:
    """Chance level of the recall: that of ``k`` different random gallery rows.

    For a query whose class has h of the G rows, all k draws miss with probability
    (G - h) / G x (G - h - 1) / (G - 1) x ... With groups, ``(Q,)`` and ``(G,)``, rows of the
    query's own group are excluded.

    Example:
        >>> chance_recall(torch.tensor([0, 1]), torch.tensor([0, 0, 0, 1]), ks=(1, 2))
        {1: 0.5, 2: 0.75}
    """
    hits = _occurrences(query_labels, gallery_labels)
    rows = torch.full_like(hits, len(gallery_labels))
    if query_groups is not None and gallery_groups is not None:
        rows -= _occurrences(query_groups, gallery_groups)
        groups = torch.unique(torch.cat([query_groups, gallery_groups]))
        query, gallery = (
            labels * len(groups) + torch.searchsorted(groups, own)
            for labels, own in [(query_labels, query_groups), (gallery_labels, gallery_groups)]
        )
        hits -= _occurrences(query, gallery)
    miss = torch.ones(len(hits), dtype=torch.float64, device=hits.device)
    found: dict[int, float] = {}
    for draw in range(largest(ks)):
        others, left = (rows - hits - draw).clamp(min=0).double(), (rows - draw).clamp(min=1)
        miss = miss * (others / left).masked_fill(rows <= draw, 1)
        found[draw + 1] = float((1 - miss).mean())
    return {k: found[k] for k in ks}


def _occurrences(values: Tensor, among: Tensor) -> Tensor:
    """How often each of ``values`` ``(Q,)`` occurs ``among`` ``(G,)``."""
    ordered = among.sort().values
    end = torch.searchsorted(ordered, values, right=True)
    return end - torch.searchsorted(ordered, values)


def instance_recall(first: Tensor, second: Tensor, *, chunk: int = 512) -> float:
    """R@1 of retrieving a video's second draw among those of all videos; needs no labels.

    Row ``i`` of both sides is the same video, sampled and augmented twice. Each row of one side
    queries the other; the result is the mean over both directions. The chance level is ``1 / N``,
    which constant features reach too.

    Shape: - first, second: ``(N, F)``

    Example:
        >>> first = torch.eye(3)
        >>> instance_recall(first, first[[0, 1, 2]]), instance_recall(first, first[[0, 2, 1]])
        (1.0, 0.3333333333333333)
    """
    return float(instance_hits(first, second, chunk=chunk).mean())


def instance_hits(first: Tensor, second: Tensor, *, chunk: int = 512) -> Tensor:
    """Return how often each video is found in :func:`instance_recall`: 0, 1/2 or 1.

    Shape: - first, second: ``(N, F)``; returns ``(N,)`` float64

    Example:
        >>> first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> instance_hits(first, torch.tensor([[1.0, 0.1], [1.0, 0.2]])).tolist()
        [1.0, 0.5]
    """
    own = torch.arange(len(first), device=first.device)
    _, there = cosine_neighbours(first, second, 1, chunk=chunk)
    _, back = cosine_neighbours(second, first, 1, chunk=chunk)
    return ((there[:, 0] == own).double() + (back[:, 0] == own).double()) / 2
