"""Store a data set in shards and write the manifest of the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import locked
from vclr_lightning.data.indexing.entries import Rejected
from vclr_lightning.data.indexing.journal import Outcome
from vclr_lightning.data.indexing.known import PROBED
from vclr_lightning.data.indexing.outcomes import cores, look_at
from vclr_lightning.data.indexing.rejects import rejects_file, write_rejects
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.manifest.shards import stored_path
from vclr_lightning.data.prepare.folder import claim_folder
from vclr_lightning.data.prepare.sources import videos_of
from vclr_lightning.data.shards.plan import plan_shards
from vclr_lightning.data.shards.result import Packed
from vclr_lightning.data.shards.work import write_shards

SHARD_SIZE = 256 * 2**20
"""Bytes of videos in a shard, by default."""


def pack(
    source: str | Path | Manifest,
    out: str | Path,
    *,
    shard_size: int = SHARD_SIZE,
    workers: int | None = None,
    show: bool = True,
) -> Packed:
    """Store the video files of ``source`` in shards in ``out``, and write ``out/manifest.arrow``.

    Files are copied byte by byte. Rows keep their order, ids, groups and labels, so that training
    from shards draws what it draws from the files. Stopped at any moment, the same call continues;
    shards whose videos have not changed are not written again.

    Args:
        source: a folder of videos, a manifest's file, or a manifest.
        out: a new folder, or one that the same call has begun.
        shard_size: bytes of videos in a shard; a larger video has one of its own.
        workers: processes for indexing a folder; by default as many as there are cores to use.
        show: whether to show progress.

    Raises:
        UserError: there is nothing to store, none of it can be read, or ``out`` cannot be used.
    """
    if shard_size < 1:
        raise UserError(f"a shard size of {shard_size} bytes must be at least 1")
    folder = Path(out).expanduser().absolute()
    file = folder / "manifest.arrow"
    workers = workers or cores()
    videos = videos_of(source)
    claim_folder(folder, videos.root, {"shard_size": shard_size}, mark=".shards")
    with locked(file, show=show):
        manifest, refused = videos.indexed(
            folder / ".shards" / "source.arrow", workers=workers, show=show
        )
        paths = list(dict.fromkeys(map(manifest.relative_path, range(len(manifest)))))
        seen = look_at(manifest.root, paths, folders=False, workers=workers, show=show)
        sizes = _sizes(manifest)
        seen = [_compared(now, sizes[now.path]) for now in seen]
        plans = plan_shards((now for now in seen if not now.reason), shard_size)
        written, earlier = write_shards(
            plans, root=manifest.root, out=folder, about=_about(manifest), show=show
        )
        failed = [*refused, *(Rejected(o.path, o.reason) for o in seen if o.reason)]
        places: dict[str, str] = {}
        bytes_before = 0
        for plan, shard in zip(plans, written, strict=True):
            failed += [Rejected(path, reason) for path, reason in shard.failed.items()]
            for now in plan.files:
                if now.path in shard.starts:
                    start = shard.starts[now.path]
                    places[now.path] = stored_path(plan.name, start, now.size, now.path)
                    bytes_before += now.size
        write_rejects(rejects_file(file), failed)
        if not places:
            raise UserError(
                f"none of {len(failed):,} videos in {manifest.root} could be stored, for example "
                f"{failed[0].path}: {failed[0].reason}"
            )
        info = Info(
            root=folder,
            classes=manifest.classes,
            decoded=manifest.info.decoded,
            source=f"{manifest.info.source}; stored in shards from {manifest.root}",
            shards=True,
        )
        write_manifest(file, _rows(manifest, places), info)
    return Packed(
        manifest=Manifest.load(file),
        shards=len(plans),
        files=len(places),
        bytes_before=bytes_before,
        bytes_after=sum(shard.size for shard in written),
        earlier=earlier,
        failed=failed,
        failed_file=rejects_file(file),
    )


def _sizes(manifest: Manifest) -> dict[str, int]:
    """Return the bytes of each file when it was indexed, 0 where that is not known."""
    column = manifest.column("size")
    return {manifest.relative_path(i): int(column[i]) for i in range(len(manifest))}


def _compared(now: Outcome, size: int) -> Outcome:
    if now.reason or not size or now.size == size:
        return now
    return Outcome(now.path, now.size, now.mtime_ns, reason="changed since it was indexed")


def _about(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return what the shards say of each file: where it was, and the rows that are of it."""
    about: dict[str, dict[str, Any]] = {}
    for row in _rows(manifest, None):
        said = about.setdefault(row.path, {"path": row.path, "rows": []})
        said["rows"].append(
            {
                "name": row.name,
                "group": row.group,
                "split": row.split,
                "label": row.label,
                "class": manifest.classes[row.label] if row.label >= 0 else None,
                "start": row.start,
                "end": row.end,
            }
        )
    return about


def _rows(manifest: Manifest, places: Mapping[str, str] | None) -> list[Row]:
    """Return the rows of ``manifest``, at their new places if there are any."""
    groups, splits = manifest.words("group"), manifest.words("split")
    codes = manifest.column("split")
    rows = []
    for i in range(len(manifest)):
        path = manifest.relative_path(i)
        if places is not None and path not in places:
            continue
        start, end = manifest.window(i) or (None, None)
        rows.append(
            Row(
                path=path if places is None else places[path],
                name=manifest.name(i),
                group=groups[manifest.group_id(i)],
                split=splits[codes[i]],
                label=manifest.label(i),
                start=start,
                end=end,
                spans=manifest.spans(i),
                **{name: manifest.value(name, i) for name in (*PROBED, "size", "mtime_ns")},
            )
        )
    return rows
