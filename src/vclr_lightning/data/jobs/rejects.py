"""Files that cannot be used, with the reasons, and the CSV file that lists them."""

from __future__ import annotations

import csv
import io
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from vclr_lightning.core.files import replacing

_REASONS = 3  # in a line
_NAMED = 5  # files


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that cannot be used, the reason, and its state when it was tried.

    Attributes:
        path: relative to the root; the name of a video that is not there.
        reason: in words.
        size: bytes; -1 where there is no file, or its state is unknown.
        mtime_ns: time of its last change, likewise.
        split: that it would belong to, where that is known.
        ctime_ns: time of the last change of content or rights, which no program can set back.
    """

    path: str
    reason: str
    size: int = -1
    mtime_ns: int = -1
    split: str = ""
    ctime_ns: int = -1

    @property
    def lost(self) -> bool:
        """Whether a video is missing because of it; one that is listed twice is not."""
        return not self.reason.startswith("listed again")


COLUMNS = tuple(field.name for field in fields(Rejected))


def rejects_file(manifest: Path) -> Path:
    """Return where the rejected files of a manifest are listed.

    Example:
        >>> rejects_file(Path("k400.arrow")).name
        'k400.rejected.csv'
    """
    return manifest.with_suffix(".rejected.csv")


def failure_lines(failed: Sequence[Rejected], file: Path) -> list[str]:
    """Return lines on how many files failed, why, where they are listed, and the first ones.

    Example:
        >>> failure_lines([Rejected("a.mp4", "empty file")], Path("m.rejected.csv"))
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
    counts = [f"{number:,} x {reason}" for reason, number in reasons.most_common(_REASONS)]
    if others := sum(number for _, number in reasons.most_common()[_REASONS:]):
        counts.append(f"{others:,} x others")
    return "; ".join(counts)


def write_rejects(file: Path, rejected: Iterable[Rejected]) -> None:
    """Write the list, sorted by path; without any, remove the file.

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
        with suppress(csv.Error, TypeError, ValueError):  # damaged: counts as missing
            return _rejected(reader)
    return []


def _rejected(reader: csv.DictReader[str]) -> list[Rejected]:
    if tuple(reader.fieldnames or ()) not in (COLUMNS, COLUMNS[:-1], COLUMNS[:-2]):
        return []  # earlier versions wrote fewer columns
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
