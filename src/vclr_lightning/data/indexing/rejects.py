"""The file that lists what could not be used."""

from __future__ import annotations

import csv
import io
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from vclr_lightning.core.files import replacing
from vclr_lightning.data.indexing.entries import Rejected

COLUMNS = ("path", "reason", "size", "mtime_ns", "split", "ctime_ns")
_REASONS = 3  # told in a line
_NAMED = 5  # files


def rejects_file(manifest: Path) -> Path:
    """Return where the rejected files of a manifest are listed.

    Example:
        >>> rejects_file(Path("k400.arrow")).name
        'k400.rejected.csv'
    """
    return manifest.with_suffix(".rejected.csv")


def failed_lines(failed: Sequence[Rejected], file: Path) -> list[str]:
    """Say how many files failed, why, where they are listed, and name the first ones.

    Example:
        >>> failed_lines([Rejected("a.mp4", "empty file")], Path("m.rejected.csv"))
        ['1 failed, listed in m.rejected.csv: 1 x empty file', '  a.mp4: empty file']
    """
    if not failed:
        return []
    more = len(failed) - _NAMED
    return [
        f"{len(failed):,} failed, listed in {shlex.quote(str(file))}: {reasons_of(failed)}",
        *(f"  {one.path}: {one.reason}" for one in failed[:_NAMED]),
        *([f"  and {more:,} more"] if more > 0 else []),
    ]


def reasons_of(rejected: Iterable[Rejected]) -> str:
    """Return the most frequent reasons, with their numbers.

    Example:
        >>> reasons_of([Rejected("a", "empty file"), Rejected("b", "empty file")])
        '2 x empty file'
        >>> reasons_of([Rejected(name, f"damaged at {name}") for name in "abcde"])
        '1 x damaged at a; 1 x damaged at b; 1 x damaged at c; 2 x others'
    """
    reasons = Counter(one.reason for one in rejected)
    told = [f"{number:,} x {reason}" for reason, number in reasons.most_common(_REASONS)]
    if others := sum(number for _, number in reasons.most_common()[_REASONS:]):
        told.append(f"{others:,} x others")
    return "; ".join(told)


def write_rejects(file: Path, rejected: Iterable[Rejected]) -> None:
    """Write the list, sorted by path; without any, see that there is no file.

    Raises:
        UserError: the file cannot be written.
    """
    ordered = sorted(rejected, key=lambda reject: (reject.path, reject.reason))
    if not ordered:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as sink:
        text = io.TextIOWrapper(sink, encoding="utf-8", errors="surrogateescape", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(r, name) for name in COLUMNS] for r in ordered)
        text.flush()
        text.detach()


def read_rejects(file: Path) -> list[Rejected]:
    """Return what :func:`write_rejects` wrote; nothing where there is no such file."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as source:
        reader = csv.DictReader(source)
        with suppress(csv.Error, TypeError, ValueError):  # damaged: to be found out again
            return _rejected(reader)
    return []


def _rejected(reader: csv.DictReader[str]) -> list[Rejected]:
    if tuple(reader.fieldnames or ()) not in (COLUMNS, COLUMNS[:-1], COLUMNS[:-2]):
        return []  # of an older form they have fewer columns
    return [
        Rejected(
            line["path"],
            line["reason"],
            int(line["size"]),
            int(line["mtime_ns"]),
            line.get("split") or "",
            int(line.get("ctime_ns") or -1),
        )
        for line in reader
    ]
