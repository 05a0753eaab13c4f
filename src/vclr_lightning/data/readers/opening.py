"""Where a video lies (a file, a part of a file, memory), and how its stream is opened."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import av

from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers.structure import ENCRYPTED, why_unreadable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

PYAV = int(av.__version__.split(".")[0])

# Before PyAV 19, metadata that is not UTF-8 raises an error unless this argument is given.
_ANY_TEXT: dict[str, Any] = {"metadata_errors": "ignore"} if PYAV < 19 else {}
_HAS_SIDE_DATA = hasattr(av.Packet, "has_sidedata")  # PyAV 16 and later
_DRM = frozenset(("ASF_Protection_Type", "encryption"))

# FFmpeg decodes the first packets of a file, even where its header contains all they could say.
_UNPROBED = {"codec_whitelist": "none", "probesize": "4096"}


class ByteSource(Protocol):
    """Where the bytes of a video are."""

    def target(self) -> str | IO[bytes]:
        """Return what FFmpeg opens: a file name, a URL or a stream."""
        ...

    def opened(self) -> IO[bytes]:
        """Return the bytes as a seekable file; may raise :class:`OSError`."""
        ...


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A video that is a file of its own."""

    path: Path

    def target(self) -> str:
        return str(self.path.absolute())  # in which FFmpeg sees no protocol before a colon

    def opened(self) -> IO[bytes]:
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
        end = self.start + self.size
        return f"subfile,,start,{self.start},end,{end},,:{self.file.absolute()}"

    def opened(self) -> IO[bytes]:
        # Opened here: a half made object would be finalized without its file (noticed by 3.13).
        return io.BufferedReader(_PartOfFile(self.file.open("rb", buffering=0), self))


@dataclass(frozen=True, slots=True)
class InMemory:
    """A video in memory."""

    content: bytes = field(repr=False)

    def target(self) -> IO[bytes]:
        return io.BytesIO(self.content)

    opened = target


class _PartOfFile(io.RawIOBase):
    """The bytes of a part; closes the file with itself."""

    def __init__(self, file: io.RawIOBase, part: FilePart) -> None:
        self._file = file
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
    """Return the first bytes; may raise :class:`OSError`."""
    with source.opened() as file:
        return file.read(size)


@contextmanager
def open_stream(
    source: Path | ByteSource,
    *,
    thread_count: int = 1,
    probed: bool = True,
    watched: bool = False,
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and its main stream, and close both at the end.

    Args:
        source: the video.
        thread_count: threads of the decoder; 0: one per core.
        probed: whether FFmpeg decodes the first frames for what a header may omit, such as
            whether frames are reordered. Without probing, opening takes a third of the time.
        watched: whether Python reads the bytes and so notices every read error. FFmpeg mistakes
            some for the end of the file or for damage; a file that it cannot open is therefore
            opened again like this.

    Raises:
        VideoError: the file cannot be opened, has no video stream that can be decoded or an
            encrypted one; or, at the end, bytes could not be read.
    """
    source = as_source(source)
    how: dict[str, Any] = {"container_options": {} if probed else _UNPROBED, **_ANY_TEXT}
    container, file = _open(source, how, watched=watched)
    try:
        with container:
            stream: Any = container.streams.best("video")
            if stream is None or stream.disposition & stream.disposition.attached_pic:
                raise VideoError("no video stream")
            # So say the headers of Matroska, and of ASF under DRM.
            asf = container.format.name == "asf"
            if "enc_key_id" in stream.metadata or (asf and not _DRM.isdisjoint(container.metadata)):
                raise VideoError(ENCRYPTED)
            context = stream.codec_context
            if context is None:
                raise VideoError("no decoder for the codec of the video stream")
            context.thread_count = thread_count
            context.thread_type = "NONE" if thread_count == 1 else "AUTO"
            yield container, stream
    finally:
        if file is not None:
            file.close()
            if file.error is not None:
                raise VideoError(unreadable(source, file.error)) from file.error


def _open(
    source: ByteSource, how: dict[str, Any], *, watched: bool
) -> tuple[InputContainer, _WatchedFile | None]:
    target = source.target()
    if not watched and isinstance(target, str):
        with suppress(OSError, av.FFmpegError):
            return av.open(target, **how), None
    file = None
    try:
        file = _WatchedFile(source)
        return av.open(file, **how), file
    except (OSError, av.FFmpegError) as error:
        cause = error
        if file is not None:
            file.close()
            cause = file.error or error
        raise VideoError(unreadable(source, cause)) from cause


class _WatchedFile:
    """A file that FFmpeg reads and that remembers a read error."""

    def __init__(self, source: ByteSource) -> None:
        self._file = source.opened()
        self.name = str(source.target())  # FFmpeg looks at the suffix, too
        self.error: OSError | None = None
        self.tell, self.close = self._file.tell, self._file.close

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:  # if raised here, PyAV might report it of another file
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):  # before the first byte of an empty file
            return -1


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Yield the non-empty packets of ``stream`` from where ``container`` stands.

    Raises:
        VideoError: the first is encrypted.
    """
    begun = not _HAS_SIDE_DATA
    # Before PyAV 19, a file ends with this error if further streams begin later on.
    with suppress(IndexError):
        for packet in container.demux(stream):
            if packet.size:
                if not begun and packet.has_sidedata("encryption_info"):
                    raise VideoError(ENCRYPTED)
                begun = True
                yield packet


def unreadable(source: ByteSource, error: Exception) -> str:
    """Return why a video cannot be opened, given what opening it raised."""
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a video file"
    if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
        return f"the file cannot be read: {error.strerror or error}"
    try:
        with source.opened() as file:
            reason = why_unreadable(file)
    except OSError as failure:
        return unreadable(source, failure)
    return reason or f"no video format that can be read: {getattr(error, 'strerror', '') or error}"
