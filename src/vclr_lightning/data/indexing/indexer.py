"""Index videos into a manifest: look, probe what is new, write."""

from __future__ import annotations

import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import locked
from vclr_lightning.data.indexing.entries import Entry, Listing, Rejected
from vclr_lightning.data.indexing.journal import Journal, Outcome
from vclr_lightning.data.indexing.known import known_outcomes
from vclr_lightning.data.indexing.outcomes import cores, find_out, look_at
from vclr_lightning.data.indexing.rejects import reasons_of, rejects_file, write_rejects
from vclr_lightning.data.manifest import Info, Manifest, Row, Summary, summarise, write_manifest
from vclr_lightning.data.manifest.schema import SCHEMA_VERSION, fingerprint
from vclr_lightning.data.readers.sequential import MAX_DAMAGED, check_share


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """What an indexing run did.

    Attributes:
        manifest: the result.
        rejected: what could not be used, as listed in ``rejected_file``.
        rejected_file: where it is listed, which exists if there is any.
        probed: files that were opened; the others were known from an earlier run.
        others: files that are no videos by their name, by suffix.
        unlisted: videos in the folder that no list names.
        left_out: what is not wanted, counted by why.
    """

    manifest: Manifest
    rejected: Sequence[Rejected]
    rejected_file: Path
    probed: int
    others: Counter[str]
    unlisted: int
    left_out: Counter[str]

    @cached_property
    def summary(self) -> Summary:
        """What the manifest holds."""
        return summarise(self.manifest)

    def notices(self) -> list[str]:
        """Return a line on each kind of what was left out, and on classes not to be learned."""
        untrained = self.summary.untrained_notice()
        return [line for line in (self.notice(), self.left_out_notice(), untrained) if line]

    def notice(self) -> str:
        """Return one line on what was rejected: how many, why, where, and what remains."""
        if not self.rejected:
            return ""
        kept = ", ".join(f"{split} {n:,}" for split, n in self.summary.splits.items())
        return (
            f"{len(self.rejected):,} rejected, listed in {shlex.quote(str(self.rejected_file))}: "
            f"{reasons_of(self.rejected)}; there remain {kept}"
        )

    def left_out_notice(self) -> str:
        """Return one line on what was not wanted, by why."""
        some = "; ".join(f"{number:,} x {why}" for why, number in self.left_out.most_common())
        return f"left out: {some}" if some else ""


def index_videos(
    listing: Listing,
    *,
    root: Path,
    out: Path,
    frames: str | None = None,
    decode: bool = False,
    max_damaged: float = MAX_DAMAGED,
    workers: int | None = None,
    fresh: bool = False,
    source: str = "",
    show: bool = True,
) -> Indexed:
    """Probe the videos of ``listing`` and write the manifest ``out``.

    Files whose size and time are those of an earlier run, finished or not, are not probed again.

    Args:
        listing: the videos.
        root: the folder that their paths are relative to.
        out: the manifest's file; the rejected ones are listed beside it.
        frames: template of extracted frames, if the videos are folders of those.
        decode: decode every video to its end, to count its frames and find damage.
        max_damaged: see :func:`~vclr_lightning.data.readers.probe`.
        workers: processes; by default as many as there are cores to use.
        fresh: forget earlier runs.
        source: how the listing was made, to be kept in the manifest.
        show: whether to show progress.

    Raises:
        UserError: no video can be used, a file cannot be written, or ``max_damaged`` is not
            between 0 and 1.
    """
    check_share(max_damaged)
    root, out = root.absolute(), out.absolute()
    workers = workers or cores()
    settings: dict[str, Any] = {"decode": decode, "max_damaged": max_damaged, "frames": frames}
    key = {"schema": SCHEMA_VERSION, "root": str(root), **settings}
    journal = Journal(out.with_suffix(".journal"), key)
    with locked(out, show=show):
        if fresh:
            journal.remove()
        known = {} if fresh else known_outcomes(out, root=root, **settings)
        known.update(journal.read())
        paths = list(dict.fromkeys(entry.path for entry in listing.entries))
        folders = frames is not None
        seen = look_at(root, paths, folders=folders, workers=workers, show=show)
        outcomes, probed = find_out(
            root, seen, known=known, journal=journal, settings=settings, workers=workers, show=show
        )
        rows, outside = _rows(_one_source(root, listing.entries, outcomes), outcomes)
        split_of = {entry.path: entry.split for entry in listing.entries}
        rejected = [*listing.rejected, *_rejected(outcomes, split_of), *outside]
        write_rejects(rejects_file(out), rejected)
        if not rows:
            journal.remove()
            first = rejected[-1]
            raise UserError(
                f"none of {len(rejected):,} videos in {root} can be used, for example "
                f"{first.path}: {first.reason}; all reasons are in {rejects_file(out)}"
            )
        info = Info(
            root=root,
            classes=listing.classes,
            frames=frames,
            decoded=decode,
            max_damaged=max_damaged,
            source=source,
        )
        if probed or not _is_current(out, rows, info):
            write_manifest(out, rows, info)
        journal.remove()
    return Indexed(
        manifest=Manifest.load(out),
        rejected=rejected,
        rejected_file=rejects_file(out),
        probed=probed,
        others=listing.others,
        unlisted=listing.unlisted,
        left_out=listing.left_out,
    )


