"""Store a data set in shards and write the manifest of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import clear_leftovers
from vclr_lightning.core.reading import read_record, write_record
from vclr_lightning.data.jobs import (
    TIME_LIMIT,
    Answer,
    Rejected,
    SerialExecutor,
    cores,
    failure_lines,
    rejects_file,
    run_job,
    stat_files,
    write_rejects,
)
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.manifest.shard_paths import stored_path
from vclr_lightning.data.prepare.converting import converting
from vclr_lightning.data.shards.shard_writer import Shard, fill_shards, write_shard

if TYPE_CHECKING:
    from rich.table import Table

SHARD_SIZE = 256 * 2**20
"""Bytes of videos in a shard, by default."""

_SLOWEST = 2**20  # bytes per second of a disk or network
_MARK = ".shards"  # subfolder of settings, the source's index, and a record of each shard


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A data set in shards.

    Attributes:
        manifest: of the result.
        shards: how many there are.
        files: videos in them.
        bytes_before: of these files.
        bytes_after: of the shards.
        earlier: shards that an earlier run had written.
        failed: what could not be stored, as listed in ``failed_file``.
        failed_file: where it is listed, which exists if there is any.
    """

    manifest: Manifest
    shards: int
    files: int
    bytes_before: int
    bytes_after: int
    earlier: int
    failed: Sequence[Rejected]
    failed_file: Path

    @property
    def done(self) -> int:
        """How many files are stored."""
        return self.files

    def table(self) -> Table:
        """Return the figures, for the terminal."""
        from vclr_lightning.core.screen import PlainTable

        table = PlainTable(title=f"shards in {self.manifest.root}", title_justify="left")
        for title in ("", "files", "bytes"):
            table.add_column(title, justify="right" if title else "left")
        table.add_row("videos", f"{self.files:,}", f"{self.bytes_before:,}")
        table.add_row("shards", f"{self.shards:,}", f"{self.bytes_after:,}")
        return table

    def notices(self) -> list[str]:
        """Return lines on what was done before, or failed."""
        lines = failure_lines(self.failed, self.failed_file)
        if self.earlier:
            lines.insert(
                0, f"written by an earlier run: {self.earlier:,} of {self.shards:,} shards"
            )
        return lines


def pack(
    source: str | Path | Manifest,
    out: str | Path,
    *,
    shard_size: int = SHARD_SIZE,
    workers: int | None = None,
    executor: Executor | None = None,
    show: bool = True,
) -> Packed:
    """Store the video files of ``source`` in shards in ``out``, and write ``out/manifest.arrow``.

    Files are copied byte by byte. Rows keep their order, ids, groups and labels, so that training
    from shards draws what it draws from the files. However it was interrupted, the same call
    continues; shards whose videos have not changed are not written again.

    Args:
        source: a folder of videos, a manifest's file, or a manifest.
        out: a new folder, or one that the same call has begun.
        shard_size: bytes of videos in a shard; a larger video has one of its own.
        workers: processes for indexing a folder; by default as many as there are cores to use.
        executor: indexes a folder and writes the shards; by default this process writes them, one
            after another.
        show: whether to show progress.

    Raises:
        UserError: there is nothing to store, none of it can be read, or ``out`` cannot be used.
    """
    if shard_size < 1:
        raise UserError(f"a shard size of {shard_size} bytes must be at least 1")
    out = Path(out).expanduser().absolute()
    workers = workers or cores()
    file = out / "manifest.arrow"
    settings = {"shard_size": shard_size}
    with converting(
        source, out, settings, mark=_MARK, workers=workers, executor=executor, show=show
    ) as (manifest, refused):
        rows = list(manifest.rows())
        sizes = {row.path: row.size for row in rows}
        files = [
            replace(now, reason=now.reason or "changed since it was indexed")
            if sizes[now.path] not in (0, now.size)
            else now
            for now in stat_files(
                manifest.root, list(sizes), folders=False, workers=workers, show=show
            )
        ]
        shards = fill_shards(
            [now for now in files if not now.reason], _about(rows, manifest.classes), shard_size
        )
        results, written = _write_all(shards, manifest.root, out, executor=executor, show=show)
        failed = [*refused, *(Rejected(now.path, now.reason) for now in files if now.reason)]
        places: dict[str, str] = {}
        for shard, values in zip(shards, results, strict=True):
            failed += [Rejected(path, reason) for path, reason in values["failed"].items()]
            for now in shard.files:
                if now.path in values["starts"]:
                    start = values["starts"][now.path]
                    places[now.path] = stored_path(shard.name, start, now.size, now.path)
        write_rejects(rejects_file(file), failed)
        if not places:
            raise UserError(
                f"none of {len(failed):,} videos in {manifest.root} could be stored, for example "
                f"{failed[0].path}: {failed[0].reason}"
            )
        info = Info(
            root=out,
            classes=manifest.classes,
            decoded=manifest.info.decoded,
            source=f"{manifest.info.source}; stored in shards from {manifest.root}",
            shards=True,
        )
        stored = [replace(row, path=places[row.path]) for row in rows if row.path in places]
        write_manifest(file, stored, info)
    return Packed(
        manifest=Manifest.load(file),
        shards=len(shards),
        files=len(places),
        bytes_before=sum(now.size for now in files if now.path in places),
        bytes_after=sum(values["size"] for values in results),
        earlier=len(shards) - written,
        failed=failed,
        failed_file=rejects_file(file),
    )


