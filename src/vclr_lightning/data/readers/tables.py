"""Keep the packet tables of long videos, so that opening one again costs little."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.data.readers.index import GroupIndex
from vclr_lightning.data.readers.table import PacketTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.sources import VideoSource

_FORM = "1"  # changes when tables of an earlier version would not be made now
_LEAST = 4096  # packets; of a shorter video the table is read as fast as it is found
_MOST_FILES = 20_000  # of some tens of kilobytes each


class TableStore:
    """A folder of packet tables, by the identity of their files: place, size and time.

    A table only says where to look; every packet read by it is held against it, so one that is
    out of date costs time and changes no frame. A folder that cannot be written to stays as it is.

    Args:
        folder: where they are kept.
        least: packets of the shortest video whose table is.
        most: files in the folder; when there are as many, the tenth that is oldest goes.
    """

    def __init__(self, folder: Path, *, least: int = _LEAST, most: int = _MOST_FILES) -> None:
        self._folder = folder
        self._least = least
        self._most = most

    def load(self, source: VideoSource) -> GroupIndex | PacketTable | None:
        """Return what is known of a video, or ``None``."""
        file = self._file(source)
        if file is None:
            return None
        try:
            with np.load(file, allow_pickle=False) as kept:
                if "starts" in kept:
                    return GroupIndex(_summed(kept["times"]).tolist(), kept["starts"].tolist())
                stamped, intact = kept["whole"].tolist()
                return PacketTable(
                    pts=_summed(kept["pts"]),
                    size=kept["size"].astype(np.int64),
                    key=kept["key"],
                    kept=kept["kept"],
                    stamped=stamped,
                    intact=intact,
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def keep(self, source: VideoSource, table: GroupIndex | PacketTable) -> None:
        """Keep what was read of a video, if it is long."""
        file = self._file(source) if len(table) >= self._least else None
        if file is None:
            return
        # Differences, which are small, shrink to little.
        arrays: dict[str, Any]
        if isinstance(table, GroupIndex):
            arrays = {
                "times": np.diff(np.array(table.times, dtype=np.int64), prepend=0),
                "starts": np.array(table.starts, dtype=np.int64),
            }
        else:
            arrays = {
                "pts": np.diff(table.pts, prepend=0),
                "size": table.size,
                "key": table.key,
                "kept": table.kept,
                "whole": np.array([table.stamped, table.intact]),
            }
        try:
            self._make_room()
            with replacing(file) as sink:
                np.savez_compressed(sink, allow_pickle=False, **arrays)
        except (OSError, UserError):
            return

    def _make_room(self) -> None:
        if not self._folder.is_dir() or len(os.listdir(self._folder)) < self._most:
            return
        with os.scandir(self._folder) as entries:  # other processes may make room, too
            ages = sorted((e.stat().st_mtime, e.path) for e in entries if e.name.endswith(".npz"))
        for _, path in ages[: max(1, len(ages) // 10)]:
            Path(path).unlink(missing_ok=True)

    def _file(self, source: VideoSource) -> Path | None:
        try:
            identity = source.identity()
        except OSError:
            return None
        if identity is None:
            return None
        name = hashlib.sha256(f"{_FORM} {identity}".encode(errors="surrogateescape")).hexdigest()
        return self._folder / f"{name[:32]}.npz"


def _summed(differences: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(differences, dtype=np.int64)
