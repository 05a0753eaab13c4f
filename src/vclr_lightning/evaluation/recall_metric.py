"""Recall at k as a metric of torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours
from vclr_lightning.functional.retrieval import KS, first_hits, largest


class RecallAtK(Metric):
    """Share of queries with their class among the ``k`` nearest of a fixed gallery, by cosine.

    This corresponds to torchmetrics' ``RetrievalHitRate`` (its ``RetrievalRecall`` is the share of
    relevant documents found), which keeps the score of every pair of query and document: 36 million
    for the test set of UCF101. Here each batch of queries is searched at once and only counts are
    kept, which are summed over processes. Each process needs the whole gallery (memory-mapped, they
    share it) and any part of the queries.

    Args:
        gallery: features of any scale, dtype and device, not copied.
        gallery_labels: their classes.
        ks: numbers of neighbours; may exceed the size of the gallery.
        average: ``"micro"``, over queries; ``"macro"``, over the classes that have queries;
            ``"none"``, by class, NaN without queries.
        num_classes: C, needed for the latter two.
        gallery_groups: with these, :meth:`update` takes the queries' groups, and rows of the
            query's own group are excluded.
        chunk: queries compared at a time.
        options: of :class:`torchmetrics.Metric`.

    Shape:
        - gallery: ``(G, F)``; gallery_labels, gallery_groups: ``(G,)``
        - :meth:`update` takes features ``(B, F)``, labels ``(B,)`` and groups ``(B,)``
        - :meth:`compute` returns ``()``, or ``(C,)`` for ``"none"``, by name: ``r1``, ``r5`` and so
          on; NaN without queries

    Raises:
        UserError: the gallery is empty or has another number of labels, a ``k`` is below 1, or
            ``num_classes`` is missing; from :meth:`update`, features are not finite or have another
            length, or labels are out of range.

    Example:
        >>> metric = RecallAtK(torch.eye(3), torch.tensor([0, 1, 1]), ks=(1, 2))
        >>> metric.update(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([1]))
        >>> metric.update(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([1]))
        >>> {name: float(value) for name, value in metric.compute().items()}
        {'r1': 0.5, 'r2': 1.0}
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    hits: Tensor
    queries: Tensor

    def __init__(
        self,
        gallery: Tensor,
        gallery_labels: Tensor,
        *,
        ks: Sequence[int] = KS,
        average: Literal["micro", "macro", "none"] = "micro",
        num_classes: int | None = None,
        gallery_groups: Tensor | None = None,
        chunk: int = 512,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        largest(ks)
        if not len(gallery) or len(gallery) != len(gallery_labels):
            raise UserError(
                f"a gallery of {len(gallery)} rows with {len(gallery_labels)} labels cannot be "
                "searched; give features (G, F) and a label for each"
            )
        if average not in ("micro", "macro", "none"):
            raise UserError(f"average={average} must be micro, macro or none")
        if average != "micro" and (num_classes is None or num_classes < 1):
            raise UserError(f"average={average} needs num_classes, 1 or more")
        self.ks = tuple(ks)
        self.gallery, self.gallery_labels = gallery, gallery_labels
        self.gallery_groups = gallery_groups
        self.average = average
        self.chunk = chunk
        classes = 1 if average == "micro" or num_classes is None else num_classes
        self.add_state(
            "hits", torch.zeros(classes, len(self.ks), dtype=torch.int64), dist_reduce_fx="sum"
        )
        self.add_state("queries", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Tensor, labels: Tensor, groups: Tensor | None = None) -> None:
        """Search the neighbours of a batch of queries."""
        if features.shape[1] != self.gallery.shape[1]:
            raise UserError(
                f"queries have {features.shape[1]} features, and the gallery has "
                f"{self.gallery.shape[1]}"
            )
        if (groups is None) != (self.gallery_groups is None):
            raise UserError("give groups of both the queries and the gallery, or of neither")
        rows = torch.zeros_like(labels) if self.average == "micro" else labels
        if not bool(((rows >= 0) & (rows < len(self.queries))).all()):
            raise UserError(
                f"labels from {int(labels.min())} to {int(labels.max())} do not fit "
                f"num_classes={len(self.queries)}"
            )
        if not len(features):
            return
        _, positions = cosine_neighbours(
            features,
            self.gallery,
            max(self.ks),
            query_groups=groups,
            gallery_groups=self.gallery_groups,
            chunk=self.chunk,
        )
        known = self.gallery_labels.to(labels.device)
        first = first_hits(positions.to(labels.device), labels, known)[:, None]
        limits = torch.tensor(self.ks, device=first.device)
        hits = ((first > 0) & (first <= limits)).long()  # (B, len(ks))
        rows, hits = rows.to(self.hits.device), hits.to(self.hits.device)
        self.hits.index_add_(0, rows, hits)
        self.queries += torch.bincount(rows, minlength=len(self.queries))

    def compute(self) -> dict[str, Tensor]:
        """Return the recall at each k, by name."""
        shares = self.hits / self.queries[:, None]  # (C, len(ks))
        if self.average != "none":
            shares = shares.nanmean(dim=0)
        return {f"r{k}": shares[..., column] for column, k in enumerate(self.ks)}
