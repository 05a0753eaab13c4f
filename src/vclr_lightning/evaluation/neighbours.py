"""What the nearest training videos of every test video are, and how often they are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.faiss_search import faiss_neighbours
from vclr_lightning.functional.neighbours import cosine_neighbours
from vclr_lightning.functional.retrieval import KS, chance_recall, first_hits, largest, recalls

BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "exact": cosine_neighbours,
    "faiss": faiss_neighbours,
}


class Features(Protocol):
    """Features of N videos, such as a ``FeatureStore`` or a ``FeatureSet``."""

    def __len__(self) -> int: ...

    @property
    def mean(self) -> Tensor:
        """``(N, F)``, averaged over a video."""
        ...

    @property
    def label(self) -> Tensor:
        """``(N,)``"""
        ...

    @property
    def group_id(self) -> Tensor:
        """``(N,)``"""
        ...


@dataclass(frozen=True)
class ClassRow:
    """How one class is found.

    Attributes:
        label: the class.
        queries: test videos of it.
        gallery: training videos of it.
        recall: share of its queries with a hit, by k.
        taken_for: the other class that most of its queries have as the nearest; -1 for none.
        taken_share: share of its queries that have.
    """

    label: int
    queries: int
    gallery: int
    recall: dict[int, float]
    taken_for: int
    taken_share: float


@dataclass(frozen=True)
class Confusion:
    """Queries of one class whose nearest video is of another.

    Attributes:
        label: class of the queries.
        taken_for: class of their nearest.
        count: how many.
        share: of the queries of the class.
    """

    label: int
    taken_for: int
    count: int
    share: float


@dataclass(frozen=True)
class Retrieval:
    """The neighbours of Q queries among G videos.

    Attributes:
        similarity: ``(Q, K)`` cosine similarity, nearest first.
        position: ``(Q, K)`` rows of the gallery; -1 for none.
        query_label: ``(Q,)``.
        gallery_label: ``(G,)``.
        ks: numbers of neighbours to count.
        chance: expected recall of random rows, by k.
    """

    similarity: Tensor
    position: Tensor
    query_label: Tensor
    gallery_label: Tensor
    ks: tuple[int, ...]
    chance: dict[int, float]

    def __len__(self) -> int:
        return len(self.position)

    @cached_property
    def first_hit(self) -> Tensor:
        """``(Q,)``: how near the nearest video of the class is, from 1; 0 where none of K is."""
        return first_hits(self.position, self.query_label, self.gallery_label)

    @cached_property
    def recall(self) -> dict[int, float]:
        """Share of queries with a hit among the k nearest, by k."""
        return recalls(self.first_hit, self.ks)

    @property
    def missing(self) -> list[int]:
        """Classes of queries that the gallery lacks, so that they cannot be found."""
        return sorted(set(self.query_label.tolist()) - set(self.gallery_label.tolist()))

    @cached_property
    def nearest_label(self) -> Tensor:
        """``(Q,)``: class of the nearest video; -1 where there is none."""
        nearest = self.position[:, 0]
        return self.gallery_label[nearest].masked_fill(nearest < 0, -1)

    def by_class(self) -> list[ClassRow]:
        """Return a row for each class of the queries, in their order."""
        gallery = Counter(self.gallery_label.tolist())
        rows = []
        for label in sorted(set(self.query_label.tolist())):
            own = self.query_label == label
            number = int(own.sum())
            taken_for, count = next(_mistaken(self.nearest_label[own], label), (-1, 0))
            rows.append(
                ClassRow(
                    label=label,
                    queries=number,
                    gallery=gallery[label],
                    recall=recalls(self.first_hit[own], self.ks),
                    taken_for=taken_for,
                    taken_share=count / number,
                )
            )
        return rows

    def confusions(self) -> list[Confusion]:
        """Return which classes are taken for which by their nearest video, the most first."""
        found = []
        for label in sorted(set(self.query_label.tolist())):
            own = self.nearest_label[self.query_label == label]
            found += [
                Confusion(label, taken_for, count, count / len(own))
                for taken_for, count in _mistaken(own, label)
            ]
        return sorted(found, key=lambda c: (-c.count, -c.share, c.label, c.taken_for))


def _mistaken(nearest: Tensor, label: int) -> Iterator[tuple[int, int]]:
    """Other classes and how often they are the nearest, the most frequent first."""
    counts = Counter(found for found in nearest.tolist() if found not in (label, -1))
    yield from sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def search(
    train: Features,
    test: Features,
    *,
    ks: Sequence[int] = KS,
    backend: str = "exact",
    leave_group_out: bool = False,
    **options: Any,
) -> Retrieval:
    """Find the nearest training videos of every test video (Section 4.1 of the paper).

    Args:
        train: the gallery; videos without a label are not in it.
        test: the queries; those without a label are left out.
        ks: numbers of neighbours to count; those beyond the gallery are left out, but for the
            smallest.
        backend: ``"exact"``, or ``"faiss"``, which needs that package and finds the same.
        leave_group_out: videos of the query's own group are no neighbours; for queries that are
            also the gallery.
        options: of the backend, such as ``chunk``.

    Raises:
        UserError: no video has a label, features are not finite or do not fit together, or there
            is no such backend.

    Example:
        >>> import torch
        >>> from vclr_lightning.evaluation import FeatureSet
        >>> x = torch.tensor([[1.0, 0.0], [0.2, 1.0], [0.0, 1.0], [1.0, 0.9]])
        >>> label, number = torch.tensor([0, 1, 1, 0]), torch.arange(4)
        >>> features = FeatureSet(x, x[:, None], label, number, number, number)
        >>> search(features, features, ks=(1, 2), leave_group_out=True).recall
        {1: 0.75, 2: 1.0}
    """
    if backend not in BACKENDS:
        raise UserError(f"backend={backend} must be {' or '.join(BACKENDS)}")
    if leave_group_out and backend != "exact":
        raise UserError(f"backend={backend} cannot leave groups out; take backend=exact")
    largest(ks)
    gallery, gallery_label, gallery_group = _labelled(train, "training")
    queries, query_label, query_group = _labelled(test, "test")
    if gallery.shape[1] != queries.shape[1]:
        raise UserError(
            f"the training videos have {gallery.shape[1]} features each and the test videos "
            f"{queries.shape[1]}; extract both with the same weights and layer"
        )
    groups: dict[str, Tensor] = {}
    if leave_group_out:
        groups = {"query_groups": query_group, "gallery_groups": gallery_group}
    counted = tuple(sorted({k for k in ks if k == min(ks) or k <= len(gallery)}))
    similarity, position = BACKENDS[backend](queries, gallery, max(counted), **groups, **options)
    return Retrieval(
        similarity=similarity,
        position=position,
        query_label=query_label,
        gallery_label=gallery_label,
        ks=counted,
        chance=chance_recall(query_label, gallery_label, ks=counted, **groups),
    )


def _labelled(features: Features, what: str) -> tuple[Tensor, Tensor, Tensor]:
    keep = features.label >= 0
    if not bool(keep.any()):
        raise UserError(
            f"none of the {what} videos has a label, and retrieval needs them; index a folder with "
            "a subfolder per class, or list files with labels"
        )
    if bool(keep.all()):  # not copied: it may be mapped into memory
        return features.mean, features.label, features.group_id
    return features.mean[keep], features.label[keep], features.group_id[keep]
