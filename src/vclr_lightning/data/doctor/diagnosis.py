"""Examine all videos of a manifest or folder: parallel, and resumable like every job."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.locks import locked
from vclr_lightning.data.doctor.examination import examine, thumbnails_of
from vclr_lightning.data.doctor.findings import all_findings
from vclr_lightning.data.doctor.near_duplicates import Alike, find_alike
from vclr_lightning.data.doctor.subject import Diagnosis, Subject
from vclr_lightning.data.indexing import ListingSource, index_videos
from vclr_lightning.data.jobs import (
    Answer,
    FileJournal,
    FileResult,
    LocalProcesses,
    Rejected,
    cores,
    read_rejects,
    rejects_file,
    run_job,
    stat_files,
)
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.prepare import Recipe
from vclr_lightning.data.prepare.prepared import ReadCost, read_cost
from vclr_lightning.data.prepare.transcode import transcode
from vclr_lightning.data.protocols import VideoError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORM = 1  # changes when an earlier version examined otherwise
_PER_PROCESS = 8  # files that justify starting one more process
_ENCODED = 3  # videos that are re-encoded to measure the gain
_MOST_PIXELS = 5e8  # of a video that is; it takes about half a minute


def diagnose(
    source: str | Path | Manifest,
    out: str | Path,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    fresh: bool = False,
    measure: bool = True,
    seed: int = 0,
    show: bool = True,
) -> Diagnosis:
    """Decode every video in part, and return what is wrong with the set.

    However it was interrupted, the same call continues; files that have not changed since an
    earlier one are not opened again.

    Args:
        source: a folder of videos, which is indexed first; a manifest's file, or a manifest.
        out: folder for the journal, and for the index of a folder.
        workers: processes; by default as many as there are cores to use.
        executor: indexes and examines the files, instead of processes on this machine.
        fresh: ignore earlier calls.
        measure: whether to re-encode up to three videos, to measure what that gains.
        seed: of the places that are drawn at random.
        show: whether to show progress.

    Raises:
        UserError: there are no videos, or they are in shards.
    """
    out, workers = Path(out).absolute(), workers or cores()
    manifest, rejected = _opened(
        source, out, workers=workers, executor=executor, fresh=fresh, show=show
    )
    frames = manifest.info.frames
    paths, first, file_of = np.unique(
        manifest.column("path").astype(str), return_index=True, return_inverse=True
    )
    with locked(out / "journal", show=show):
        files = stat_files(
            manifest.root, paths.tolist(), folders=frames is not None, workers=workers, show=show
        )
        results, examined = _examined(
            manifest, files, first, out, workers, executor, fresh=fresh, seed=seed, show=show
        )
    subject = Subject(
        manifest=manifest,
        results=results,
        file_of=file_of.astype(np.int64),
        alike=_alike(results, manifest.column("duration").astype(np.float64)[first]),
        rejected=rejected,
    )
    cost = _gain(subject, first, seed=seed, show=show) if measure and frames is None else None
    return Diagnosis(subject=subject, findings=all_findings(subject), examined=examined, cost=cost)


def _opened(
    source: str | Path | Manifest,
    out: Path,
    *,
    workers: int,
    executor: Executor | None,
    fresh: bool,
    show: bool,
) -> tuple[Manifest, Sequence[Rejected]]:
    """Return the manifest, made where a folder is given, and what it leaves out."""
    if not isinstance(source, Manifest):
        place = Path(source).expanduser()
        if not place.exists():
            raise UserError(f"{source} does not exist; give a folder of videos or a manifest")
        if place.is_dir():
            indexed = index_videos(
                ListingSource(root=place.absolute()).listing(show=show),
                root=place.absolute(),
                out=out / "manifest.arrow",
                workers=workers,
                executor=executor,
                fresh=fresh,
                source="folder",
                show=show,
            )
            return indexed.manifest, indexed.rejected
        source = Manifest.load(place)
    if source.info.shards:
        raise UserError(
            f"{source.file} lists videos in shards, which were checked when they were packed; give "
            "the manifest of their files"
        )
    return source, read_rejects(rejects_file(source.file))


def _examined(
    manifest: Manifest,
    files: Sequence[FileResult],
    first: NDArray[np.int64],
    out: Path,
    workers: int,
    executor: Executor | None,
    *,
    fresh: bool,
    seed: int,
    show: bool,
) -> tuple[list[FileResult], int]:
    """Return what was found in each file, and how many were opened for it."""
    root, frames = manifest.root, manifest.info.frames
    journal = FileJournal(
        out / "journal", {"form": _FORM, "root": str(root), "frames": frames, "seed": seed}
    )
    if fresh:
        journal.remove()
    before = journal.read()
    sizes, times = manifest.column("size")[first], manifest.column("mtime_ns")[first]
    alike = Counter(file.size for file in files)
    items = {
        str(root / file.path): (
            file,
            alike[file.size] > 1,  # others cannot be equal
            (file.size, file.mtime_ns) != (size, mtime_ns),
        )
        for file, size, mtime_ns in zip(files, sizes.tolist(), times.tolist(), strict=True)
    }

    def known(item: tuple[FileResult, bool, bool]) -> FileResult | None:
        now, hashed, _ = item
        if now.reason:
            return now
        found = before.get(now.path)
        if found is None or found.values is None or not found.unchanged(now):
            return None  # what failed is tried again
        return found if found.values["digest"] or not hashed or frames is not None else None

    def finish(item: tuple[FileResult, bool, bool], answer: Answer) -> FileResult:
        now = item[0]
        result = FileResult(
            now.path, now.size, now.mtime_ns, values=answer.values, reason=answer.reason
        )
        journal.add(result)
        return result

    with journal:
        return run_job(
            partial(examine, root=root, frames=frames, seed=seed),
            items,
            known=known,
            finish=finish,
            executor=executor,
            default=partial(LocalProcesses, workers, calls_per_process=_PER_PROCESS),
            title="examining videos",
            reads=lambda item: root / item[0].path,
            show=show,
        )


def _alike(results: Sequence[FileResult], seconds: NDArray[np.float64]) -> list[Alike]:
    """Return the files that show the same, by their positions in ``results``."""
    read = [i for i, result in enumerate(results) if result.values is not None]
    values: list[Any] = [results[i].values for i in read]
    groups = find_alike(thumbnails_of(values), [v["digest"] for v in values], seconds[read])
    return [Alike(tuple(read[k] for k in one.members), one.exact) for one in groups]


def _gain(
    subject: Subject, first: NDArray[np.int64], *, seed: int, show: bool
) -> tuple[ReadCost, float] | None:
    """Re-encode a few videos, and measure what reading them costs before and after."""
    manifest = subject.manifest
    pixels = manifest.column("width").astype(np.float64) * manifest.column("height")
    pixels = np.nan_to_num((pixels * manifest.column("num_frames"))[first], nan=np.inf)
    order = np.random.default_rng(seed).permutation(len(pixels))
    sound = [k for k in order if pixels[k] < _MOST_PIXELS and subject.results[k].values]
    pairs: list[tuple[Path, Path, int]] = []
    with tempfile.TemporaryDirectory(prefix="vclr-doctor-") as folder:
        for k in sound[:_ENCODED]:
            path = manifest.root / subject.results[k].path
            try:
                found = transcode(path, Path(folder, f"{k}.mp4"), Recipe())
            except VideoError:
                continue
            pairs.append((path, Path(folder, f"{k}.mp4"), found.num_frames))
        cost = read_cost(pairs, show=show) if pairs else None
        if cost is None:
            return None
        before = sum(source.stat().st_size for source, _, _ in pairs)
        after = sum(made.stat().st_size for _, made, _ in pairs)
    return cost, after / max(before, 1)