def _write_all(
    shards: Sequence[Shard], root: Path, out: Path, *, executor: Executor | None, show: bool
) -> tuple[list[Mapping[str, Any]], int]:
    """Write the shards that are not there yet; return the record of each, and how many are new."""
    for partial_file in out.glob(".*.tar.*"):  # left by killed runs
        partial_file.unlink(missing_ok=True)
    clear_leftovers(out / _MARK)

    def known(shard: Shard) -> Mapping[str, Any] | None:
        record = read_record(_record(out, shard.name)) or {}
        try:
            complete = (out / shard.name).stat().st_size == record.get("size")
        except OSError:
            complete = False
        if complete and record.get("digest") == shard.digest and not record.get("failed", True):
            return record
        (out / "manifest.arrow").unlink(missing_ok=True)  # its rows would lead into other videos
        return None

    def finish(shard: Shard, answer: Answer) -> Mapping[str, Any]:
        if answer.values is None:
            failed = dict.fromkeys((now.path for now in shard.files), answer.reason)
            return {"digest": shard.digest, "size": 0, "starts": {}, "failed": failed}
        write_record(_record(out, shard.name), answer.values)
        return answer.values

    results, written = run_job(
        partial(write_shard, root=root, out=out),
        {shard.name: shard for shard in shards},
        known=known,
        finish=finish,
        executor=executor,
        default=SerialExecutor,
        title="storing videos",
        reads=lambda shard: root / shard.files[0].path,
        writes=out / _MARK,
        limit=lambda shard: TIME_LIMIT + sum(now.size for now in shard.files) / _SLOWEST,
        size=lambda shard: len(shard.files),
        show=show,
    )
    names = {shard.name for shard in shards}
    for record in (out / _MARK).glob("*.tar.json"):  # of an earlier run's further shards
        if record.stem not in names:
            (out / "manifest.arrow").unlink(missing_ok=True)
            (out / record.stem).unlink(missing_ok=True)
            record.unlink(missing_ok=True)
    return results, written


def _record(out: Path, shard: str) -> Path:
    return out / _MARK / f"{shard}.json"


def _about(rows: Sequence[Row], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the shards contain about each file: its path, and the rows that refer to it."""
    about: dict[str, dict[str, Any]] = {}
    for row in rows:
        content: dict[str, Any] = {n: getattr(row, n) for n in ("name", "group", "split", "label")}
        content["class"] = classes[row.label] if row.label >= 0 else None
        content |= {"start": row.start, "end": row.end}
        about.setdefault(row.path, {"path": row.path, "rows": []})["rows"].append(content)
    return about
