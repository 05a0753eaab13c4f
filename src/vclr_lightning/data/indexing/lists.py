"""List files: one video a line, ``path [[frames] label]``."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import read_text
from vclr_lightning.data.indexing.listing import Listing, labels_of_names
from vclr_lightning.data.indexing.video_files import VIDEO_SUFFIXES, same_name
from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.data.manifest.schema import Row

_SUFFIX = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
_FILE = re.compile(rf"(?P<path>.*\.(?:{_SUFFIX}))(?:\s+(?P<rest>\S.*))?", re.IGNORECASE)
_FOLDER = re.compile(r"(?P<path>\S.*?)(?P<rest>(?:\s+-?\d+){0,2})")


@dataclass(frozen=True, slots=True)
class ListLine:
    """One line of a list file; the frame count is not relied upon."""

    path: str
    frames: int | None
    label: int | None


def parse_line(line: str) -> ListLine:
    """Read ``path``, ``path label`` or ``path frames label``.

    The path may contain spaces: it ends with its last video suffix, or at a tab, or else before the
    one or two numbers at the end of the line. A negative label counts as none.

    Raises:
        UserError: what follows the path is not one or two integers.

    Example:
        >>> parse_line("my videos/take 2.avi 120 7")
        ListLine(path='my videos/take 2.avi', frames=120, label=7)
    """
    line = line.strip()
    if "\t" in line:
        path, rest = line.split("\t", 1)
    else:
        match = _FILE.fullmatch(line) or _FOLDER.fullmatch(line)
        assert match is not None  # the folder form takes any line that is not blank
        path, rest = match["path"], match["rest"] or ""
    numbers = rest.split()
    if len(numbers) > 2 or not all(re.fullmatch(r"-?\d{1,4000}", number) for number in numbers):
        raise UserError(
            f"{rest.strip()!r} follows the path {path!r}; expected `path label` or "
            "`path frames label` with integers"
        )
    frames = int(numbers[0]) if len(numbers) == 2 else None
    label = int(numbers[-1]) if numbers and int(numbers[-1]) >= 0 else None
    return ListLine(path.strip(), frames, label)


def read_list(file: Path) -> list[tuple[int, ListLine]]:
    """Return the lines of a list file that are not blank, with their numbers.

    Raises:
        UserError: the file cannot be read, is empty, or has a line of another form.
    """
    lines = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            try:
                lines.append((number, parse_line(line)))
            except UserError as error:
                raise UserError(f"{file}, line {number}: {error}") from error
    if not lines:
        raise UserError(f"the list {file} names no videos")
    return lines


def listing_of_lists(
    lists: Mapping[str, Sequence[Path]], root: Path, *, with_classes: bool = True
) -> Listing:
    """Read list files; the videos need not exist.

    Args:
        lists: the files of each split.
        root: the folder that paths in the lists are relative to; absolute paths must lie in it.
        with_classes: whether labels are wanted.
    """
    first: dict[str, tuple[str, int | None]] = {}
    rejected = []
    for split, files in lists.items():
        for file in files:
            for number, line in read_list(file):
                path = _relative(line.path, root)
                if path is None:
                    reason = f"lies outside of {root}; give a folder above both as root"
                    rejected.append(Rejected(line.path, reason, split=split))
                elif path in first:
                    reason = f"listed again by {file}, line {number}; kept in {first[path][0]}"
                    rejected.append(Rejected(path, reason))
                else:
                    first[path] = (split, line.label)
    labels: Iterable[int] = [-1] * len(first)
    classes: tuple[str, ...] = ()
    if with_classes:
        folders = [same_name(os.path.basename(os.path.dirname(p))) or None for p in first]
        classes, labels = labels_of_numbers([label for _, label in first.values()], folders)
    entries = [
        Row(path=path, split=split, label=label)
        for (path, (split, _)), label in zip(first.items(), labels, strict=True)
    ]
    return Listing(entries=entries, classes=classes, rejected=rejected)


def labels_of_numbers(
    numbers: Sequence[int | None], folders: Sequence[str | None]
) -> tuple[tuple[str, ...], list[int]]:
    """Name the numbered classes of list files by their folders.

    If numbers and folders correspond one to one, classes take the folders' names, and a video
    without number in such a folder gets its class too (UCF101's test lists); otherwise the number
    is the name. Without any numbers, folders are the classes. Classes are in the order
    of the numbers.

    Example:
        >>> labels_of_numbers([1, 2, None], ["run", "walk", "run"])
        (('run', 'walk'), [0, 1, 0])
    """
    pairs = {(n, f) for n, f in zip(numbers, folders, strict=True) if n is not None}
    if not pairs:
        return labels_of_names(folders)
    known = sorted({number for number, _ in pairs})
    codes = {number: code for code, number in enumerate(known)}
    labels = [-1 if number is None else codes[number] for number in numbers]
    of_folder = {folder: number for number, folder in pairs}
    if None in of_folder or not len(pairs) == len(known) == len(of_folder):
        return tuple(map(str, known)), labels
    of_number = {number: str(folder) for number, folder in pairs}
    labels = [codes[of_folder[f]] if f in of_folder else -1 for f in folders]
    return tuple(of_number[number] for number in known), labels


def _relative(path: str, root: Path) -> str | None:
    normal = os.path.normpath(path)
    if os.path.isabs(normal):
        absolute = os.path.abspath(root)
        if not normal.startswith(absolute + os.sep):
            return None
        normal = os.path.relpath(normal, absolute)
    if normal == ".." or normal.startswith("../"):
        return None
    return normal if normal.isascii() else _on_disk(root, normal)


def _on_disk(root: Path, path: str) -> str:
    """Return a path in the spelling of its folders, which may store accents separately."""
    here = ""
    for part in path.split("/"):
        spelt = (part, same_name(part), unicodedata.normalize("NFD", part))
        here += "/" + next((p for p in spelt if os.path.lexists(f"{root}{here}/{p}")), part)
    return here[1:]
