"""Nearest neighbours by cosine similarity, and recall at k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def cosine_neighbours(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    *,
    query_groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
    chunk: int = 4096,
) -> tuple[Tensor, Tensor]:
    """Return the ``k`` nearest gallery rows of each query by cosine similarity.

    Queries go in chunks, so that no more than ``chunk * G`` similarities are held at once.

    Args:
        queries: features, any scale.
        gallery: features, any scale.
        k: number of neighbours; at most ``G`` come back.
        query_groups, gallery_groups: where given, rows of the query's own group come last, with a
            similarity of minus infinity: with groups of their own, queries that are also the
            gallery do not find themselves.
        chunk: queries compared at a time.

    Shape:
        - queries: ``(Q, F)``; gallery: ``(G, F)``; groups: ``(Q,)`` and ``(G,)``
        - returns: similarities ``(Q, min(k, G))``, descending, and positions of the same shape.

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
        >>> similarity, position = cosine_neighbours(torch.tensor([[0.0, 5.0]]), gallery, k=2)
        >>> position.tolist()
        [[1, 2]]
    """
    gallery = normalize(gallery, dim=1)
    k = min(k, len(gallery))
    similarities = queries.new_empty((len(queries), k))
    positions = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk)
        similarity = normalize(queries[rows], dim=1) @ gallery.T
        if query_groups is not None and gallery_groups is not None:
            own = query_groups[rows, None] == gallery_groups[None, :]
            similarity.masked_fill_(own, -torch.inf)
        similarities[rows], positions[rows] = similarity.topk(k, dim=1)
    return similarities, positions


def recall_at_k(
    queries: Tensor,
    gallery: Tensor,
    *,
    query_labels: Tensor,
    gallery_labels: Tensor,
    ks: Sequence[int] = (1, 5, 10, 20, 50),
    chunk: int = 4096,
) -> dict[int, float]:
    """Share of queries of which any of the ``k`` nearest gallery rows has the query's label.

    Shape:
        - queries: ``(Q, F)``, query_labels ``(Q,)``; gallery: ``(G, F)``, gallery_labels ``(G,)``

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> labels = torch.tensor([0, 1])
        >>> query = torch.tensor([[2.0, 1.0]])
        >>> recall_at_k(query, gallery, query_labels=labels[1:], gallery_labels=labels, ks=(1, 2))
        {1: 0.0, 2: 1.0}
    """
    _, positions = cosine_neighbours(queries, gallery, max(ks), chunk=chunk)
    hits = gallery_labels[positions] == query_labels[:, None]  # (Q, k)
    return {k: float(hits[:, :k].any(dim=1).double().mean()) for k in ks}


def chance_recall_at_1(
    query_labels: Tensor,
    gallery_labels: Tensor,
    *,
    query_groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
) -> float:
    """Expected R@1 of a random gallery row: what features without information reach.

    Rows of the query's own group do not count, where groups are given.

    Example:
        >>> chance_recall_at_1(torch.tensor([0, 1]), torch.tensor([0, 0, 0, 1]))
        0.5
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
    return float((hits.double() / rows.clamp(min=1)).mean())


def _occurrences(values: Tensor, among: Tensor) -> Tensor:
    """How often each of ``values`` ``(Q,)`` occurs ``among`` ``(G,)``."""
    ordered = among.sort().values
    end = torch.searchsorted(ordered, values, right=True)
    return end - torch.searchsorted(ordered, values)


def instance_recall(first: Tensor, second: Tensor, *, chunk: int = 4096) -> float:
    """R@1 of finding a video's other draw among all videos' other draws; needs no labels.

    Row ``i`` of both sides is the same video, drawn and augmented twice. Each row of one side looks
    for its nearest row of the other; the result is the mean over both directions. Chance is
    ``1 / N``, and that is also what features that are all alike reach.

    Shape:
        - first, second: ``(N, F)``

    Example:
        >>> first = torch.eye(3)
        >>> instance_recall(first, first[[0, 1, 2]]), instance_recall(first, first[[0, 2, 1]])
        (1.0, 0.3333333333333333)
    """
    own = torch.arange(len(first), device=first.device)
    _, there = cosine_neighbours(first, second, 1, chunk=chunk)
    _, back = cosine_neighbours(second, first, 1, chunk=chunk)
    hits = torch.cat([there[:, 0] == own, back[:, 0] == own])
    return float(hits.double().mean())
