"""Cache the packet tables of long videos, which makes opening one again fast."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from pathlib import Path

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.data.readers.opening import ByteSource, FilePart, WholeFile
from vclr_lightning.data.readers.packets import GroupIndex, PacketTable

_FORM = "3"  # changes when tables of an earlier version would not be made now
_LEAST = 4096  # packets; the table of a shorter video is read as fast as it is found
_MOST_FILES = 20_000  # of some tens of kilobytes each
_MOST_PACKETS = 2_000_000  # nine hours at 60 frames a second
_MOST_BYTES = 64 * 2**20  # that these take in memory
_FRESH = 86_400.0  # seconds in which no table is removed for another
_DIGEST = 32  # bytes

_TABLE, _STAMPED, _INTACT = 1, 2, 4
_KEY, _KEPT = 1, 2


class TableStore:
    """A folder of packet tables, by path, size and modification time of the videos.

    Every packet read by a table is checked against it, so an outdated table costs time and changes
    no frame. A table that is damaged, or was written for another video, does not match its
    checksum and counts as absent. A folder that cannot be written to stays as it is.

    Args:
        folder: where the tables are.
        least: packets of the shortest video whose table is cached.
        most: files in the folder, roughly. When it is full, those of the oldest tenth that are
            older than a day are removed; if there are none, nothing is added.
    """

    def __init__(self, folder: Path, *, least: int = _LEAST, most: int = _MOST_FILES) -> None:
        self._folder = folder
        self._least = least
        self._most = most
        self._until_count = 0  # tables until the folder is listed again
        self._room = 0

    def load(self, source: ByteSource) -> GroupIndex | PacketTable | None:
        """Return what is cached of a video, or ``None``."""
        file = self._file(source)
        if file is None:
            return None
        try:
            with file.open("rb") as kept:
                content = kept.read(_MOST_BYTES)
            if content[:_DIGEST] != _digest(file, content[_DIGEST:]):
                return None
            return _unpacked(content[_DIGEST:])
        except (OSError, ValueError, zlib.error):
            return None

    def keep(self, source: ByteSource, table: GroupIndex | PacketTable) -> None:
        """Cache what was read of a video, if it is long."""
        file = self._file(source) if self._least <= len(table) <= _MOST_PACKETS else None
        try:
            if file is None or not self._has_room():
                return
            content = _packed(table)
            with replacing(file) as sink:
                sink.write(_digest(file, content) + content)
        except (OSError, UserError):
            return

    def _has_room(self) -> bool:
        if self._until_count == 0:
            self._until_count = max(1, self._most // 10)
            self._room = self._most - self._count()
        self._until_count -= 1
        self._room -= 1
        return self._room >= 0

    def _count(self) -> int:
        """Count the files, after removing old ones if there are too many."""
        names = os.listdir(self._folder) if self._folder.is_dir() else []
        if len(names) < self._most:
            return len(names)
        ages = sorted((os.stat(self._folder / name).st_mtime, name) for name in names)
        oldest = ages[: max(1, len(ages) // 10)]
        stale = [name for age, name in oldest if age < time.time() - _FRESH]
        for name in stale:  # other processes may remove them, too
            (self._folder / name).unlink(missing_ok=True)
        return len(names) - len(stale)

    def _file(self, source: ByteSource) -> Path | None:
        """Return the file for a video; ``None`` if it is in memory or does not exist."""
        if isinstance(source, WholeFile):
            path, part = source.path, ""
        elif isinstance(source, FilePart):
            path, part = source.file, f"{source.start} {source.size} "
        else:
            return None
        try:
            stat = path.stat()
        except OSError:
            return None
        identity = f"{_FORM} {part}{stat.st_size} {stat.st_mtime_ns} {path.absolute()}"
        name = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()
        return self._folder / f"{name[:32]}.table"


def _digest(file: Path, content: bytes) -> bytes:
    return hashlib.sha256(file.name.encode() + content).digest()


def _packed(table: GroupIndex | PacketTable) -> bytes:
    """Pack rows of integers as differences, which are small and compress well."""
    if isinstance(table, GroupIndex):
        kind, times = 0, np.array(table.times, dtype=np.int64)
        flags = np.zeros(len(times), dtype=np.int64)
        flags[table.starts] = _KEY
        rows = [flags]
    else:
        kind, times = _TABLE | _STAMPED * table.stamped | _INTACT * table.intact, table.pts
        rows = [_KEY * table.key + _KEPT * table.kept, np.diff(table.place, prepend=0)]
    numbers = np.concatenate([[kind], np.diff(times, prepend=0), *rows], dtype=np.int64)
    return zlib.compress(numbers.tobytes(), 1)


def _unpacked(content: bytes) -> GroupIndex | PacketTable | None:
    inflater = zlib.decompressobj()
    numbers = np.frombuffer(inflater.decompress(content, _MOST_BYTES), np.int64)
    if not inflater.eof or len(numbers) < 3:
        return None
    kind = int(numbers[0])
    times, flags, *steps = numbers[1:].reshape(2 + (kind & _TABLE), -1)
    stamps = np.cumsum(times, dtype=np.int64)
    key = flags & _KEY > 0
    if not steps:
        return GroupIndex(stamps.tolist(), np.flatnonzero(key).tolist())
    kept, stamped, intact = flags & _KEPT > 0, bool(kind & _STAMPED), bool(kind & _INTACT)
    place = np.cumsum(steps[0], dtype=np.int64)
    return PacketTable(pts=stamps, place=place, key=key, kept=kept, stamped=stamped, intact=intact)
