"""Outcomes of several evaluations in one table, next to published and untrained ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vclr_lightning.results import TITLES, Column, Embedded, Result, Table, bracket
from vclr_lightning.stages.shared.verdicts import Difference, Interval, verdicts

KINETICS = "all of Kinetics-400"


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
        interval: 95 % interval of each over groups, ``(low, high)``.
        videos: how many were used, by split.
        groups: how many groups (sources) they are of, by split.
        published: how many videos there are, by split, where that is known and not the same.
        chance: expected without any information, by measure.
        untrained: the same of a network with random weights.
        difference: the value minus that, and its paired interval: ``(difference, low, high)``.
        paper: published numbers in %, by measure.
        pretrained: on what the published network was.
        page: the stage's own page, relative to the evaluation's folder.
        notes: what a reader has to know of the numbers, a sentence each.
    """

    name: str
    stage: str
    dataset: str
    status: Literal["done", "not run", "failed"] = "done"
    reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    interval: Mapping[str, Interval] = field(default_factory=dict)
    videos: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    untrained: Mapping[str, float] = field(default_factory=dict)
    difference: Mapping[str, Difference] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)
    pretrained: str = KINETICS
    page: str = ""
    notes: Sequence[str] = ()

    @property
    def numbers(self) -> dict[str, float]:
        """All numbers by name: measures, ends of intervals, differences."""
        found = {f"{self.name}/{measure}": value for measure, value in self.values.items()}
        for measure, (low, high) in self.interval.items():
            found |= {f"{self.name}/{measure}/low": low, f"{self.name}/{measure}/high": high}
        for measure, (value, _, _) in self.difference.items():
            found[f"{self.name}/{measure}/difference"] = value
        return found


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
        "chance": Column("chance", unit="%", wide=any(one.difference for one in outcomes)),
        "untrained": Column("untrained", unit="%"),
        "difference": Column("gain"),
        "paper": Column("paper", unit="%"),
    }
    columns = {k: v for k, v in columns.items() if any(getattr(one, k) for one in outcomes)}
    about: dict[str, list[str]] = {}
    for one in outcomes:
        for note in one.notes:
            about.setdefault(note, []).append(one.name)
    rows = [(one, row) for one in outcomes for row in _rows(one, list(columns))]
    found = verdicts(outcomes)
    table = Table(
        title="Evaluations",
        columns=["evaluation", "%", *columns.values()],
        rows=[row for _, row in rows],
        marks=[{"not run": "soft", "failed": "failed"}.get(one.status, "") for one, _ in rows],
        text=_explained(outcomes),
    )
    pages = [
        Embedded(title=f"{one.stage}, {one.dataset}", page=Path(one.page))
        for one in outcomes
        if one.page
    ]
    summary = [
        f"{done} of {len(outcomes)} evaluations of {checkpoint}"
        + ("." if done == len(outcomes) else "; the table says why the others have no numbers."),
        *found,
    ]
    return Result(
        title="Evaluation",
        summary=" ".join(summary),
        notes=[f"{', '.join(names)}: {note}" for note, names in about.items()],
        content=[table, *pages],
        numbers={name: value for one in outcomes for name, value in one.numbers.items()},
        file="evaluation",
        record={
            "checkpoint": checkpoint,
            "found": found,
            "evaluations": [asdict(one) for one in outcomes],
        },
        page="evaluation.html",
    )


def _explained(outcomes: Sequence[Outcome]) -> str:
    """Say what intervals, differences and published numbers are, where there are any."""
    found = []
    if any(one.interval for one in outcomes):
        found.append(
            "In brackets: intervals at 95% from a bootstrap over groups, which are the sources "
            "that videos were cut from; where none is known, a video is a group of its own."
        )
    if any(one.difference for one in outcomes):
        found.append(
            "Gain: network minus untrained network on the same videos, in points; where its "
            "interval holds 0, no difference is measured."
        )
    if any(one.paper for one in outcomes):
        on = dict.fromkeys(one.pretrained for one in outcomes if one.paper)
        found.append(
            f"Paper: what the authors published for a network pretrained on {' or '.join(on)}."
        )
    return " ".join(found)


def _rows(one: Outcome, columns: Sequence[str]) -> Iterator[list[Any]]:
    """Yield a row for each measure; one alone where there is none."""
    about = [one.stage, one.dataset]
    for split, number in one.videos.items():
        of = f" of {one.published[split]:,}" if one.published.get(split, number) != number else ""
        groups = one.groups.get(split, number)
        about.append(f"{split} {number:,}{of}")
        about += [f"  in {groups:,} groups"] if groups < number else []
    if one.reason:
        about.append(one.reason if one.status == "done" else f"{one.status}: {one.reason}")
    measures = list(dict.fromkeys([*one.values, *one.paper]))
    measures = measures or ["pictures" if one.status == "done" else ""]
    lines = 2 if one.interval or one.difference else 1  # of a row
    for row, measure in enumerate(measures):
        last = row == len(measures) - 1
        words = about[row * lines :] if last else about[row * lines : (row + 1) * lines]
        yield [
            "\n".join(words),
            TITLES.get(measure, measure),
            *(_cell(one, column, measure) for column in columns),
        ]


def _cell(one: Outcome, column: str, measure: str) -> Any:
    """Return a number, or with its interval in a second line."""
    value = getattr(one, column).get(measure)
    if column == "values" and measure in one.interval:
        return f"{100 * value:.1f}\n{bracket(one.interval[measure])}"
    if column == "difference" and value is not None:
        return f"{100 * value[0]:+z.1f}\n{bracket(value[1:])}"
    return value / 100 if column == "paper" and value is not None else value
