"""Prepare a data set: re-encode its files, write the manifest of the result, measure the gain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing.ensure import PREPARED
from vclr_lightning.data.jobs import (
    TIME_LIMIT,
    Answer,
    FileJournal,
    FileResult,
    LocalProcesses,
    Rejected,
    cores,
    rejects_file,
    run_job,
    stat_files,
    write_rejects,
)
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.manifest.schema import PROBED
from vclr_lightning.data.prepare.converting import converting
from vclr_lightning.data.prepare.prepared import Prepared, read_cost
from vclr_lightning.data.prepare.transcode import Recipe, transcode
from vclr_lightning.data.prepare.video_writer import remove_partial
from vclr_lightning.data.protocols import VideoError

_FORM = 2  # changes when files of an earlier version are no longer what would be made now
_LIMIT_PER_SECOND = 60.0  # seconds for each of the video; 4K takes about ten


def prepare(
    source: str | Path | Manifest,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    measure: bool = True,
    show: bool = True,
) -> Prepared:
    """Re-encode the videos of ``source`` into ``out`` and write ``out/manifest.arrow``.

    However it was interrupted, the same call continues. A source whose size and time have not
    changed is not encoded again; what failed is tried again. The source is only read.

    Args:
        source: a folder of videos, a manifest's file, or a manifest.
        out: a new folder, or one that the same call has begun.
        recipe: how to encode.
        workers: processes; by default as many as there are cores to use.
        executor: indexes a folder and re-encodes the files, instead of processes on this machine.
        measure: whether to measure the cost of reading before and after.
        show: whether to show progress.

    Raises:
        UserError: there is nothing to re-encode, all of it failed, or ``out`` cannot be used.
    """
    recipe = recipe or Recipe()
    out = Path(out).expanduser().absolute()
    workers = workers or cores()
    file = out / "manifest.arrow"
    with converting(
        source,
        out,
        asdict(recipe),
        mark=PREPARED,
        workers=workers,
        executor=executor,
        show=show,
    ) as (manifest, refused):
        results, earlier = _encode_all(
            manifest, out, recipe, workers=workers, executor=executor, show=show
        )
        failed = [Rejected(r.path, r.reason, r.size, r.mtime_ns) for r in results if r.reason]
        failed = [*refused, *failed]
        write_rejects(rejects_file(file), failed)
        values = {r.path: r.values for r in results if r.values is not None}
        rows = [_prepared(row, values[row.path]) for row in manifest.rows() if row.path in values]
        if not rows:
            raise UserError(
                f"none of {len(failed):,} videos in {manifest.root} could be re-encoded, for "
                f"example {failed[0].path}: {failed[0].reason}; all reasons are in "
                f"{rejects_file(file)}"
            )
        info = Info(
            root=out,
            classes=manifest.classes,
            decoded=True,
            source=f"{manifest.info.source}; prepared from {manifest.root}: {recipe.describe()}",
        )
        write_manifest(file, rows, info)
    pairs = [
        (manifest.root / path, out / found["file"], found["num_frames"])
        for path, found in values.items()
    ]
    return Prepared(
        manifest=Manifest.load(file),
        recipe=recipe,
        failed=failed,
        failed_file=rejects_file(file),
        earlier=earlier,
        made=[result for result in results if result.values is not None],
        cost=read_cost(pairs, show=show) if measure else None,
    )


def _encode_all(
    manifest: Manifest,
    out: Path,
    recipe: Recipe,
    *,
    workers: int,
    executor: Executor | None,
    show: bool,
) -> tuple[list[FileResult], int]:
    """Return the result of each file, and how many files an earlier run had done."""
    durations = np.nan_to_num(manifest.column("duration"))
    seconds = {manifest.relative_path(i): float(durations[i]) for i in range(len(manifest))}
    clashing = clashing_names(seconds)
    for folder in {(out / prepared_name(path, clashing)).parent for path in seconds}:
        remove_partial(folder)
    files = stat_files(manifest.root, list(seconds), folders=False, workers=workers, show=show)
    journal = FileJournal(out / PREPARED / "journal", {"form": _FORM})
    known = journal.read()

    def finish(now: FileResult, answer: Answer) -> FileResult:
        result = FileResult(
            now.path, now.size, now.mtime_ns, values=answer.values, reason=answer.reason
        )
        journal.add(result)
        return result

    def still_valid(now: FileResult) -> FileResult | None:
        before = known.get(now.path)
        if now.reason or before is None:
            return now if now.reason else None
        is_there = before.unchanged(now) and _is_there(before, out, clashing)
        return before if is_there else None

    with journal:
        try:
            results, encoded = run_job(
                partial(encode, root=manifest.root, out=out, clashing=clashing, recipe=recipe),
                {str(manifest.root / file.path): file for file in files},
                known=still_valid,
                finish=finish,
                executor=executor,
                default=partial(LocalProcesses, workers),
                title="re-encoding videos",
                reads=lambda file: manifest.root / file.path,
                writes=out / PREPARED,
                limit=lambda file: TIME_LIMIT + _LIMIT_PER_SECOND * seconds[file.path],
                show=show,
            )
        except UserError as error:
            if "the same command continues" in str(error):
                raise
            raise UserError(f"{error}; the same command continues from here") from error
    return results, sum(not file.reason for file in files) - encoded


def encode(
    file: FileResult, *, root: Path, out: Path, clashing: Collection[str], recipe: Recipe
) -> dict[str, Any]:
    """Re-encode one file.

    Args:
        file: the source, below ``root``.
        root: folder of the sources.
        out: folder of the result.
        clashing: see :func:`prepared_name`.
        recipe: how to encode.

    Returns:
        The new file's name, size and time, and what probing it found.

    Raises:
        VideoError: the file cannot be re-encoded.
        UserError: no file can.
    """
    source, within = root / file.path, out.resolve()
    name = prepared_name(file.path, clashing)
    target = out / name
    if source.resolve().is_relative_to(within):
        raise VideoError(f"it is a link to a file in {out}")
    if not target.parent.resolve().is_relative_to(within):
        raise UserError(f"{target.parent} is a link that leads out of {out}; remove it")
    found = asdict(transcode(source, target, recipe))
    stat = target.stat()
    return {**found, "file": name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _is_there(before: FileResult, out: Path, clashing: Collection[str]) -> bool:
    """Whether the result of an earlier run is still what it was."""
    values = before.values
    if values is None or values.get("file") != prepared_name(before.path, clashing):
        return False
    try:
        stat = (out / values["file"]).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (values.get("size"), values.get("mtime_ns"))


def _prepared(row: Row, found: Mapping[str, Any]) -> Row:
    """Return the row of the prepared file; re-encoding does not mend what is damaged."""
    probed = {name: found[name] for name in (*PROBED, "size", "mtime_ns") if name != "damaged"}
    return replace(row, path=found["file"], **probed)


def prepared_name(path: str, clashing: Collection[str] = ()) -> str:
    """Return the path of a prepared video, below the folder of the result.

    Args:
        path: of the source, below its root.
        clashing: what :func:`clashing_names` returns; these sources keep their suffix before the
            new one.

    Example:
        >>> prepared_name("run/a.avi"), prepared_name("run/a.avi", {"run/a.avi"})
        ('run/a.mp4', 'run/a.avi.mp4')
    """
    return f"{path}.mp4" if path in clashing else str(PurePosixPath(path).with_suffix(".mp4"))


def clashing_names(paths: Iterable[str]) -> set[str]:
    """Return the sources whose prepared names would be equal, also if case is ignored.

    Example:
        >>> sorted(clashing_names(["a.avi", "A.mp4", "b.avi"]))
        ['A.mp4', 'a.avi']
    """
    named = {path: prepared_name(path).casefold() for path in paths}
    times = Counter(named.values())
    return {path for path, name in named.items() if times[name] > 1}
