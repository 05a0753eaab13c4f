"""Open the video stream of a file, or of what stands for one, and always close it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers.sources import VideoSource, WholeFile, as_source

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

PYAV = int(av.__version__.split(".")[0])

# Until PyAV 19, which has no such argument, metadata in another encoding than UTF-8 is an error.
_ANY_TEXT: dict[str, Any] = {"metadata_errors": "ignore"} if PYAV < 19 else {}

# FFmpeg opens decoders to look into the first packets of a file, for what most headers tell, too.
_UNPROBED = {"codec_whitelist": "none", "probesize": "4096"}


@contextmanager
def open_stream(
    source: Path | VideoSource, *, thread_count: int = 1, probed: bool = True
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and its main stream; close both in the end.

    Args:
        source: a video file, or where else a video is.
        thread_count: threads of the decoder; 0: one for each core.
        probed: whether FFmpeg decodes the first frames to learn what the header may not tell, such
            as whether frames are reordered. Without, opening takes a third of the time.

    Raises:
        VideoError: the file cannot be opened, or holds no video that can be decoded.
    """
    source = as_source(source)
    try:
        options = {} if probed else _UNPROBED
        container = av.open(source.target(), container_options=options, **_ANY_TEXT)
    except (OSError, av.FFmpegError, ValueError) as error:
        raise VideoError(unreadable(source, error)) from error
    with container:
        stream = container.streams.best("video")
        if stream is None or stream.disposition & stream.disposition.attached_pic:
            raise VideoError("no video stream")
        context = stream.codec_context
        if context is None:
            raise VideoError("no decoder for the codec of the video stream")
        context.thread_count = thread_count
        context.thread_type = "NONE" if thread_count == 1 else "AUTO"
        yield container, stream


def is_mp4(source: VideoSource) -> bool:
    """Return whether a video lies in an MP4, by its first bytes; ``False`` if none can be read."""
    try:
        return source.head(8)[4:] == b"ftyp"
    except OSError:
        return False


def unreadable(source: VideoSource, error: Exception) -> str:
    """Return why a video cannot be opened, in words.

    Args:
        source: where it is.
        error: what opening it raised.
    """
    if isinstance(source, WholeFile) and source.path.is_dir():
        return "a folder, not a video file"
    try:
        head = source.head(12)
    except FileNotFoundError:
        return "the file does not exist"
    except OSError as failure:
        return f"the file cannot be read: {failure.strerror}"
    if not head:
        return "empty file"
    if head[4:8] == b"ftyp":
        return "truncated or unfinished: the index (moov) of the MP4 is missing"
    detail = getattr(error, "strerror", None) or str(error)
    return f"no video format that can be read: {detail}"
