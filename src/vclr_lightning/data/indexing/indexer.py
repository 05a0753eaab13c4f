"""Index videos into a manifest: probe the files that are new or changed, and write."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import locked
from vclr_lightning.data.indexing.listing import Listing, one_group_per_file
from vclr_lightning.data.indexing.probe_results import (
    earlier_results,
    is_current,
    probed_rows,
    still_valid,
)
from vclr_lightning.data.jobs import (
    Answer,
    FileJournal,
    FileResult,
    LocalProcesses,
    Rejected,
    cores,
    reasons_of,
    rejects_file,
    run_job,
    stat_files,
    write_rejects,
)
from vclr_lightning.data.manifest import Info, Manifest, Summary, summarise, write_manifest
from vclr_lightning.data.manifest.schema import SCHEMA_VERSION
from vclr_lightning.data.readers import ImageFolderReader, probe
from vclr_lightning.data.readers.sequential import MAX_DAMAGED, check_share

logger = logging.getLogger(__name__)

_PER_PROCESS = 16  # files that justify starting one more process, or a message to a cluster


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """The result of an indexing run.

    Attributes:
        manifest: of the usable videos.
        rejected: what could not be used, as listed in ``rejected_file``.
        rejected_file: where it is listed, which exists if there is any.
        probed: files that were opened; the others were known from an earlier run.
        others: files whose names are not those of videos, by suffix.
        unlisted: videos in the folder that no list names.
        left_out: what was left out on purpose, counted by reason.
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
        """Counts of the manifest."""
        return summarise(self.manifest)

    def notices(self) -> list[str]:
        """Return a line on each kind of what was left out, and on classes missing in training."""
        lines = [self.summary.untrained_notice()]
        if self.left_out:
            some = "; ".join(f"{number:,} x {why}" for why, number in self.left_out.most_common())
            lines.insert(0, f"left out: {some}")
        if self.rejected:
            kept = ", ".join(f"{split} {n:,}" for split, n in self.summary.splits.items())
            lines.insert(
                0,
                f"{len(self.rejected):,} rejected, listed in "
                f"{shlex.quote(str(self.rejected_file))}: {reasons_of(self.rejected)}; "
                f"indexed: {kept}",
            )
        return [line for line in lines if line]


def index_videos(
    listing: Listing,
    *,
    root: Path,
    out: Path,
    frames: str | None = None,
    decode: bool = False,
    max_damaged: float = MAX_DAMAGED,
    workers: int | None = None,
    executor: Executor | None = None,
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
        executor: probes the files, instead of processes on this machine.
        fresh: ignore earlier runs.
        source: how the listing was made, to be stored in the manifest.
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
    journal = FileJournal(out.with_suffix(".journal"), key)

    def finish(now: FileResult, answer: Answer) -> FileResult:
        if answer.transient:  # so that the next run tries again
            now = FileResult(now.path, -1, -1)
        result = replace(now, values=answer.values, reason=answer.reason)
        journal.add(result)
        return result

    with locked(out, show=show):
        if fresh:
            journal.remove()
        known = {} if fresh else earlier_results(out, root, **settings)
        known.update(journal.read())
        paths = list(dict.fromkeys(entry.path for entry in listing.entries))
        folders = frames is not None
        files = stat_files(root, paths, folders=folders, workers=workers, show=show)
        with journal:
            results, probed = run_job(
                partial(probe_file, root=root, **settings),
                {str(root / file.path): file for file in files},
                known=lambda now: now if now.reason else still_valid(known.get(now.path), now),
                finish=finish,
                executor=executor,
                default=partial(LocalProcesses, workers, calls_per_process=_PER_PROCESS),
                title="probing videos",
                reads=lambda file: root / file.path,
                together=1 if decode else _PER_PROCESS,
                failures="rejected",
                show=show,
            )
        rows, outside = probed_rows(one_group_per_file(root, listing.entries, results), results)
        split_of = {entry.path: entry.split for entry in listing.entries}
        failed = [
            Rejected(r.path, r.reason, r.size, r.mtime_ns, split_of[r.path], r.ctime_ns)
            for r in results
            if r.reason
        ]
        rejected = [*listing.rejected, *failed, *outside]
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
        if probed or not is_current(out, rows, info):
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


def probe_file(
    file: FileResult, *, root: Path, decode: bool, max_damaged: float, frames: str | None
) -> dict[str, Any]:
    """Return the probed fields of a manifest's row for a video file or a folder of frames.

    Raises:
        VideoError: it cannot be used.
    """
    path = root / file.path
    if frames is None:
        return asdict(probe(path, decode=decode, max_damaged=max_damaged))
    with ImageFolderReader(template=frames).open(path) as video:
        height, width, _ = video.read([0])[0].shape
        return {
            "num_frames": video.num_frames,
            "exact": True,
            "width": width,
            "height": height,
            "codec": Path(frames).suffix.removeprefix("."),
            "keyframe_interval": 1,
        }
