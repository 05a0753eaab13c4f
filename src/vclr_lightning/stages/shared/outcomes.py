"""Outcomes of several evaluations in one table, next to published and untrained ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vclr_lightning.results import TITLES, Column, Embedded, Result, Table


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one evaluation, as in ``evaluation.json``.

    Attributes:
        name: in the suite.
        stage: what was done, such as ``"linear probe"``.
        dataset: on which videos.
        status: whether it was.
        reason: why not.
        values: shares from 0 to 1, by measure.
        videos: how many were used, by split.
        published: how many there are, by split, where that is known and not the same.
        chance: expected without any information, by measure.
        untrained: the same of a network with random weights.
        paper: published numbers in %, by measure.
        page: the stage's own page, relative to the evaluation's folder.
        notes: what a reader has to know of the numbers, a sentence each.
    """

    name: str
    stage: str
    dataset: str
    status: Literal["done", "not run", "failed"] = "done"
    reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    videos: Mapping[str, int] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    untrained: Mapping[str, float] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)
    page: str = ""
    notes: Sequence[str] = ()


def results_of(outcomes: Sequence[Outcome], checkpoint: str) -> Result:
    """Return one table of all outcomes next to chance, untrained and published numbers.

    Example:
        >>> outcome = Outcome(name="ucf101", stage="retrieval", dataset="UCF101", values={"r1": .5})
        >>> dict(results_of([outcome], "last.ckpt"))
        {'ucf101/r1': 0.5}
    """
    done = sum(one.status == "done" for one in outcomes)
    columns = {
        "values": Column("network", unit="%", strong=True),
        "chance": Column("chance", unit="%"),
        "untrained": Column("untrained", unit="%"),
        "paper": Column("paper", unit="%"),
    }
    columns = {k: v for k, v in columns.items() if any(getattr(one, k) for one in outcomes)}
    about: dict[str, list[str]] = {}
    for one in outcomes:
        for note in one.notes:
            about.setdefault(note, []).append(one.name)
    rows = [(one, row) for one in outcomes for row in _rows(one, list(columns))]
    table = Table(
        title="Evaluations",
        columns=["evaluation", "videos", "measure, %", *columns.values()],
        rows=[row for _, row in rows],
        marks=[{"not run": "soft", "failed": "failed"}.get(one.status, "") for one, _ in rows],
        text="Paper: what the authors published for a network pretrained on all of Kinetics-400."
        if "paper" in columns
        else "",
    )
    pages = [
        Embedded(title=f"{one.stage}, {one.dataset}", page=Path(one.page))
        for one in outcomes
        if one.page
    ]
    return Result(
        title="Evaluation",
        summary=f"{done} of {len(outcomes)} evaluations of {checkpoint}"
        + ("." if done == len(outcomes) else "; the table says why the others have no numbers."),
        notes=[f"{', '.join(names)}: {note}" for note, names in about.items()],
        content=[table, *pages],
        numbers={f"{one.name}/{key}": v for one in outcomes for key, v in one.values.items()},
        file="evaluation",
        record={"checkpoint": checkpoint, "evaluations": [asdict(one) for one in outcomes]},
        page="evaluation.html",
    )


def _rows(one: Outcome, columns: Sequence[str]) -> Iterator[list[Any]]:
    """Yield a row for each measure; one alone where there is none."""
    videos = [one.dataset]
    for split, number in one.videos.items():
        of = f" of {one.published[split]:,}" if split in one.published else ""
        videos.append(f"{split} {number:,}{of}")
    if one.reason:
        videos.append(one.reason if one.status == "done" else f"{one.status}: {one.reason}")
    measures = list(dict.fromkeys([*one.values, *one.paper]))
    measures = measures or ["pictures" if one.status == "done" else ""]
    rows = len(measures)  # a line about the videos in each, and the rest in the last
    about = [*videos[: rows - 1], "\n".join(videos[rows - 1 :]), *[""] * rows]
    for stage, line, measure in zip([one.stage, *[""] * rows], about, measures, strict=False):
        numbers = [getattr(one, column).get(measure) for column in columns]
        if measure in one.paper:
            numbers[-1] /= 100
        yield [stage, line, TITLES.get(measure, measure), *numbers]
