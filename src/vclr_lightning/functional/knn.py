"""k-nearest-neighbour classification of frozen features."""

from __future__ import annotations

from torch import Tensor

from vclr_lightning.functional.neighbours import cosine_neighbours


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
    """Label of each query by the majority of its ``k`` nearest gallery rows (cosine).

    Classes with equal votes are told apart by their nearest row. Rows of the query's own group do
    not vote, where groups are given; a query without any other row is labelled -1.

    Shape:
        - queries: ``(Q, F)``; gallery: ``(G, F)``; gallery_labels: ``(G,)``, non-negative
        - groups: ``(Q,)`` and ``(G,)``
        - returns: ``(Q,)`` int64

    Example:
        >>> import torch
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
    k: int = 1,
    query_groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
    chunk: int = 512,
) -> float:
    """Share of queries that :func:`knn_predict` labels rightly; with ``k=1`` this is R@1.

    Example:
        >>> import torch
        >>> x, y = torch.eye(2), torch.tensor([0, 1])
        >>> knn_accuracy(x, x, query_labels=y, gallery_labels=y)
        1.0
    """
    predicted = knn_predict(
        queries,
        gallery,
        gallery_labels,
        k=k,
        query_groups=query_groups,
        gallery_groups=gallery_groups,
        chunk=chunk,
    )
    return float((predicted == query_labels).double().mean())
