"""Write decoded frames as H.264, in a file that is whole or not there at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.video.frame import PictureType

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import VideoError

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

    from vclr_lightning.data.prepare.recipe import Recipe

PARTIAL = ".part"  # suffix of files that are being written

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class Encoder:
    """Encodes frames of one size into an MP4 file, each with its own time.

    Args:
        container: the file, open for writing.
        first: the first frame, already of its final size, whose colour description holds for all.
        recipe: how to encode.
        time_base: unit of the frames' times, seconds.
        rate: frames per second, to which the encoder fits its effort.
    """

    def __init__(
        self,
        container: OutputContainer,
        first: av.VideoFrame,
        *,
        recipe: Recipe,
        time_base: Fraction,
        rate: Fraction,
    ) -> None:
        self._container = container
        stream: VideoStream = container.add_stream("libx264", rate=rate, options=recipe.options())
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        context.time_base = stream.time_base = time_base
        context.thread_count = 1  # several would make the bytes depend on their number
        context.colorspace, context.color_range = first.colorspace, first.color_range
        self._stream = stream

    def add(self, frame: av.VideoFrame) -> None:
        """Encode a frame, which carries its time."""
        frame.pict_type = PictureType.NONE  # or it would be a keyframe again
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode())


@contextmanager
def writing(file: Path) -> Iterator[Path]:
    """Yield the path of a file to write, which becomes ``file`` when the block ends without error.

    A kill leaves a hidden file with the suffix ``.part``.

    Raises:
        UserError: the folder cannot be written to, or is full.
        VideoError: the encoder refuses.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}{PARTIAL}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(file)
    except (OSError, av.FFmpegError) as error:
        number = getattr(error, "errno", None)
        if number in _DISK:
            raise UserError(f"cannot write {file}: {os.strerror(number)}") from error
        raise VideoError(f"cannot be encoded: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Delete what runs that were killed left half written in ``folder``."""
    for file in folder.glob(f".*{PARTIAL}"):
        file.unlink(missing_ok=True)
