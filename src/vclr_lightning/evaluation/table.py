"""Measures of frozen features by kind of features and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev
from typing import Any

from vclr_lightning.core.errors import UserError

MEASURES = {
    "r1": "R@1",
    "r1_ordered": "R@1, in order",
    "probe": "linear probe",
    "probe_ordered": "probe, in order",
}


@dataclass(frozen=True)
class FrozenRow:
    """One kind of features, measured once for each seed.

    Attributes:
        name: what they are, such as ``"VCLR"`` or ``"untrained"``.
        values: per measure of :data:`MEASURES`, one number for each seed.
        intervals: of their mean, at 95 % over groups of test videos: ``(low, high)``.
        ahead: how far the first row is ahead of this one, ``(difference, low, high)``.
    """

    name: str
    values: Mapping[str, tuple[float, ...]]
    intervals: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    ahead: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def text(self, measure: str) -> str:
        """Return a mean in percent, with the spread over seeds where there are several.

        Example:
            >>> FrozenRow("VCLR", {"r1": (0.5, 0.6)}).text("r1")
            '55.0 ± 7.1'
        """
        numbers = [100 * value for value in self.values.get(measure, ())]
        if not numbers:
            return ""
        spread = f" ± {stdev(numbers):.1f}" if len(numbers) > 1 else ""
        return f"{mean(numbers):.1f}{spread}"


@dataclass(frozen=True)
class FrozenTable:
    """Rows to compare; the last is chance.

    Attributes:
        rows: in the order they were given, then chance.
        train_videos: in the gallery, and what the probe is fitted to.
        test_videos: measured.
        segments: parts of a video whose features are compared in order.
        groups: of the test videos; 0: unknown.
    """

    rows: tuple[FrozenRow, ...]
    train_videos: int
    test_videos: int
    segments: int
    groups: int = 0

    def row(self, name: str) -> FrozenRow:
        """Return the row of this name."""
        return next(row for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a JSON file."""
        return {
            "train_videos": self.train_videos,
            "test_videos": self.test_videos,
            "segments": self.segments,
            "groups": self.groups,
            "rows": {row.name: _lists(row.values) for row in self.rows},
            "intervals": {row.name: _lists(row.intervals) for row in self.rows},
            "ahead": {row.name: _lists(row.ahead) for row in self.rows},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FrozenTable:
        """Return the table that :meth:`as_dict` was called of.

        Raises:
            UserError: these are no such values.

        Example:
            >>> table = FrozenTable((FrozenRow("chance", {"r1": (0.25,)}),), 80, 20, 3)
            >>> FrozenTable.from_dict(table.as_dict()) == table
            True
        """
        try:
            return cls(
                rows=tuple(
                    FrozenRow(
                        str(name),
                        _tuples(values),
                        _tuples(content.get("intervals", {}).get(name, {})),
                        _tuples(content.get("ahead", {}).get(name, {})),
                    )
                    for name, values in content["rows"].items()
                ),
                train_videos=int(content["train_videos"]),
                test_videos=int(content["test_videos"]),
                segments=int(content["segments"]),
                groups=int(content.get("groups", 0)),
            )
        except (KeyError, OverflowError, TypeError, ValueError, AttributeError) as error:
            raise UserError("these results hold no table of frozen features") from error


def _lists(values: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    return {measure: list(some) for measure, some in values.items()}


def _tuples(values: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    return {measure: tuple(map(float, some)) for measure, some in values.items()}


def merge_tables(tables: Sequence[FrozenTable]) -> FrozenTable:
    """Return one table of several runs that differ by their seed.

    A row holds the values of all runs, or one value where they are all the same (chance).

    Raises:
        UserError: the runs were not measured on as many videos, or by the same features.

    Example:
        >>> def run(r1: float) -> FrozenTable:
        ...     rows = FrozenRow("VCLR", {"r1": (r1,)}), FrozenRow("chance", {"r1": (0.25,)})
        ...     return FrozenTable(rows, 80, 20, 3)
        >>> [row.values["r1"] for row in merge_tables([run(0.5), run(0.75)]).rows]
        [(0.5, 0.75), (0.25,)]
    """
    first = tables[0]
    for table in tables[1:]:
        if [row.name for row in table.rows] != [row.name for row in first.rows] or (
            (table.train_videos, table.test_videos, table.segments)
            != (first.train_videos, first.test_videos, first.segments)
        ):
            raise UserError(
                "the runs compare different features, or were measured on different videos; give "
                "runs that differ by their seed alone"
            )
    rows = []
    for one in first.rows:
        of_runs = [table.row(one.name).values for table in tables]
        if all(values == one.values for values in of_runs):
            rows.append(replace(one, ahead={}))  # each run was ahead by its own
            continue
        rows.append(
            FrozenRow(
                one.name, {m: tuple(v for run in of_runs for v in run[m]) for m in one.values}
            )
        )
    return replace(first, rows=tuple(rows))
