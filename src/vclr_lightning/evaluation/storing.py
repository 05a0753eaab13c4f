"""Write features: journals of what is encoded so far, and the whole that is made of them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.arrays import write_arrow
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import checksum, mapped_bytes
from vclr_lightning.core.reading import sealed, unsealed, write_record
from vclr_lightning.evaluation.features import FACTS
from vclr_lightning.evaluation.store import ABOUT, FEATURES, FORMAT, ROWS, FeatureStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.core.types import FramesBatch


@dataclass(frozen=True)
class Record:
    """Where a journal keeps the features of one batch of videos.

    Attributes:
        file: the journal's features, one after another.
        offset: of the batch, in bytes.
        width: F; 0 without a video.
        facts: of each video: ``rows`` of features, ``count`` of encoded frames, and
            :data:`~vclr_lightning.evaluation.features.FACTS`.
        rejected: videos that could not be read.
    """

    file: Path
    offset: int
    width: int
    facts: Mapping[str, list[int]]
    rejected: list[dict[str, Any]]

    def read(self) -> NDArray[np.float32]:
        """Return the features, ``(rows, F)``."""
        rows = sum(self.facts["rows"])
        if not rows:
            return np.zeros((0, self.width), dtype=np.float32)
        shape = (rows, self.width)
        return np.memmap(self.file, dtype=np.float32, mode="r", offset=self.offset, shape=shape)


class Journal:
    """What one process has encoded: features appended to a file, then a line that says so.

    A process that is killed leaves a journal that is right up to its last line.

    Args:
        folder: of all journals of one extraction.

    Raises:
        UserError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=folder, suffix=".bin")
        except OSError as error:
            raise UserError(f"cannot write into {folder}: {error.strerror}") from error
        self._features = os.fdopen(descriptor, "wb", buffering=0)
        self._lines = Path(name).with_suffix(".jsonl").open("w")

    def add(self, block: Sequence[int], batch: FramesBatch, features: Sequence[Tensor]) -> None:
        """Append a batch.

        Args:
            block: rows of the manifest that the batch was to hold.
            batch: what could be read of them.
            features: of each video, ``(m, F)`` or one row ``(1, F)``.

        Raises:
            UserError: the disk is full.
        """
        content = torch.cat(list(features)).float().cpu().numpy().tobytes() if features else b""
        facts = {name: batch[name].tolist() for name in FACTS}  # type: ignore[literal-required]
        line = {
            "block": list(block),
            "width": features[0].shape[1] if features else 0,
            "bytes": len(content),
            "crc": zlib.crc32(content),
            "facts": facts
            | {"rows": [len(f) for f in features], "count": batch["mask"].sum(dim=1).tolist()},
            "rejected": batch["rejected"],
        }
        try:
            self._features.write(content)
            self._lines.write(sealed(json.dumps(line)) + "\n")
            self._lines.flush()
        except OSError as error:
            raise UserError(f"cannot write {self._lines.name}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the files."""
        self._features.close()
        self._lines.close()


def read_journals(folder: Path) -> dict[tuple[int, ...], Record]:
    """Return what is encoded so far, by the rows of each batch; what is not whole is left out.

    Of a batch that was read again, what could be read of most videos.
    """
    records: dict[tuple[int, ...], Record] = {}
    for journal in sorted(folder.glob("*.jsonl")):
        file, offset = journal.with_suffix(".bin"), 0
        size = file.stat().st_size if file.is_file() else 0
        content = np.memmap(file, mode="r") if size else np.zeros(0, np.uint8)
        for line in journal.read_bytes().decode("ascii", "replace").splitlines():
            try:
                entry = unsealed(line, journal)
                end = offset + entry["bytes"]
                if end > size or zlib.crc32(content[offset:end].tobytes()) != entry["crc"]:
                    break
                block = tuple(entry["block"])
                record = Record(file, offset, entry["width"], entry["facts"], entry["rejected"])
                if block not in records or len(record.rejected) < len(records[block].rejected):
                    records[block] = record
            except (UserError, KeyError, TypeError):  # killed while it wrote this line, or damaged
                break
            offset = end
    return records


def read_store(folder: Path, blocks: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], Record]:
    """Return what a store holds of the batches all of whose videos could be read.

    Raises:
        UserError: it is damaged.
    """
    store = FeatureStore.open(folder, verify=False)
    facts = {name: getattr(store, name).tolist() for name in (*FACTS, "count")}
    shape, file = store.features.shape, folder / FEATURES
    facts["rows"] = facts["count"]
    if store.form != "ragged":
        facts["rows"] = [1 if store.form == "mean" else shape[1]] * len(store)
    size = np.dtype(np.float32).itemsize * shape[-1]
    header = file.stat().st_size - size * sum(facts["rows"])
    starts = np.cumsum([0, *facts["rows"]])
    position = {row: at for at, row in enumerate(facts["index"])}
    records = {}
    for block in blocks:
        if all(row in position for row in block):
            part = slice(position[block[0]], position[block[-1]] + 1)
            offset = header + size * int(starts[part.start])
            of_block = {name: values[part] for name, values in facts.items()}
            records[block] = Record(file, offset, shape[-1], of_block, [])
    return records


