"""Class scores of the nearest neighbours, weighted by their similarity."""

from __future__ import annotations

import torch
from torch import Tensor

from vclr_lightning.functional.neighbours import cosine_neighbours


def knn_scores(
    queries: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Tensor:
    r"""Return each class's share of the votes of a query's ``k`` nearest gallery rows.

    A neighbour of cosine similarity s votes with weight :math:`\exp(s / T)`.

    Args:
        queries: features, any scale.
        gallery: features, any scale.
        gallery_labels: class of each gallery row.
        num_classes: number of columns.
        k: neighbours that vote.
        temperature: T; the larger, the more equal the votes.

    Shape:
        - queries: ``(Q, F)``; gallery: ``(G, F)``; gallery_labels: ``(G,)``
        - returns: ``(Q, num_classes)``; rows sum to 1

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> labels = torch.tensor([0, 0, 1])
        >>> scores = knn_scores(torch.tensor([[0.0, 2.0]]), gallery, labels, num_classes=2, k=3)
        >>> scores.argmax(dim=1).tolist()
        [1]
    """
    similarity, position = cosine_neighbours(queries, gallery, k)
    weight = torch.softmax(similarity.double() / temperature, dim=1)  # (Q, k)
    scores = weight.new_zeros(len(queries), num_classes)
    return scores.scatter_add_(1, gallery_labels[position], weight)
