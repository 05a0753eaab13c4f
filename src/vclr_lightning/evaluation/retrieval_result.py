"""Nearest training videos of every test video: recall, by class, and confusions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from vclr_lightning.evaluation.confusions import Confusion, confusions
from vclr_lightning.functional.retrieval import first_hits, recalls


@dataclass(frozen=True)
class ClassRow:
    """Recall of one class.

    Attributes:
        label: the class.
        queries: test videos of it.
        gallery: training videos of it.
        recall: share of its queries with a hit, by k.
        predicted: class of the nearest video that is most frequent among the wrong ones; -1: none.
        predicted_share: share of its queries.
    """

    label: int
    queries: int
    gallery: int
    recall: dict[int, float]
    predicted: int
    predicted_share: float


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

    @property
    def hits(self) -> dict[int, Tensor]:
        """``(Q,)`` bool, whether one of the k nearest is of the class, by k."""
        return {k: (self.first_hit > 0) & (self.first_hit <= k) for k in self.ks}

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
        worst: dict[int, Confusion] = {}
        for one in self.confusions():
            worst.setdefault(one.label, one)
        rows = []
        for label in sorted(set(self.query_label.tolist())):
            own = self.query_label == label
            mistake = worst.get(label)
            rows.append(
                ClassRow(
                    label=label,
                    queries=int(own.sum()),
                    gallery=gallery[label],
                    recall=recalls(self.first_hit[own], self.ks),
                    predicted=mistake.predicted if mistake else -1,
                    predicted_share=mistake.share if mistake else 0.0,
                )
            )
        return rows

    def confusions(self) -> list[Confusion]:
        """Return classes that are confused by the nearest video, the most frequent first."""
        return confusions(self.query_label, self.nearest_label)
