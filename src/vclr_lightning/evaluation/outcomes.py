"""What evaluations came to, beside what was published and what untrained networks reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

Status = Literal["done", "not run", "failed"]

MEASURES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class": "mean class",
    "r1": "R@1",
    "r5": "R@5",
    "r10": "R@10",
    "r20": "R@20",
    "r50": "R@50",
    "ar1": "AR@1",
    "ar5": "AR@5",
    "ar10": "AR@10",
    "ar100": "AR@100",
    "auc": "AUC",
}
"""Titles of measures; others go by their own name."""


class Measured(dict[str, float]):
    """Numbers by name, and what a reader has to know of them.

    Attributes:
        notes: a sentence each.

    Example:
        >>> Measured({"r1": 0.5}, notes=["3 test videos cannot be read."]).notes
        ('3 test videos cannot be read.',)
    """

    def __init__(self, values: Mapping[str, float], *, notes: Iterable[str] = ()) -> None:
        super().__init__(values)
        self.notes = tuple(notes)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One evaluation on one data set.

    Attributes:
        name: in the suite.
        stage: what was done, such as ``"linear probe"``.
        dataset: on which videos.
        status: whether it was.
        reason: why not.
        values: shares from 0 to 1, by measure.
        videos: how many were used, by split.
        published: how many there are, by split, where that is known and not the same.
        chance: what no information reaches, by measure.
        untrained: the same of a network with random weights.
        paper: published numbers in %, by measure.
        page: the stage's own page, relative to the evaluation's folder.
        notes: what a reader has to know of the numbers, a sentence each.
    """

    name: str
    stage: str
    dataset: str
    status: Status = "done"
    reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    videos: Mapping[str, int] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    untrained: Mapping[str, float] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)
    page: str = ""
    notes: Sequence[str] = ()

    @property
    def counts(self) -> list[str]:
        """How many videos of each split were used, and of how many, where that is known.

        Example:
            >>> Outcome(name="a", stage="s", dataset="d", videos={"test": 18},
            ...         published={"test": 3783}).counts
            ['test: 18 of 3,783 videos']
        """
        return [
            f"{split}: {number:,}"
            + (f" of {self.published[split]:,}" if split in self.published else "")
            + " videos"
            for split, number in self.videos.items()
        ]

    @property
    def lines(self) -> list[Line]:
        """One line for each measure; one alone where there is none.

        Example:
            >>> outcome = Outcome(name="a", stage="retrieval", dataset="UCF101", values={"r1": 0.5})
            >>> [(line.measure, line.value, line.paper) for line in outcome.lines]
            [('R@1', '50.0', '')]
        """
        measures = list(dict.fromkeys([*self.values, *self.paper]))
        return [
            Line(
                measure=MEASURES.get(measure, measure),
                value=_percent(self.values.get(measure), 100),
                chance=_percent(self.chance.get(measure), 100),
                untrained=_percent(self.untrained.get(measure), 100),
                paper=_percent(self.paper.get(measure), 1),
            )
            for measure in measures or ["pictures" if self.status == "done" else ""]
        ]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Numbers of one measure, in % as text; empty where there is none."""

    measure: str
    value: str
    chance: str
    untrained: str
    paper: str


@dataclass(frozen=True)
class Outcomes:
    """What a suite came to.

    Attributes:
        rows: one for each evaluation, in the suite's order.
        checkpoint: what was evaluated.
    """

    rows: Sequence[Outcome]
    checkpoint: str

    @property
    def left_out(self) -> list[Outcome]:
        """Evaluations that were not run, or failed."""
        return [row for row in self.rows if row.status != "done"]

    @property
    def columns(self) -> list[str]:
        """Columns of numbers that hold any."""
        extra = ("chance", "untrained", "paper")
        return ["value", *(c for c in extra if any(getattr(row, c) for row in self.rows))]

    @property
    def remarks(self) -> list[str]:
        """All notes, each once, with the names of the evaluations that it is about.

        Example:
            >>> rows = [Outcome(name=n, stage="s", dataset="d", notes=["One."]) for n in "ab"]
            >>> Outcomes(rows, "last.ckpt").remarks
            ['a, b: One.']
        """
        about: dict[str, list[str]] = {}
        for row in self.rows:
            for sentence in row.notes:
                about.setdefault(sentence, []).append(row.name)
        return [f"{', '.join(names)}: {sentence}" for sentence, names in about.items()]

    def values(self) -> dict[str, float]:
        """Return every number as ``evaluation/measure``.

        Example:
            >>> row = Outcome(name="ucf101", stage="s", dataset="d", values={"r1": 0.5})
            >>> Outcomes([row], "last.ckpt").values()
            {'ucf101/r1': 0.5}
        """
        return {
            f"{row.name}/{measure}": value
            for row in self.rows
            for measure, value in row.values.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a JSON file."""
        return {"checkpoint": self.checkpoint, "evaluations": [asdict(row) for row in self.rows]}

    def table(self) -> Table:
        """Return a table for the terminal."""
        from vclr_lightning.core.screen import PlainTable

        table = PlainTable(title=f"{self.checkpoint}, %", title_justify="left")
        for title in ("evaluation", "videos", "measure"):
            table.add_column(title, overflow="fold")
        for column in self.columns:
            table.add_column(COLUMNS[column], justify="right")
        remarks = any(row.reason for row in self.rows)
        if remarks:
            table.add_column("", overflow="fold")
        for row in self.rows:
            for number, line in enumerate(row.lines):
                about = "\n".join([row.dataset, *row.counts])
                cells = [row.stage, about] if number == 0 else ["", ""]
                cells += [line.measure, *(getattr(line, column) for column in self.columns)]
                if remarks:
                    cells.append(remark(row) if number == 0 else "")
                table.add_row(*cells, end_section=number == len(row.lines) - 1)
        return table


COLUMNS = {"value": "this network", "chance": "chance", "untrained": "untrained", "paper": "paper"}


def remark(row: Outcome) -> str:
    """Say why an evaluation has no numbers.

    Example:
        >>> remark(Outcome(name="a", stage="s", dataset="d", status="failed", reason="no labels"))
        'failed: no labels'
    """
    return row.reason if row.status == "done" else f"{row.status}: {row.reason}"


def _percent(number: float | None, factor: float) -> str:
    return "" if number is None else f"{factor * number:.1f}"
