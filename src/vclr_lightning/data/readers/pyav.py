"""Read frames of video files with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.readers.opening import open_stream
from vclr_lightning.data.readers.sequential import MAX_DAMAGED, check_share
from vclr_lightning.data.readers.sources import VideoSource, as_source
from vclr_lightning.data.readers.tables import TableStore
from vclr_lightning.data.readers.video import PyAVVideo


class PyAVReader:
    """Reads video files of every container and codec that PyAV's FFmpeg knows.

    All frames wanted of a video are read in one pass over the packets that serve them: the reader
    seeks only where a later keyframe lies in between, and leaves out frames that no other frame
    refers to. Every frame equals, bit by bit, the one that decoding the whole file gives at the
    same index; where the file's own account of its frames is in doubt, the file is decoded from the
    start (``docs/design.md`` names the files whose account misleads unnoticed). Frames come
    upright, as the file's display matrix says.

    Args:
        thread_count: threads of each decoder; 1, where several data workers run, costs the least
            time on the whole. 0: as many as there are cores.
        tables: where packet tables of long videos are kept, so that opening one again costs little.
        max_damaged: share of the frames that may fail to decode, where a file is decoded from its
            start; past it the file is refused.

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
        self._thread_count = thread_count
        self._max_damaged = max_damaged
        self._tables = tables

    @contextmanager
    def open(
        self, path: Path | VideoSource, *, num_frames: int | None = None
    ) -> Iterator[PyAVVideo]:
        """Open a file.

        Args:
            path: a video file, or where else a video is.
            num_frames: the number of frames that decode, where it is known; it is believed over
                the file's own account. Without it, a file in doubt is decoded once to count.

        Raises:
            VideoError: the file is no readable video.
        """
        source = as_source(path)
        with ExitStack() as opened:
            attach = partial(open_stream, source, thread_count=self._thread_count)
            yield PyAVVideo(
                source=source,
                attach=lambda *, probed=True: opened.enter_context(attach(probed=probed)),
                num_frames=num_frames,
                thread_count=self._thread_count,
                max_damaged=self._max_damaged,
                tables=self._tables,
            )
