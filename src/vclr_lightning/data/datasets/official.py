"""What official annotation files list, and how they are found and read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_rows, read_text
from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.data.manifest.schema import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A video, or a clip inside of one, as an official file names it.

    Attributes:
        stems: file names without suffix that the video may have, preferred ones first.
        split: ``train``, ``val`` or ``test``, or another that the data set knows.
        label: position in the classes, -1 for none.
        folder: of its class; decides between several files of one name.
        name: the id of the video or clip; by default its file's stem.
        group: the source that it was cut from.
        start: where a clip begins, in seconds.
        end: where it ends.
        spans: annotated segments of the video.
        listed_by: name of the file that lists it, for the reason of a rejection.
    """

    stems: tuple[str, ...]
    split: str
    label: int = -1
    folder: str = ""
    name: str = ""
    group: str = ""
    start: float | None = None
    end: float | None = None
    spans: tuple[Span, ...] = ()
    listed_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Official:
    """The content of a data set's annotation files.

    Attributes:
        videos: in the order of the files.
        classes: names, in the order in which the data set numbers them.
        rejected: what is listed and cannot be used, whichever files exist.
        left_out: what is listed and not wanted, counted by reason.
        loose: whether file names may differ from the official ones in all characters but letters
            and digits, as on systems that do not allow these.
    """

    videos: Sequence[Named]
    classes: tuple[str, ...] = ()
    rejected: Sequence[Rejected] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    loose: bool = False


def find_file(folder: Path, *patterns: str) -> Path | None:
    """Return the file of ``folder`` that matches the earliest possible glob pattern, if any.

    Raises:
        UserError: several files match it.
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
    """Return what :func:`find_file` does, of the data set ``title``.

    Raises:
        UserError: no file matches.
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
    """Yield the stripped cells of ``columns`` of each line of a CSV file, with its number.

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
