"""Make a store of features from the batches of an extraction."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.core.arrays import write_arrow
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import checksum, mapped_bytes
from vclr_lightning.core.reading import write_record
from vclr_lightning.evaluation.feature_journals import EncodedBatch
from vclr_lightning.evaluation.features import VIDEO_COLUMNS
from vclr_lightning.evaluation.store import ABOUT, FEATURES, FORMAT, ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def replaced_store(work: Path) -> Path:
    """Return where a store is for the moment in which another takes its place."""
    return work.with_suffix(".old")


def assemble(
    batches: Sequence[EncodedBatch],
    *,
    work: Path,
    target: Path,
    form: str,
    frames: int,
    names: Sequence[str],
    paths: Sequence[str],
    classes: Sequence[str],
    provenance: Mapping[str, Any],
) -> None:
    """Make a store of all batches, in their order; it appears at ``target`` in one step.

    Args:
        batches: all of them.
        work: the journals' folder, which becomes ``target``.
        target: a folder that is not there yet, or empty, or a store to be replaced.
        form: see :class:`~vclr_lightning.evaluation.store.FeatureStore`.
        frames: n, of the form ``frames``.
        names: of all videos of the manifest.
        paths: likewise.
        classes: names of the classes.
        provenance: plain values.

    Raises:
        UserError: no video could be read, or the disk is full.
    """
    columns = {
        name: np.array([value for b in batches for value in b.columns[name]], dtype=np.int64)
        for name in (*VIDEO_COLUMNS, "count")
    }
    rejected = [item for batch in batches for item in batch.rejected]
    videos = len(columns["index"])
    if not videos:
        example = f"; the first, {rejected[0]['path']}: {rejected[0]['reason']}" if rejected else ""
        raise UserError(f"none of the {len(rejected)} videos can be read{example}")
    width = max(batch.width for batch in batches)
    shape = {
        "mean": (videos, width),
        "frames": (videos, frames, width),
        "ragged": (int(columns["count"].sum()), width),
    }[form]
    about = {
        "format": FORMAT,
        "form": form,
        "shape": shape,
        "videos": videos,
        "classes": list(classes),
        "rejected": rejected,
        "provenance": dict(provenance),
    }
    old = replaced_store(work)
    try:
        _write_features(work / FEATURES, batches, shape)
        _write_rows(work / ROWS, columns, names=names, paths=paths)
        about["checksum_of_features"] = checksum(mapped_bytes(work / FEATURES))
        write_record(work / ABOUT, about)
        for journal in (*work.glob("*.bin"), *work.glob("*.jsonl")):
            journal.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        if (target / ABOUT).is_file():
            os.rename(target, old)
        os.rename(work, target)
        if old.is_dir():
            for other in {p.name for p in old.iterdir()} - {FEATURES, ROWS, ABOUT}:
                os.rename(old / other, target / other)
            shutil.rmtree(old)
    except OSError as error:
        (work / FEATURES).unlink(missing_ok=True)
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error


def _write_features(file: Path, batches: Sequence[EncodedBatch], shape: tuple[int, ...]) -> None:
    form = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with file.open("wb") as sink:  # a full disk is an error here, and a crash on a mapped page
        np.lib.format.write_array_header_1_0(sink, form)
        for batch in batches:
            rows = batch.read()
            if not len(rows):
                continue  # no video of the batch could be read
            if len(shape) == 3:  # (rows, F) to (videos, n, F): the last frame is repeated
                videos = np.split(rows, np.cumsum(batch.columns["rows"])[:-1])
                frames = np.arange(shape[1])
                rows = np.stack([video[np.minimum(frames, len(video) - 1)] for video in videos])
            sink.write(np.ascontiguousarray(rows, "<f4").data)
        sink.flush()
        os.fsync(sink.fileno())


def _write_rows(
    file: Path,
    columns: Mapping[str, NDArray[np.int64]],
    *,
    names: Sequence[str],
    paths: Sequence[str],
) -> None:
    import pyarrow as pa

    index = columns["index"].tolist()
    columns = {name: pa.array(values) for name, values in columns.items()}
    columns["name"] = pa.array([names[i] for i in index], pa.string())
    columns["path"] = pa.array([paths[i] for i in index], pa.string())
    with file.open("wb") as sink:
        write_arrow(sink, pa.record_batch(list(columns.values()), names=list(columns)))
