"""A retrieval as tables: in the terminal, and as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vclr_lightning.core.files import replacing

if TYPE_CHECKING:
    from rich.table import Table

    from vclr_lightning.evaluation.confusions import Confusion
    from vclr_lightning.evaluation.retrieval_result import ClassRow, Retrieval


def recall_table(result: Retrieval) -> Table:
    """Return recall at each k beside chance, for the terminal."""
    from vclr_lightning.core.screen import PlainTable

    table = PlainTable(
        title=f"retrieval: {len(result)} test videos among {len(result.gallery_label)} training "
        "videos, %",
        title_justify="left",
        min_width=60,
    )
    table.add_column("")
    for k in result.ks:
        table.add_column(f"R@{k}", justify="right")
    table.add_row("found", *(percent(result.recall[k]) for k in result.ks))
    table.add_row("chance level", *(percent(result.chance[k]) for k in result.ks))
    return table


def class_table(result: Retrieval, classes: Sequence[str], *, most: int = 10) -> Table:
    """Return the classes that are found worst, for the terminal.

    Args:
        result: what was found.
        classes: their names.
        most: classes to show.
    """
    from vclr_lightning.core.screen import PlainTable

    rows = sorted(result.by_class(), key=lambda row: (row.recall[result.ks[0]], row.label))
    title = "classes, the hardest first"
    if len(rows) > most:
        title = f"the {most} hardest of {len(rows)} classes"
    head, *lines = class_rows(rows[:most], classes)
    table = PlainTable(title=title, title_justify="left")
    for number, cell in enumerate(head):
        table.add_column(cell, justify="left" if number in (0, len(head) - 1) else "right")
    for line in lines:
        table.add_row(*line)
    return table


def class_rows(rows: Sequence[ClassRow], classes: Sequence[str]) -> list[list[str]]:
    """Return a head and a row of text for each class."""
    ks = list(rows[0].recall)[:2]
    head = ["class", "test", "training", *(f"R@{k}" for k in ks), "most often predicted as"]
    return [
        head,
        *(
            [
                class_name(row.label, classes),
                str(row.queries),
                str(row.gallery),
                *(percent(row.recall[k]) for k in ks),
                _taken(row, classes),
            ]
            for row in rows
        ),
    ]


def confusion_rows(
    found: Sequence[Confusion], classes: Sequence[str], *, taken: str = "whose nearest is of"
) -> list[list[str]]:
    """Return a head and a row of text for each pair of classes.

    Args:
        found: the pairs.
        classes: names of the classes.
        taken: what stands over the second of a pair.
    """
    return [
        ["videos of", taken, "videos", "of the class"],
        *(
            [
                class_name(one.label, classes),
                class_name(one.predicted, classes),
                str(one.count),
                f"{percent(one.share)}%",
            ]
            for one in found
        ),
    ]


def write_queries(
    path: Path,
    result: Retrieval,
    *,
    classes: Sequence[str],
    queries: Sequence[str],
    gallery: Sequence[str],
    neighbours: int = 10,
) -> Path:
    """Write each query and its nearest videos, a line for each query.

    ``first_hit`` says how near the nearest video of its class is, so recall at any k is the share
    of lines where it is from 1 to k; 0: not among those that were looked at.

    Args:
        path: of the CSV.
        result: what was found.
        classes: names of the classes.
        queries: names of the queries' files, one each.
        gallery: names of the gallery's files, one each.
        neighbours: how many to list.

    Raises:
        UserError: the file cannot be written.
    """
    shown = min(neighbours, result.position.shape[1])
    head = ["query", "class", "first_hit"]
    for rank in range(1, shown + 1):
        head += [f"neighbour_{rank}", f"class_{rank}", f"similarity_{rank}"]
    names = [class_name(label, classes) for label in result.gallery_label.tolist()]

    def lines() -> Iterable[list[str]]:
        yield head
        for query, label, first, positions, values in zip(
            queries,
            result.query_label.tolist(),
            result.first_hit.tolist(),
            result.position[:, :shown].tolist(),
            result.similarity[:, :shown].tolist(),
            strict=True,
        ):
            line = [query, class_name(label, classes), str(first)]
            for position, value in zip(positions, values, strict=True):
                found = position >= 0
                line += [gallery[position], names[position]] if found else ["", ""]
                line.append(f"{value:.6f}" if found else "")
            yield line

    return _write(path, lines())


def write_classes(path: Path, result: Retrieval, classes: Sequence[str]) -> Path:
    """Write recall at each k of every class, a line each.

    Raises:
        UserError: the file cannot be written.
    """
    recalls = [f"r{k}" for k in result.ks]
    head = ["class", "test_videos", "training_videos", *recalls, "taken_for", "taken_for_share"]
    lines = [
        [
            class_name(row.label, classes),
            str(row.queries),
            str(row.gallery),
            *(f"{row.recall[k]:.6f}" for k in result.ks),
            class_name(row.predicted, classes) if row.predicted >= 0 else "",
            f"{row.predicted_share:.6f}",
        ]
        for row in result.by_class()
    ]
    return _write(path, [head, *lines])


def class_name(label: int, classes: Sequence[str]) -> str:
    """Return the name of a class, or its number where it has none.

    Example:
        >>> class_name(1, ["run", "walk"]), class_name(7, [])
        ('walk', 'class 7')
    """
    return classes[label] if label < len(classes) else f"class {label}"


def percent(share: float) -> str:
    """Return a share in percent.

    Example:
        >>> percent(0.4567)
        '45.7'
    """
    return f"{100 * share:.1f}"


def _taken(row: ClassRow, classes: Sequence[str]) -> str:
    if row.predicted < 0:
        return ""
    return f"{class_name(row.predicted, classes)} ({percent(row.predicted_share)}%)"


def _write(path: Path, lines: Iterable[list[str]]) -> Path:
    with replacing(path) as sink:
        text = io.TextIOWrapper(sink, encoding="utf-8", newline="")
        csv.writer(text, lineterminator="\n").writerows(lines)
        text.flush()
        text.detach()
    return path
