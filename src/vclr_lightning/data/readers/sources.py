"""Where a video lies: a file, a part of a file, or memory."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol


class ByteSource(Protocol):
    """Where the bytes of a video are."""

    def target(self) -> str | IO[bytes]:
        """Return what FFmpeg opens: a file name, a URL or a stream."""
        ...

    def opened(self) -> IO[bytes]:
        """Return the bytes as a seekable file.

        Raises:
            OSError: it cannot be opened.
        """
        ...


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A video that is a file of its own."""

    path: Path

    def target(self) -> str:
        """Return the absolute path, in which FFmpeg sees no protocol before a colon."""
        return str(self.path.absolute())

    def opened(self) -> IO[bytes]:
        """Open the file."""
        return self.path.open("rb")


@dataclass(frozen=True, slots=True)
class FilePart:
    """A video that is ``size`` bytes of a file, such as a shard, from position ``start`` on.

    Example:
        >>> FilePart(Path("/data/000000.tar"), 512, 100).target()
        'subfile,,start,512,end,612,,:/data/000000.tar'
    """

    file: Path
    start: int
    size: int

    def target(self) -> str:
        """Return FFmpeg's URL of the part."""
        end = self.start + self.size
        return f"subfile,,start,{self.start},end,{end},,:{self.file.absolute()}"

    def opened(self) -> IO[bytes]:
        """Return the part as a file."""
        return io.BufferedReader(_PartOfFile(self))


@dataclass(frozen=True, slots=True)
class InMemory:
    """A video in memory."""

    content: bytes = field(repr=False)

    def target(self) -> IO[bytes]:
        """Return a stream at its beginning."""
        return io.BytesIO(self.content)

    opened = target


class _PartOfFile(io.RawIOBase):
    """The bytes of a part; closes the file with itself."""

    def __init__(self, part: FilePart) -> None:
        self._file = part.file.open("rb", buffering=0)
        self._start, self._end = part.start, part.start + part.size
        self._file.seek(part.start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = max(0, self._end - self._file.tell())
        return self._file.readinto(memoryview(buffer)[:left])

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = (self._start, self._file.tell(), self._end)[whence]
        return self._file.seek(max(self._start, origin + offset)) - self._start

    def close(self) -> None:
        self._file.close()
        super().close()


def as_source(source: str | Path | ByteSource) -> ByteSource:
    """Return a path as a source, and a source unchanged."""
    return WholeFile(Path(source)) if isinstance(source, str | Path) else source


def head(source: ByteSource, size: int) -> bytes:
    """Return the first bytes.

    Raises:
        OSError: they cannot be read.
    """
    with source.opened() as file:
        return file.read(size)
