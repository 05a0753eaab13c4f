"""What was found for every query: recall, by class, and what is taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from vclr_lightning.functional.retrieval import first_hits, recalls


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
    """Videos of one class that are misclassified: by their nearest, or by a classifier.

    Attributes:
        label: class of the videos.
        taken_for: the other class.
        count: how many.
        share: of the videos of the class.
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
        return confusions(self.query_label, self.nearest_label)


def confusions(label: Tensor, told: Tensor) -> list[Confusion]:
    """Return which classes are taken for which, the most first.

    Args:
        label: classes of videos.
        told: what they are taken for, -1 for nothing.

    Shape:
        both ``(M,)``

    Example:
        >>> import torch
        >>> confusions(torch.tensor([0, 0, 1]), torch.tensor([1, 0, 1]))
        [Confusion(label=0, taken_for=1, count=1, share=0.5)]
    """
    found = []
    for one in sorted(set(label.tolist())):
        own = told[label == one]
        found += [
            Confusion(one, taken_for, count, count / len(own))
            for taken_for, count in _mistaken(own, one)
        ]
    return sorted(found, key=lambda c: (-c.count, -c.share, c.label, c.taken_for))


def _mistaken(nearest: Tensor, label: int) -> Iterator[tuple[int, int]]:
    """Other classes and how often they are the nearest, the most frequent first."""
    counts = Counter(found for found in nearest.tolist() if found not in (label, -1))
    yield from sorted(counts.items(), key=lambda item: (-item[1], item[0]))
