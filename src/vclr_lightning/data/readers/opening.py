"""Open the video stream of a file, and always close it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import av

from vclr_lightning.data.protocols import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


@contextmanager
def open_stream(
    path: Path, *, thread_count: int = 1
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open ``path`` and its main video stream; close both in the end.

    Args:
        path: a video file.
        thread_count: threads of the decoder; 0: one for each core.

    Raises:
        VideoError: the file cannot be opened, or holds no video that can be decoded.
    """
    try:
        # An absolute path, lest a colon in a name be taken for a protocol.
        container = av.open(str(path.absolute()), metadata_errors="ignore")
    except (OSError, av.FFmpegError, ValueError) as error:
        raise VideoError(_reason(path, error)) from error
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


def _reason(path: Path, error: Exception) -> str:
    if path.is_dir():
        return "a folder, not a video file"
    try:
        with path.open("rb") as file:
            head = file.read(12)
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
