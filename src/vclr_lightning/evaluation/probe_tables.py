"""A probe's result as tables: in the terminal, and as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.files import replacing
from vclr_lightning.evaluation.neighbour_tables import class_name, percent
from vclr_lightning.evaluation.outcomes import MEASURES

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from vclr_lightning.evaluation.cross_validation import Search
    from vclr_lightning.evaluation.probe_result import ClassResult, ProbeResult

TOP = 5  # scores of each video in predictions.csv


def accuracy_table(result: ProbeResult) -> Table:
    """Return the accuracies beside chance, for the terminal."""
    from vclr_lightning.core.screen import PlainTable

    table = PlainTable(
        title=f"{result.settings}: {len(result)} test videos, fitted to "
        f"{len(result.train_label)}, %",
        title_justify="left",
        min_width=60,
    )
    table.add_column("")
    for measure in result.accuracies:
        table.add_column(MEASURES[measure], justify="right")
    for name, values in (("right", result.accuracies), ("chance level", result.chance)):
        table.add_row(name, *(percent(value) for value in values.values()))
    return table


def search_table(search: Search) -> Table:
    """Return the settings that were compared, for the terminal."""
    head, *lines = search_rows(search)
    return _table(f"{search.name} by top-1 of held-out training videos, %", head, lines)


def search_rows(search: Search) -> list[list[str]]:
    """Return a head and a row of text for each setting; the chosen one is marked."""
    numbers = range(1, len(search.held_out) + 1)
    head = [search.name, "mean", *(f"fold {i}" for i in numbers), ""]
    return [
        head,
        *(
            [
                f"{one.value:g}",
                percent(one.mean),
                *(percent(share) for share in one.folds),
                "chosen" if one is search.best else "",
            ]
            for one in search.tried
        ),
    ]


def class_table(result: ProbeResult, classes: Sequence[str], *, most: int = 10) -> Table:
    """Return the classes that are told worst, for the terminal.

    Args:
        result: of the probe.
        classes: their names.
        most: classes to show.
    """
    rows = sorted(result.by_class(), key=lambda row: (row.right / row.videos, row.label))
    title = "classes, the hardest first"
    if len(rows) > most:
        title = f"the {most} hardest of {len(rows)} classes"
    head, *lines = class_rows(rows[:most], classes)
    return _table(title, head, lines)


def class_rows(rows: Iterable[ClassResult], classes: Sequence[str]) -> list[list[str]]:
    """Return a head and a row of text for each class."""
    head = ["class", "test", "training", "right", "most often predicted as"]
    return [
        head,
        *(
            [
                class_name(row.label, classes),
                str(row.videos),
                str(row.training),
                percent(row.right / row.videos),
                "" if row.predicted is None else class_name(row.predicted, classes),
            ]
            for row in rows
        ),
    ]


def write_predictions(
    path: Path, result: ProbeResult, *, paths: Sequence[str], classes: Sequence[str]
) -> None:
    """Write a line for each test video: its class, and the highest scores.

    Args:
        path: of the file.
        result: of the probe.
        paths: of the test videos.
        classes: names of the classes.

    Raises:
        UserError: the file cannot be written.
    """
    top = min(TOP, result.scores.shape[1])
    value, column = result.scores.topk(top, dim=1)
    names = result.columns[column].tolist()
    head = ["path", "label", "predicted", "right"]
    head += [f"{what}{i}" for i in range(1, top + 1) for what in ("class", "score")]
    lines = (
        [
            file,
            class_name(label, classes),
            class_name(best[0], classes),
            int(label == best[0]),
            *(
                cell
                for c, v in zip(best, scores, strict=True)
                # A class without any vote is no answer.
                for cell in ((class_name(c, classes), f"{v:.6g}") if isfinite(v) else ("", ""))
            ),
        ]
        for file, label, best, scores in zip(
            paths, result.label.tolist(), names, value.tolist(), strict=True
        )
    )
    _write(path, [head, *lines])


def write_confusion(path: Path, confusion: Tensor, classes: Sequence[str]) -> None:
    """Write how many videos of each class (row) are taken for each (column).

    Raises:
        UserError: the file cannot be written.
    """
    names = [class_name(label, classes) for label in range(len(confusion))]
    rows = zip(names, confusion.tolist(), strict=True)
    _write(path, [["class", *names], *([name, *row] for name, row in rows)])


def write_class_results(path: Path, result: ProbeResult, classes: Sequence[str]) -> None:
    """Write a line for each class of the test videos.

    Raises:
        UserError: the file cannot be written.
    """
    head = ["class", "videos", "training", "right", "taken_for"]
    lines = (
        [
            class_name(row.label, classes),
            row.videos,
            row.training,
            row.right,
            "" if row.predicted is None else class_name(row.predicted, classes),
        ]
        for row in result.by_class()
    )
    _write(path, [head, *lines])


def _write(path: Path, lines: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    with replacing(path) as sink:
        sink.write(text.getvalue().encode())


def _table(title: str, head: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    from vclr_lightning.core.screen import PlainTable

    table = PlainTable(title=title, title_justify="left")
    for number, cell in enumerate(head):
        text = number == 0 or cell in ("", "most often predicted as")
        table.add_column(cell, justify="left" if text else "right")
    for line in lines:
        table.add_row(*line)
    return table
