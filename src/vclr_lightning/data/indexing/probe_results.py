"""Results of probing files, from this run and earlier ones, and the rows that they make."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.jobs import FileResult, Rejected, read_rejects, rejects_file
from vclr_lightning.data.manifest import Info, Manifest, Row
from vclr_lightning.data.manifest.manifest_file import read_manifest
from vclr_lightning.data.manifest.schema import PROBED, SCHEMA_VERSION, fingerprint

logger = logging.getLogger(__name__)


def earlier_results(
    file: Path, root: Path, *, frames: str | None, decode: bool, max_damaged: float
) -> dict[str, FileResult]:
    """Return the results of an earlier, finished run by path, if it had the same settings."""
    try:
        columns, info = read_manifest(file)
    except UserError as error:
        if file.exists():
            logger.warning("%s; the videos are indexed again", error)
        return {}
    made = info.root.absolute(), info.frames, info.decoded, info.max_damaged, info.schema
    if made != (root, frames, decode, max_damaged, SCHEMA_VERSION):
        return {}
    known = {
        r.path: FileResult(r.path, r.size, r.mtime_ns, r.ctime_ns, reason=r.reason)
        for r in read_rejects(rejects_file(file))
        if r.size >= 0
    }
    lists = (columns[name].to_pylist() for name in ("path", "size", "mtime_ns", *PROBED))
    for path, size, mtime_ns, *values in zip(*lists, strict=True):
        probed = dict(zip(PROBED, values, strict=True))
        known[path] = FileResult(path, size, mtime_ns, values=probed)
    return known


def still_valid(known: FileResult | None, now: FileResult) -> FileResult | None:
    """Return an earlier result if the file has not changed since."""
    if known is None or not known.unchanged(now):
        return None
    if known.reason and (now.ctime_ns < 0 or known.ctime_ns != now.ctime_ns):
        return None  # it may have been repaired, and given its old time again
    return known


def is_current(out: Path, rows: Sequence[Row], info: Info) -> bool:
    """Whether the manifest ``out`` already has these rows."""
    try:
        old = Manifest.load(out, check_root=False)
    except UserError:
        return False
    if old.info != replace(info, fingerprint=old.fingerprint):
        return False
    ordered = sorted(rows, key=lambda row: row.order)
    return fingerprint(ordered, info.classes) == old.fingerprint


def probed_rows(
    entries: Sequence[Row], results: Sequence[FileResult]
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
        fields = {name: getattr(entry, name) for name in Row.__slots__}
        found = {**result.values, "size": result.size, "mtime_ns": result.mtime_ns}
        rows.append(Row(**fields | found))
    return rows, outside
