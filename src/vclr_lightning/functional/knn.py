"""k-nearest-neighbour classification of frozen features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vclr_lightning.functional.nearest_neighbours import cosine_neighbours


def knn_predict(
    queries: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    k: int = 1,
    query_groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
    chunk: int = 512,
) -> Tensor:
    """Predict the class of each query by majority vote of its ``k`` nearest gallery rows (cosine).

    The nearest row decides between classes with equal votes. With groups, rows of the query's own
    group do not vote; a query without any other row gets -1.

    Shape:
        - queries: ``(Q, F)``; gallery: ``(G, F)``; gallery_labels: ``(G,)``, non-negative
        - groups: ``(Q,)`` and ``(G,)``
        - returns: ``(Q,)`` int64

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> knn_predict(torch.tensor([[0.2, 1.0]]), gallery, torch.tensor([7, 7, 3]), k=3).tolist()
        [7]
    """
    similarities, positions = cosine_neighbours(
        queries,
        gallery,
        k,
        query_groups=query_groups,
        gallery_groups=gallery_groups,
        chunk=chunk,
    )
    voting = similarities.isfinite()  # (Q, k), the nearest first
    neighbours = gallery_labels[positions].masked_fill(~voting, -1)
    votes = ((neighbours[:, :, None] == neighbours[:, None, :]) & voting[:, None, :]).sum(dim=2)
    # argmax takes the first of equal maxima, and the first is the nearest.
    return neighbours.gather(1, votes.argmax(dim=1, keepdim=True))[:, 0]


def knn_accuracy(
    queries: Tensor,
    gallery: Tensor,
    *,
    query_labels: Tensor,
    gallery_labels: Tensor,
    **options: Any,
) -> float:
    """Accuracy of :func:`knn_predict`, which takes the options; with ``k=1`` this is R@1.

    Example:
        >>> x, y = torch.eye(2), torch.tensor([0, 1])
        >>> knn_accuracy(x, x, query_labels=y, gallery_labels=y)
        1.0
    """
    predicted = knn_predict(queries, gallery, gallery_labels, **options)
    return float((predicted == query_labels).double().mean())


def knn_scores(
    queries: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    query_groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
) -> Tensor:
    """Return each class's share of the weighted votes of a query's ``k`` nearest gallery rows.

    A neighbour of cosine similarity s votes with weight exp(s / temperature) (Wu et al.,
    "Unsupervised feature learning via non-parametric instance discrimination", 2018, Section 3.4).
    With groups, rows of the query's own group do not vote; each query needs another one.

    Shape:
        - queries: ``(Q, F)``; gallery: ``(G, F)``; gallery_labels: ``(G,)``
        - groups: ``(Q,)`` and ``(G,)``
        - returns: ``(Q, num_classes)``; rows sum to 1

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> labels = torch.tensor([0, 0, 1])
        >>> scores = knn_scores(torch.tensor([[0.0, 2.0]]), gallery, labels, num_classes=2, k=3)
        >>> scores.argmax(dim=1).tolist()
        [1]
    """
    similarity, position = cosine_neighbours(
        queries, gallery, k, query_groups=query_groups, gallery_groups=gallery_groups
    )
    weight = torch.softmax(similarity.double() / temperature, dim=1)  # (Q, k)
    scores = weight.new_zeros(len(queries), num_classes)
    return scores.scatter_add_(1, gallery_labels[position], weight)
