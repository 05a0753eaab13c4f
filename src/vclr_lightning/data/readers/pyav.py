"""Read frames of video files with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.readers.opening import ByteSource, as_source
from vclr_lightning.data.readers.sequential import MAX_DAMAGED, check_share
from vclr_lightning.data.readers.table_store import TableStore
from vclr_lightning.data.readers.video import PyAVVideo


class PyAVReader:
    """Reads video files of every container and codec that PyAV's FFmpeg knows.

    All wanted frames of a video are read in one pass over the packets they need: the reader seeks
    only if a later keyframe lies in between, and skips frames to which no other refers. Every
    frame equals, bit by bit, the one of the same index in a decode of the whole file; if the
    file's own metadata is in doubt, it is decoded from the start (``docs/decisions.md`` names the
    files whose metadata misleads unnoticed). Frames are upright, as the display matrix says.

    Args:
        thread_count: threads of each decoder; with several data workers, 1 is fastest overall.
            0: one per core.
        tables: where packet tables of long videos are cached, which makes opening them fast.
        max_damaged: share of the frames that may fail to decode where a file is decoded from its
            start; above it the file is refused.

    Raises:
        UserError: ``thread_count`` is negative, or ``max_damaged`` not between 0 and 1.

    Example:
        >>> import av, numpy as np, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "video.mp4"
        >>> with av.open(str(path), "w") as file:
        ...     stream = file.add_stream("mpeg4", rate=10, width=32, height=16, pix_fmt="yuv420p")
        ...     for i in range(20):
        ...         picture = np.full((16, 32, 3), 10 * i, np.uint8)
        ...         file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        ...     file.mux(stream.encode())
        >>> with PyAVReader().open(path) as video:
        ...     frames = video.read([3, 12])
        >>> video.num_frames, frames[0].shape
        (20, (16, 32, 3))
    """

    def __init__(
        self,
        *,
        thread_count: int = 1,
        tables: TableStore | None = None,
        max_damaged: float = MAX_DAMAGED,
    ) -> None:
        if thread_count < 0:
            raise UserError(f"thread_count={thread_count} must not be negative")
        check_share(max_damaged)
        self._decoding: dict[str, Any] = {"thread_count": thread_count, "max_damaged": max_damaged}
        self._tables = tables

    @contextmanager
    def open(
        self, path: Path | ByteSource, *, num_frames: int | None = None
    ) -> Iterator[PyAVVideo]:
        """Open a file.

        Args:
            path: a video file, or another source of a video.
            num_frames: the number of frames that decode, if known; it overrides the file's own
                metadata. Without it, a file in doubt is decoded once to count.

        Raises:
            VideoError: the video cannot be read.
        """
        with ExitStack() as opened:
            yield PyAVVideo(as_source(path), opened, num_frames, self._tables, self._decoding)
