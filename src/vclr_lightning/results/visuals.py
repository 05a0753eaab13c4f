"""Figures and pictures of a result, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over one axis.

    Attributes:
        title: what is drawn.
        lines: ``(x, y)`` pairs by name; a :class:`~vclr_lightning.results.curves.Curve` where there
            are many.
        chance: level to compare with.
        before: level before training.
        percent: values are shares.
    """

    title: str
    lines: Mapping[str, Iterable[tuple[float, float]]]
    chance: float | None = None
    before: float | None = None
    percent: bool = False


@dataclass(frozen=True, kw_only=True)
class Charts:
    """Charts side by side."""

    charts: Sequence[Chart]
    title: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often values occur, and their median.

    Attributes:
        title: what the values are.
        values: finite ones, at least one.
    """

    title: str
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Histograms:
    """Histograms side by side."""

    charts: Sequence[Histogram]
    title: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Shares as bars, a group for each measure.

    Attributes:
        groups: values of each seed, by name of the bar, by measure. A bar ends at their mean.
        chance: by measure.
    """

    groups: Mapping[str, Mapping[str, Sequence[float]]]
    chance: Mapping[str, float] = field(default_factory=dict)
    title: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class ConfusionMatrix:
    """A confusion matrix.

    Attributes:
        counts: ``(c, c)``, by true class (row) and predicted class (column).
        classes: names.
    """

    counts: Tensor
    classes: Sequence[str]
    title: str = "Confusion matrix"
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A proposed segment of a video, in seconds; ``iou``: its largest tIoU with an annotation."""

    start: float
    end: float
    score: float
    iou: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The annotated and the proposed segments of one video.

    Attributes:
        name: of the video.
        duration: seconds.
        truth: start and end in seconds, and class.
        proposals: best first.
    """

    name: str
    duration: float
    truth: Sequence[tuple[float, float, str]]
    proposals: Sequence[Proposal]


@dataclass(frozen=True, kw_only=True)
class Timelines:
    """Timelines of some videos."""

    videos: Sequence[Timeline]
    title: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One or several frames with a caption.

    Attributes:
        frames: ``(n, 3, H, W)`` or ``(3, H, W)`` uint8; ``None`` where the video cannot be read.
        caption: below the frames.
        detail: next to the caption, such as a similarity.
        tooltip: shown when pointed at.
        correct: marks the picture as right or wrong.
        badge: a number on the picture.
        outlined: whether the picture has a frame.
        link: file that the caption leads to, relative to the page.
    """

    frames: Tensor | None
    caption: str = ""
    detail: str = ""
    tooltip: str = ""
    correct: bool | None = None
    badge: str = ""
    outlined: bool = False
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class PictureGroup:
    """Rows of pictures that belong together, each with its label: text, or a picture."""

    rows: Sequence[tuple[str | Picture, Sequence[Picture]]]
    title: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Groups of pictures.

    Attributes:
        groups: such as a query and its neighbours.
        layout: ``"neighbours"``: large ones next to a query; ``"strips"``: frames of videos;
            ``"cards"``: small ones, groups side by side; ``"wide"``: one in a row, lossless.
    """

    groups: Sequence[PictureGroup]
    title: str = ""
    text: str = ""
    layout: Literal["neighbours", "strips", "cards", "wide"] = "neighbours"


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The page of another result, as a file below this one's folder."""

    title: str
    page: Path


Figure = Charts | Histograms | Bars | ConfusionMatrix | Timelines
