"""What a video is read from: a file, a stretch of one, or bytes in memory."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol


class VideoSource(Protocol):
    """A video that need not be a file of its own."""

    def target(self) -> str | IO[bytes]:
        """Return what FFmpeg opens: its name for the place, or a stream."""
        ...

    def opened(self) -> IO[bytes]:
        """Return its bytes, as a file that can be sought in.

        Raises:
            OSError: it cannot be opened.
        """
        ...

    def identity(self) -> str | None:
        """Return what changes with the video's place, size and time, ``None`` for bytes in memory.

        Raises:
            OSError: it is not there.
        """
        ...


@dataclass(frozen=True, slots=True)
class FilePart:
    """A stretch of a file, of which no more is read than is needed.

    Attributes:
        file: the file, such as a shard.
        start: position of the first byte.
        size: bytes.

    Example:
        >>> FilePart(Path("/data/000000.tar"), 512, 100).target()
        'subfile,,start,512,end,612,,:/data/000000.tar'
    """

    file: Path
    start: int
    size: int

    def target(self) -> str:
        """Return FFmpeg's name for the stretch."""
        end = self.start + self.size
        return f"subfile,,start,{self.start},end,{end},,:{self.file.absolute()}"

    def opened(self) -> IO[bytes]:
        """Return the stretch as a file."""
        file = self.file.open("rb", buffering=0)
        return io.BufferedReader(_Stretch(file, self.start, self.size))

    def identity(self) -> str:
        """Return the stretch, and size and time of the file."""
        return f"{self.start} {self.size} {_identity(self.file)}"


@dataclass(frozen=True, slots=True)
class Content:
    """A video in memory.

    Attributes:
        content: all of its bytes.
    """

    content: bytes = field(repr=False)

    def target(self) -> IO[bytes]:
        """Return a stream at its beginning."""
        return io.BytesIO(self.content)

    opened = target

    def identity(self) -> None:
        """Return none: only what lies in a file is found again."""
        return


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A file.

    Attributes:
        path: where it is.
    """

    path: Path

    def target(self) -> str:
        """Return the path; absolute, lest a colon in a name be taken for a protocol."""
        return str(self.path.absolute())

    def opened(self) -> IO[bytes]:
        """Open the file."""
        return self.path.open("rb")

    def identity(self) -> str:
        """Return path, size and time of the file."""
        return _identity(self.path)


def as_source(source: str | Path | VideoSource) -> VideoSource:
    """Return a path as a source, and a source as it is."""
    return WholeFile(Path(source)) if isinstance(source, str | Path) else source


def head(source: VideoSource, size: int) -> bytes:
    """Return the first bytes.

    Raises:
        OSError: they cannot be read.
    """
    with source.opened() as file:
        return file.read(size)


class _Stretch(io.RawIOBase):
    """Bytes ``start`` to ``start + size`` of a file, which it closes."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        self._file = file
        self._bounds = (start, start + size)
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = max(0, self._bounds[1] - self._file.tell())
        return self._file.readinto(memoryview(buffer)[:left])

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start, end = self._bounds
        origin = (start, self._file.tell(), end)[whence]
        return self._file.seek(max(start, origin + offset)) - start

    def close(self) -> None:
        self._file.close()
        super().close()


def _identity(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {file.absolute()}"
