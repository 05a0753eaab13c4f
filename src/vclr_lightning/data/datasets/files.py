"""Find and read annotation files; a mistake in one is said with its file and line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_rows, read_text


def find_file(folder: Path, *patterns: str) -> Path | None:
    """Return the first file of ``folder`` that fits the earliest of the glob patterns.

    Raises:
        UserError: several files fit it.
    """
    for pattern in patterns:
        files = sorted(file for file in folder.glob(pattern) if file.is_file())
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise UserError(f"{folder} has several files {pattern}: {names}; keep one of them")
        if files:
            return files[0]
    return None


def need_file(folder: Path, *patterns: str, title: str) -> Path:
    """Return what :func:`find_file` does.

    Args:
        folder: of the annotation files.
        patterns: glob patterns.
        title: of the data set.

    Raises:
        UserError: no file fits.
    """
    file = find_file(folder, *patterns)
    if file is None:
        here = sorted(path.name for path in folder.iterdir())
        some = ", ".join(here[:4]) + (", ..." if len(here) > 4 else "")
        raise UserError(
            f"there is no {' or '.join(patterns)} among the annotations of {title} in {folder}, "
            f"which holds {some or 'nothing'}; give the folder of its official files"
        )
    return file


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, stripped, with their numbers.

    Raises:
        UserError: the file cannot be read or has no such line.
    """
    text = read_text(file)
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"{file} is empty")
    return lines


def read_table(
    file: Path, columns: Sequence[str], *, title: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of ``columns`` of each line of a CSV file, stripped, with its number.

    Raises:
        UserError: it cannot be read, lacks a column, or a line is too short.
    """
    rows = read_rows(file)
    header = [name.strip() for name in next(rows, (0, []))[1]]
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise UserError(f"{file} is no file of {title}: it lacks columns {', '.join(lacking)}")
    places = [header.index(name) for name in columns]
    for number, row in rows:
        if len(row) <= max(places):
            raise UserError(f"{file}, line {number}: expected {', '.join(columns)}")
        yield number, [row[place].strip() for place in places]
