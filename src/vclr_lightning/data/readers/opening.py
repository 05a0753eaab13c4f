"""Open the video stream of a file, or of what stands for one, and always close it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers.sources import VideoSource, as_source, head
from vclr_lightning.data.readers.structure import ENCRYPTED, why_unreadable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

PYAV = int(av.__version__.split(".")[0])

# Until PyAV 19, which has no such argument, metadata in another encoding than UTF-8 is an error.
_ANY_TEXT: dict[str, Any] = {"metadata_errors": "ignore"} if PYAV < 19 else {}

_SIDE_DATA = hasattr(av.Packet, "has_sidedata")  # PyAV 16 and later
_DRM = frozenset(("ASF_Protection_Type", "encryption"))

# FFmpeg opens decoders to look into the first packets of a file, for what most headers tell, too.
_UNPROBED = {"codec_whitelist": "none", "probesize": "4096"}


@contextmanager
def open_stream(
    source: Path | VideoSource,
    *,
    thread_count: int = 1,
    probed: bool = True,
    watched: bool = False,
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and its main stream; close both in the end.

    Args:
        source: a video file, or where else a video is.
        thread_count: threads of the decoder; 0: one for each core.
        probed: whether FFmpeg decodes the first frames to learn what the header may not tell, such
            as whether frames are reordered. Without, opening takes a third of the time.
        watched: whether the bytes are read by Python, which notices every error in reading them.
            FFmpeg takes some for the end of the file, or for damage; so a file that it cannot open
            is opened again like this.

    Raises:
        VideoError: the file cannot be opened, or holds no video that can be decoded, or one that is
            encrypted; or, at the end, bytes could not be read.
    """
    source = as_source(source)
    how: dict[str, Any] = {"container_options": {} if probed else _UNPROBED, **_ANY_TEXT}
    container, file = _open(source, how, watched=watched)
    try:
        with container:
            stream: Any = container.streams.best("video")
            if stream is None or stream.disposition & stream.disposition.attached_pic:
                raise VideoError("no video stream")
            if _is_locked(container, stream):
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
    source: VideoSource, how: dict[str, Any], *, watched: bool
) -> tuple[InputContainer, _Watched | None]:
    target = source.target()
    if not watched and isinstance(target, str):
        with suppress(OSError, av.FFmpegError):
            return av.open(target, **how), None
    file = None
    try:
        file = _Watched(source)
        return av.open(file, **how), file
    except (OSError, av.FFmpegError) as error:
        cause = error
        if file is not None:
            file.close()
            cause = file.error or error
        raise VideoError(unreadable(source, cause)) from cause


class _Watched:
    """A file that FFmpeg reads, and that knows whether reading it failed."""

    def __init__(self, source: VideoSource) -> None:
        self._file = source.opened()
        self.name = str(source.target())  # FFmpeg looks at the suffix, too
        self.error: OSError | None = None
        self.tell, self.close = self._file.tell, self._file.close

    def read(self, size: int) -> bytes:
        """Return some bytes, none past the end."""
        try:
            return self._file.read(size)
        except OSError as error:  # raised here, PyAV might report it of another file
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Return the new position, -1 where there is none."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):  # before the first byte of an empty file
            return -1


def _is_locked(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the header says so: of Matroska, or of ASF under DRM."""
    asf = container.format.name == "asf"
    return "enc_key_id" in stream.metadata or (asf and not _DRM.isdisjoint(container.metadata))


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Yield the packets of ``stream`` from where ``container`` stands, without empty ones.

    Raises:
        VideoError: the first is encrypted.
    """
    begun = not _SIDE_DATA
    # Until PyAV 19 that is how a file ends in which further streams begin later on.
    with suppress(IndexError):
        for packet in container.demux(stream):
            if packet.size:
                if not begun and packet.has_sidedata("encryption_info"):
                    raise VideoError(ENCRYPTED)
                begun = True
                yield packet


def is_mp4(source: VideoSource) -> bool:
    """Return whether a video lies in an MP4, by its first bytes; ``False`` if none can be read."""
    try:
        return head(source, 8)[4:] == b"ftyp"
    except OSError:
        return False


def unreadable(source: VideoSource, error: Exception) -> str:
    """Return why a video cannot be opened, in words.

    Args:
        source: where it is.
        error: what opening it raised.
    """
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a video file"
    if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
        return f"the file cannot be read: {error.strerror or error}"
    try:
        reason = why_unreadable(source)
    except OSError as failure:
        return unreadable(source, failure)
    if reason is not None:
        return reason
    detail = getattr(error, "strerror", None) or str(error)
    return f"no video format that can be read: {detail}"
