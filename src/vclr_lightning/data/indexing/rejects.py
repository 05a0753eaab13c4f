"""The file that lists what could not be used."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from vclr_lightning.core.files import replacing
from vclr_lightning.data.indexing.entries import Rejected

COLUMNS = ("path", "reason", "size", "mtime_ns", "split")


def rejects_file(manifest: Path) -> Path:
    """Return where the rejected files of a manifest are listed.

    Example:
        >>> rejects_file(Path("k400.arrow")).name
        'k400.rejected.csv'
    """
    return manifest.with_suffix(".rejected.csv")


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
        if tuple(reader.fieldnames or ()) not in (COLUMNS, COLUMNS[:-1]):  # once without splits
            return []
        return [
            Rejected(
                line["path"],
                line["reason"],
                int(line["size"]),
                int(line["mtime_ns"]),
                line.get("split") or "",
            )
            for line in reader
        ]
