"""Rows of a manifest, of entries and what probing their files found."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vclr_lightning.data.indexing.listing import Entry
from vclr_lightning.data.jobs.journal import FileResult
from vclr_lightning.data.jobs.rejects import Rejected
from vclr_lightning.data.manifest import Row


def one_group_per_file(
    root: Path, entries: Sequence[Entry], results: Sequence[FileResult]
) -> Sequence[Entry]:
    """Give all names of a file, by links, one group, lest it is on two sides of a split."""
    alike: dict[tuple[int, int], list[str]] = defaultdict(list)
    for result in results:
        if result.values is not None:
            alike[result.size, result.mtime_ns].append(result.path)
    first: dict[tuple[int, int], str] = {}
    source: dict[str, str] = {}
    for path in sorted(path for paths in alike.values() if len(paths) > 1 for path in paths):
        with suppress(OSError):
            stat = os.stat(root / path)
            source[path] = first.setdefault((stat.st_dev, stat.st_ino), path)
    if len(first) == len(source):
        return entries
    return [e if e.group else replace(e, group=source.get(e.path, "")) for e in entries]


def rows_of(
    entries: Sequence[Entry], results: Sequence[FileResult]
) -> tuple[list[Row], list[Rejected]]:
    """Return a row for each entry of a usable file, and the clips that lie outside of theirs."""
    of_path = {result.path: result for result in results}
    rows, outside = [], []
    for entry in entries:
        result = of_path[entry.path]
        if result.values is None:
            continue
        length = result.values.get("duration") or result.values.get("num_frames")
        if entry.start is not None and length is not None and entry.start >= length:
            reason = f"its clip begins at {entry.start:g}, and it ends at {length:g}"
            outside.append(Rejected(entry.path, reason, split=entry.split))
            continue
        fields = {name: getattr(entry, name) for name in Entry.__slots__}
        rows.append(Row(**fields, **result.values, size=result.size, mtime_ns=result.mtime_ns))
    return rows, outside
