"""What a video is read from: a file, a stretch of one, or bytes in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol


class VideoSource(Protocol):
    """A video that need not be a file of its own."""

    def target(self) -> str | IO[bytes]:
        """Return what FFmpeg opens: its name for the place, or a stream."""
        ...

    def head(self, size: int) -> bytes:
        """Return the first bytes.

        Raises:
            OSError: they cannot be read.
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

    def head(self, size: int) -> bytes:
        """Return the first bytes."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(min(size, self.size))

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

    def head(self, size: int) -> bytes:
        """Return the first bytes."""
        return self.content[:size]

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

    def head(self, size: int) -> bytes:
        """Return the first bytes."""
        with self.path.open("rb") as file:
            return file.read(size)

    def identity(self) -> str:
        """Return path, size and time of the file."""
        return _identity(self.path)


def as_source(source: str | Path | VideoSource) -> VideoSource:
    """Return a path as a source, and a source as it is."""
    return WholeFile(Path(source)) if isinstance(source, str | Path) else source


def _identity(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {file.absolute()}"
