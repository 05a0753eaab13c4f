"""What a stage has measured, as one plain value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any, Literal

from vclr_lightning.results.visuals import Embedded, Figure, Gallery

TITLES = {
    "top1": "top-1",
    "top5": "top-5",
    "top1_folds": "top-1, folds",
    "mean_class": "mean class",
    "auc": "AUC",
    **{f"r{k}": f"R@{k}" for k in (1, 5, 10, 20, 50)},
    **{f"ar{n}": f"AR@{n}" for n in (1, 5, 10, 100)},
    **{f"{kind}_r1": f"{kind}, R@1" for kind in ("colour", "frame", "motion")},
    **{f"{kind}_probe": f"{kind}, probe" for kind in ("colour", "frame", "motion")},
}
"""Titles of measures; others go by their own name."""


_SHORT = 4  # percent, below which an interval has decimals


def percent(share: float | None) -> str:
    """Return a share in percent, or nothing.

    Example:
        >>> percent(0.4567), percent(None)
        ('45.7', '')
    """
    return "" if share is None else f"{100 * share:.1f}"


def bracket(interval: Sequence[float] | None) -> str:
    """Return an interval of shares in percent, or nothing; a short one with a decimal.

    Example:
        >>> bracket((0.216, 0.486)), bracket((-0.03, 0.2)), bracket((0.634, 0.6481)), bracket(None)
        ('[22, 49]', '[-3, 20]', '[63.4, 64.8]', '')
    """
    if interval is None:
        return ""
    low, high = (100 * end for end in interval)
    places = 1 if 0 < high - low < _SHORT else 0
    return f"[{low:.{places}f}, {high:.{places}f}]"


@dataclass(frozen=True)
class Scalar:
    """A measure between 0 and 1, and what it is compared with.

    Attributes:
        name: key of the measure.
        value: of this network.
        chance: expected without any information.
        untrained: of the same network with random weights.
        published: in the paper.
        title: for a reader; by default that of :data:`TITLES`.
        interval: of the value, at 95 %.

    Example:
        >>> Scalar("top1", 0.5, chance=0.125).label
        'top-1'
    """

    name: str
    value: float
    _: KW_ONLY
    chance: float | None = None
    untrained: float | None = None
    published: float | None = None
    title: str = ""
    interval: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """The title."""
        return self.title or TITLES.get(self.name, self.name)


@dataclass(frozen=True)
class Link:
    """A cell of a table that leads to a file.

    Attributes:
        text: that is shown.
        target: relative to the page.

    Example:
        >>> str(Link("curves", "run/curves.html"))
        'curves'
    """

    text: str
    target: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: in the CSV file.
        title: on page and screen; the name by default.
        unit: ``"%"`` for shares, which are files' fractions and readers' percents.
        wide: left out on the screen, where it would not fit into 80 columns.
        strong: printed bold on the page.
    """

    name: str
    title: str = ""
    _: KW_ONLY
    unit: Literal["", "%"] = ""
    wide: bool = False
    strong: bool = False

    def text(self, value: Any) -> str:
        """Return a cell for a reader.

        Example:
            >>> Column("r1", unit="%").text(0.5), Column("lr").text(0.10), Column("n").text(None)
            ('50.0', '0.1', '')
        """
        if isinstance(value, float):
            return percent(value) if self.unit else f"{value:g}"
        return "" if value is None else str(value)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table on page and screen, and in a CSV file.

    Attributes:
        columns: their names, or more about them.
        rows: text, numbers, or ``None``; text may have several lines.
        title: heading.
        text: a sentence below it.
        file: name of the CSV file without its suffix; none by default. A table without rows is
            neither written nor shown.
        shown: ``"everywhere"``, on the ``"page"`` alone, or nowhere (``"file"``).
        lowest: column; the screen shows the ten rows with its lowest values.
        marks: of each row, ``"strong"``, ``"soft"``, ``"failed"`` or nothing.
    """

    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    text: str = ""
    file: str = ""
    shown: Literal["everywhere", "page", "file"] = "everywhere"
    lowest: str = ""
    marks: Sequence[str] = ()

    @cached_property
    def heads(self) -> list[Column]:
        """The columns."""
        return [Column(one) if isinstance(one, str) else one for one in self.columns]

    @cached_property
    def wordy(self) -> list[bool]:
        """Whether each column holds words, which are aligned to the left."""
        return [
            any(
                isinstance(row[i], str | Link) and any(map(str.isalpha, str(row[i])))
                for row in self.rows
            )
            for i in range(len(self.columns))
        ]


Content = Table | Figure | Gallery | Embedded


@dataclass(frozen=True, kw_only=True, eq=False)
class Result(Mapping[str, float]):
    """What a stage has measured; as a mapping, its numbers by name.

    Attributes:
        title: of the page.
        summary: what was found, in a sentence or two.
        scalars: measures next to chance.
        content: tables, figures and pictures, in order.
        notes: what a reader has to know of the numbers, a sentence each.
        provenance: where network and data come from, by name.
        provenance_title: heading above them.
        record: content of the JSON file; notes and package version are added.
        numbers: further numbers, such as ``"test/videos"``.
        file: name of the JSON file without its suffix; none by default.
        page: name of the HTML file; empty for none.
        parts: results that this one sums up, by name; the files of each are in a folder of its
            name.

    Example:
        >>> result = Result(
        ...     title="Retrieval", scalars=[Scalar("r1", 0.5, chance=0.125)],
        ...     numbers={"test/videos": 80},
        ... )
        >>> dict(result)
        {'r1': 0.5, 'chance/r1': 0.125, 'test/videos': 80}
    """

    title: str
    summary: str = ""
    scalars: Sequence[Scalar] = ()
    content: Sequence[Content] = ()
    notes: Sequence[str] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    provenance_title: str = "The features"
    record: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    file: str = ""
    page: str = "report.html"
    parts: Mapping[str, Result] = field(default_factory=dict)

    def _values(self) -> dict[str, float]:
        chance = {f"chance/{one.name}": one.chance for one in self.scalars}
        ends = [
            (f"{one.name}/{end}", value)
            for one in self.scalars
            if one.interval is not None
            for end, value in zip(("low", "high"), one.interval, strict=True)
        ]
        return {
            **{one.name: one.value for one in self.scalars},
            **dict(ends),
            **{name: value for name, value in chance.items() if value is not None},
            **self.numbers,
        }

    def __getitem__(self, name: str) -> float:
        return self._values()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())
