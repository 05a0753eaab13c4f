"""Write a shard: a tar file in the form of WebDataset, whose places are known."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Any

from vclr_lightning.core.foreign import HEAD, kind_of
from vclr_lightning.data.protocols import VideoError

_BLOCK = 512
_RECORD = 20 * _BLOCK  # tar files end on these
_COPIED = 2**20  # bytes at a time


class ShardWriter:
    """Writes videos one after another, each beside a JSON file that says what it is.

    Names are numbers, as WebDataset takes the part before the first dot for the sample.

    Args:
        sink: where to write, at its beginning.
    """

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink

    def add(self, number: int, source: Path, *, size: int, about: dict[str, Any]) -> int:
        """Store a file, or nothing of it.

        Args:
            number: of the sample.
            source: the file.
            size: bytes that it is known to have.
            about: what the JSON file says.

        Returns:
            The position of the first byte.

        Raises:
            VideoError: the file cannot be read, has another size, or is clearly no video.
            OSError: the shard cannot be written.
        """
        begin = self._sink.tell()
        suffix = PurePosixPath(source.name).suffix.lower() or ".video"
        try:
            with _opened(source) as file:
                start = self._header(f"{number:08d}{suffix}", size)
                for copied in range(0, size, _COPIED):
                    part = _read(file, min(_COPIED, size - copied))
                    # A manifest may name anything, also what a link leads to.
                    if not copied and (kind := kind_of(part[:HEAD])):
                        raise VideoError(f"it is no video: it {kind}")
                    self._sink.write(part)
                if _read(file, 1, at_end=True):
                    raise VideoError("it changed while it was stored")
        except VideoError:
            self._sink.seek(begin)
            self._sink.truncate()
            raise
        self._pad(size)
        content = json.dumps(about, ensure_ascii=False).encode()
        self._header(f"{number:08d}.json", len(content))
        self._sink.write(content)
        self._pad(len(content))
        return start

    def finish(self) -> None:
        """Write the end of the tar file."""
        self._sink.write(bytes(2 * _BLOCK))
        self._sink.write(bytes(-self._sink.tell() % _RECORD))

    def _header(self, name: str, size: int) -> int:
        info = tarfile.TarInfo(name)
        info.size = size
        self._sink.write(info.tobuf(tarfile.GNU_FORMAT))
        return self._sink.tell()

    def _pad(self, size: int) -> None:
        self._sink.write(bytes(-size % _BLOCK))


def _opened(source: Path) -> IO[bytes]:
    try:
        return source.open("rb")
    except OSError as error:
        raise VideoError(f"the file cannot be read: {error.strerror}") from error


def _read(file: IO[bytes], size: int, *, at_end: bool = False) -> bytes:
    try:
        part = file.read(size)
    except OSError as error:
        raise VideoError(f"the file cannot be read: {error.strerror}") from error
    if len(part) < size and not at_end:
        raise VideoError("it changed while it was stored")
    return part