def _rejected(outcomes: Sequence[Outcome], split_of: Mapping[str, str]) -> list[Rejected]:
    return [
        Rejected(o.path, o.reason, o.size, o.mtime_ns, split_of[o.path], o.ctime_ns)
        for o in outcomes
        if o.reason
    ]


def _one_source(
    root: Path, entries: Sequence[Entry], outcomes: Sequence[Outcome]
) -> Sequence[Entry]:
    """Give videos that are one file, by links, one group, lest it is on two sides of a split."""
    alike: dict[tuple[int, int], list[str]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.values is not None:
            alike[outcome.size, outcome.mtime_ns].append(outcome.path)
    first: dict[tuple[int, int], str] = {}
    source: dict[str, str] = {}
    for path in sorted(path for paths in alike.values() if len(paths) > 1 for path in paths):
        with suppress(OSError):
            stat = os.stat(root / path)
            source[path] = first.setdefault((stat.st_dev, stat.st_ino), path)
    if len(first) == len(source):
        return entries
    return [e if e.group else replace(e, group=source.get(e.path, "")) for e in entries]


def _rows(
    entries: Sequence[Entry], outcomes: Sequence[Outcome]
) -> tuple[list[Row], list[Rejected]]:
    """Return a row for each entry of a usable file, and the clips that lie outside of theirs."""
    of_path = {outcome.path: outcome for outcome in outcomes}
    rows, outside = [], []
    for entry in entries:
        outcome = of_path[entry.path]
        if outcome.values is None:
            continue
        length = outcome.values.get("duration") or outcome.values.get("num_frames")
        if entry.start is not None and length is not None and entry.start >= length:
            reason = f"its clip begins at {entry.start:g}, and it ends at {length:g}"
            outside.append(Rejected(entry.path, reason, split=entry.split))
        else:
            rows.append(_row(entry, outcome, outcome.values))
    return rows, outside


def _row(entry: Entry, outcome: Outcome, values: Mapping[str, object]) -> Row:
    fields = {name: getattr(entry, name) for name in Entry.__slots__}
    return Row(**fields, **values, size=outcome.size, mtime_ns=outcome.mtime_ns)  # type: ignore[arg-type]


def _is_current(out: Path, rows: Sequence[Row], info: Info) -> bool:
    try:
        old = Manifest.load(out, check_root=False)
    except UserError:
        return False
    if old.info != replace(info, fingerprint=old.fingerprint):
        return False
    ordered = sorted(rows, key=lambda row: row.order)
    return fingerprint(ordered, info.classes) == old.fingerprint
