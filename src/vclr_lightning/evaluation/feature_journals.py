"""Features that are encoded so far: a journal per process, which survives a kill."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.reading import parse_with_checksum, with_checksum
from vclr_lightning.evaluation.features import VIDEO_COLUMNS
from vclr_lightning.evaluation.store import FEATURES, FeatureStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.core.types import FramesBatch


@dataclass(frozen=True)
class EncodedBatch:
    """Where the features of one batch of videos are stored.

    Attributes:
        file: features of batches, one after another.
        offset: of this batch, in bytes.
        width: F; 0 without a video.
        columns: of each video: ``rows`` of features, ``count`` of encoded frames, and
            :data:`~vclr_lightning.evaluation.features.VIDEO_COLUMNS`.
        rejected: videos that could not be read.
    """

    file: Path
    offset: int
    width: int
    columns: Mapping[str, list[int]]
    rejected: list[dict[str, Any]]

    def read(self) -> NDArray[np.float32]:
        """Return the features, ``(rows, F)``."""
        rows = sum(self.columns["rows"])
        if not rows:
            return np.zeros((0, self.width), dtype=np.float32)
        shape = (rows, self.width)
        return np.memmap(self.file, dtype=np.float32, mode="r", offset=self.offset, shape=shape)


Batches = dict[tuple[int, ...], EncodedBatch]
"""Encoded batches by the rows of the manifest that they were to contain."""


class FeatureJournal:
    """What one process has encoded: features appended to a file, then a line about them.

    After a kill, the journal is valid up to its last complete line.

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
            block: rows of the manifest that the batch was to contain.
            batch: the videos of these that could be read.
            features: of each video, ``(m, F)`` or one row ``(1, F)``.

        Raises:
            UserError: the disk is full.
        """
        content = torch.cat(list(features)).float().cpu().numpy().tobytes() if features else b""
        columns = {name: batch[name].tolist() for name in VIDEO_COLUMNS}  # type: ignore[literal-required]
        line = {
            "block": list(block),
            "width": features[0].shape[1] if features else 0,
            "bytes": len(content),
            "crc": zlib.crc32(content),
            "facts": columns
            | {"rows": [len(f) for f in features], "count": batch["mask"].sum(dim=1).tolist()},
            "rejected": batch["rejected"],
        }
        try:
            self._features.write(content)
            self._lines.write(with_checksum(json.dumps(line)) + "\n")
            self._lines.flush()
        except OSError as error:
            raise UserError(f"cannot write {self._lines.name}: {error.strerror}") from error

    def close(self) -> None:
        """Close the files."""
        self._features.close()
        self._lines.close()


def read_journals(folder: Path) -> Batches:
    """Return the batches encoded so far; incomplete and damaged entries are left out.

    Of a batch that was read again, the attempt with the fewest rejected videos counts.
    """
    batches: Batches = {}
    for journal in sorted(folder.glob("*.jsonl")):
        file, offset = journal.with_suffix(".bin"), 0
        size = file.stat().st_size if file.is_file() else 0
        content = np.memmap(file, mode="r") if size else np.zeros(0, np.uint8)
        for line in journal.read_bytes().decode("ascii", "replace").splitlines():
            try:
                entry = parse_with_checksum(line, journal)
                end = offset + entry["bytes"]
                if end > size or zlib.crc32(content[offset:end].tobytes()) != entry["crc"]:
                    break
                block = tuple(entry["block"])
                batch = EncodedBatch(
                    file, offset, entry["width"], entry["facts"], entry["rejected"]
                )
                if block not in batches or len(batch.rejected) < len(batches[block].rejected):
                    batches[block] = batch
            except (UserError, KeyError, TypeError):  # torn by a kill, or damaged
                break
            offset = end
    return batches


def read_store(folder: Path, blocks: Sequence[tuple[int, ...]]) -> Batches:
    """Return the batches of a store all of whose videos could be read.

    Raises:
        UserError: it is damaged.
    """
    store = FeatureStore.open(folder, verify=False)
    columns = {name: getattr(store, name).tolist() for name in (*VIDEO_COLUMNS, "count")}
    shape, file = store.features.shape, folder / FEATURES
    columns["rows"] = columns["count"]
    if store.form != "ragged":
        columns["rows"] = [1 if store.form == "mean" else shape[1]] * len(store)
    size = np.dtype(np.float32).itemsize * shape[-1]
    header = file.stat().st_size - size * sum(columns["rows"])
    starts = np.cumsum([0, *columns["rows"]])
    position = {row: at for at, row in enumerate(columns["index"])}
    batches: Batches = {}
    for block in blocks:
        if all(row in position for row in block):
            part = slice(position[block[0]], position[block[-1]] + 1)
            offset = header + size * int(starts[part.start])
            of_block = {name: values[part] for name, values in columns.items()}
            batches[block] = EncodedBatch(file, offset, shape[-1], of_block, [])
    return batches