def aside(work: Path) -> Path:
    """Return where a store is for the moment in which another takes its place."""
    return work.with_suffix(".old")


def assemble(
    records: Sequence[Record],
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
    """Make a store of all records, in their order; it appears at ``target`` in one step.

    Args:
        records: of all batches.
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
    facts = {
        name: np.array([value for r in records for value in r.facts[name]], dtype=np.int64)
        for name in (*FACTS, "count")
    }
    rejected = [item for record in records for item in record.rejected]
    videos = len(facts["index"])
    if not videos:
        example = f"; the first, {rejected[0]['path']}: {rejected[0]['reason']}" if rejected else ""
        raise UserError(f"none of the {len(rejected)} videos can be read{example}")
    width = max(record.width for record in records)
    shape = {
        "mean": (videos, width),
        "frames": (videos, frames, width),
        "ragged": (int(facts["count"].sum()), width),
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
    try:
        _write_features(work / FEATURES, records, shape)
        _write_rows(work / ROWS, facts, names=names, paths=paths)
        about["checksum_of_features"] = checksum(mapped_bytes(work / FEATURES))
        write_record(work / ABOUT, about)
        for journal in (*work.glob("*.bin"), *work.glob("*.jsonl")):
            journal.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        if (target / ABOUT).is_file():
            os.rename(target, aside(work))
        os.rename(work, target)
        if aside(work).is_dir():
            for other in {p.name for p in aside(work).iterdir()} - {FEATURES, ROWS, ABOUT}:
                os.rename(aside(work) / other, target / other)
            shutil.rmtree(aside(work))
    except OSError as error:
        (work / FEATURES).unlink(missing_ok=True)
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error


def _write_features(file: Path, records: Sequence[Record], shape: tuple[int, ...]) -> None:
    """Copy the records' features to their places."""
    target = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    with file.open("r+b") as sink:  # a full disk is an error here, and a crash when pages are out
        os.posix_fallocate(sink.fileno(), 0, file.stat().st_size)
    start = 0
    for record in records:
        rows = record.read()
        if not len(rows):
            continue  # no video of the batch could be read
        if len(shape) == 3:
            rows = _filled(rows, record.facts["rows"], shape[1])
        target[start : start + len(rows)] = rows
        start += len(rows)
    target.flush()


def _filled(rows: NDArray[np.float32], counts: Sequence[int], frames: int) -> NDArray[np.float32]:
    """Repeat the last frame of each video of fewer frames: ``(rows, F)`` to ``(videos, n, F)``."""
    videos = np.split(rows, np.cumsum(counts)[:-1]) if counts else []
    filled = [v[np.minimum(np.arange(frames), len(v) - 1)] for v in videos]
    return np.stack(filled) if filled else np.zeros((0, frames, rows.shape[1]), np.float32)


def _write_rows(
    file: Path,
    facts: Mapping[str, NDArray[np.int64]],
    *,
    names: Sequence[str],
    paths: Sequence[str],
) -> None:
    import pyarrow as pa

    index = facts["index"].tolist()
    columns = {name: pa.array(values) for name, values in facts.items()}
    columns |= {
        "name": pa.array([names[i] for i in index], pa.string()),
        "path": pa.array([paths[i] for i in index], pa.string()),
    }
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    with file.open("wb") as sink:
        write_arrow(sink, batch)
