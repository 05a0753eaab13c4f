"""Prepare a data set: re-encode its files, write the manifest of the result, measure the gain."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import locked
from vclr_lightning.data.indexing.entries import Rejected
from vclr_lightning.data.indexing.journal import Outcome
from vclr_lightning.data.indexing.outcomes import cores
from vclr_lightning.data.indexing.rejects import rejects_file, write_rejects
from vclr_lightning.data.manifest import Info, Manifest, write_manifest
from vclr_lightning.data.prepare.folder import PreparedFolder
from vclr_lightning.data.prepare.names import clashing_names, prepared_name
from vclr_lightning.data.prepare.read_cost import read_cost
from vclr_lightning.data.prepare.recipe import Recipe
from vclr_lightning.data.prepare.result import Prepared
from vclr_lightning.data.prepare.rows import prepared_rows
from vclr_lightning.data.prepare.sources import videos_of
from vclr_lightning.data.prepare.work import encode_all


def prepare(
    source: str | Path | Manifest,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    workers: int | None = None,
    measure: bool = True,
    show: bool = True,
) -> Prepared:
    """Re-encode the videos of ``source`` into ``out`` and write ``out/manifest.arrow``.

    Stopped at any moment, by whatever, the same call continues. A source whose size and time have
    not changed is not encoded again; what failed is tried again. The source is only read.

    Args:
        source: a folder of videos, a manifest's file, or a manifest.
        out: a new folder, or one that the same call has begun.
        recipe: how to encode.
        workers: processes; by default as many as there are cores to use.
        measure: whether to measure what reading costs before and after.
        show: whether to show progress.

    Raises:
        UserError: there is nothing to re-encode, all of it failed, or ``out`` cannot be used.
    """
    recipe = recipe or Recipe()
    folder = PreparedFolder(Path(out).expanduser().absolute())
    workers = workers or cores()
    videos = videos_of(source)
    folder.claim(videos.root, recipe)
    with locked(folder.manifest, show=show):
        manifest, refused = videos.indexed(folder.source, workers=workers, show=show)
        paths = list(dict.fromkeys(map(manifest.relative_path, range(len(manifest)))))
        clashing = clashing_names(paths)
        folder.clean(prepared_name(path, clashing) for path in paths)
        outcomes, earlier = encode_all(
            paths,
            root=manifest.root,
            out=folder.out,
            recipe=recipe,
            journal=folder.journal(),
            seconds=_seconds(manifest),
            workers=workers,
            show=show,
        )
        failed = [*refused, *_failed(outcomes.values())]
        write_rejects(rejects_file(folder.manifest), failed)
        rows = prepared_rows(manifest, outcomes)
        if not rows:
            raise UserError(
                f"none of {len(failed):,} videos in {manifest.root} could be re-encoded, for "
                f"example {failed[0].path}: {failed[0].reason}; all reasons are in "
                f"{rejects_file(folder.manifest)}"
            )
        info = Info(
            root=folder.out,
            classes=manifest.classes,
            decoded=True,
            source=f"{manifest.info.source}; prepared from {manifest.root}: {recipe.describe()}",
        )
        write_manifest(folder.manifest, rows, info)
    made = [outcome for outcome in outcomes.values() if outcome.values is not None]
    pairs = [
        (manifest.root / o.path, folder.out / o.values["file"], o.values["num_frames"])
        for o in made
        if o.values is not None
    ]
    return Prepared(
        manifest=Manifest.load(folder.manifest),
        recipe=recipe,
        failed=failed,
        failed_file=rejects_file(folder.manifest),
        earlier=earlier,
        made=made,
        cost=read_cost(pairs, show=show) if measure else None,
    )


def _seconds(manifest: Manifest) -> dict[str, float]:
    durations = np.nan_to_num(manifest.column("duration"))
    return {manifest.relative_path(i): float(durations[i]) for i in range(len(manifest))}


def _failed(outcomes: Iterable[Outcome]) -> list[Rejected]:
    return [Rejected(o.path, o.reason, o.size, o.mtime_ns) for o in outcomes if o.reason]
