"""A result as files: its numbers as JSON, its tables as CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from vclr_lightning import __version__
from vclr_lightning.core.files import replacing
from vclr_lightning.results.value import Result, Table


def write_files(result: Result, directory: Path) -> None:
    """Write ``result.file`` and the file of every table that has one.

    Raises:
        UserError: a file cannot be written.
    """
    if result.file:
        content = {**result.record, "notes": list(result.notes), "version": __version__}
        with replacing(directory / f"{result.file}.json") as sink:
            sink.write(json.dumps(content, indent=1).encode())
    for table in result.content:
        if isinstance(table, Table) and table.file:
            write_table(table, directory / f"{table.file}.csv")


def write_table(table: Table, path: Path) -> None:
    """Write a table as CSV; one without rows leaves no file.

    Raises:
        UserError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from vclr_lightning.results import Column
        >>> file = Path(tempfile.mkdtemp()) / "classes.csv"
        >>> write_table(Table(columns=["class", Column("r1", unit="%")], rows=[["run", 0.5]]), file)
        >>> print(file.read_text().strip())
        class,r1
        run,0.500000
    """
    if not table.rows:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as sink:
        text = io.TextIOWrapper(sink, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(column.name for column in table.heads)
        for row in table.rows:
            writer.writerow(
                _cell(value, column.unit) for value, column in zip(row, table.heads, strict=True)
            )
        text.flush()
        text.detach()


def markdown(table: Table) -> str:
    """Return a table as Markdown, as a reader sees it.

    Example:
        >>> from vclr_lightning.results import Column
        >>> print(markdown(Table(columns=["arm", Column("r1", unit="%")], rows=[["a|b", 0.5]])))
        | arm | r1 |
        | --- | --- |
        | a\\|b | 50.0 |
    """
    rows = [[column.title or column.name for column in table.heads], ["---"] * len(table.heads)]
    rows += [[c.text(v) for c, v in zip(table.heads, row, strict=True)] for row in table.rows]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def _cell(value: Any, unit: str) -> Any:
    if isinstance(value, float):
        return f"{value:.6f}" if unit else f"{value:.6g}"
    return value
