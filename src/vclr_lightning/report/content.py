"""What a page shows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from vclr_lightning.results import Chart as Chart


@dataclass(frozen=True)
class Score:
    """How often something was right, beside what needs no information.

    Attributes:
        name: what was measured.
        share: how often it was right, 0 to 1.
        chance: by chance, 0 to 1.
    """

    name: str
    share: float
    chance: float


@dataclass(frozen=True)
class TupleSample:
    """What the network saw of one video in one step.

    Attributes:
        name: of the video.
        anchor: the anchor tuple ``(S, C, H, W)`` uint8, in temporal order.
        positive: the positive tuple ``(S, C, H, W)``, in temporal order.
        second: the second view of the anchor frame ``(C, H, W)``.
        x1: position of the anchor frame in the anchor tuple.
        anchor_order: permutation in which the order loss saw the anchor tuple.
        positive_order: permutation in which it saw the positive tuple.
    """

    name: str
    anchor: Tensor
    positive: Tensor
    second: Tensor | None = None
    x1: int | None = None
    anchor_order: Sequence[int] = ()
    positive_order: Sequence[int] = ()


@dataclass(frozen=True)
class Shown:
    """A video as a few of its frames.

    Attributes:
        frames: ``(n, C, H, W)`` uint8, in order.
        label: its class.
    """

    frames: Tensor
    label: str


@dataclass(frozen=True)
class Query:
    """An unseen video, and the training videos that are nearest to it.

    Attributes:
        video: the unseen one.
        neighbours: nearest first, by name of the features.
    """

    video: Shown
    neighbours: Mapping[str, Sequence[Shown]]


@dataclass(frozen=True)
class Content:
    """Everything on a page; what is left empty is not shown.

    Attributes:
        title: of the page.
        summary: what was found, in a sentence or two.
        facts: of the run, by name.
        charts: curves of the run.
        scores: of tasks without labels.
        tuples: what the network saw.
        queries: what the features find.
        notes: how to read the curves, a sentence each.
    """

    title: str
    summary: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    charts: Sequence[Chart] = ()
    scores: Sequence[Score] = ()
    tuples: Sequence[TupleSample] = ()
    queries: Sequence[Query] = ()
    notes: Sequence[str] = ()
