"""Read what was drawn from one video file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.core.types import Rejection
    from vclr_lightning.data.protocols import OpenVideo, VideoReader, VideoTable

Drawn = TypeVar("Drawn")

_ROUNDING = 1e-6  # seconds

# What a file can do to a reader; anything else is a mistake in the program and is let through.
_FAILURES = (VideoError, FrameCountChangedError, OSError, EOFError, ValueError, RuntimeError)


def read_drawn(
    manifest: VideoTable,
    row: int,
    reader: VideoReader,
    draw: Callable[[int], tuple[Drawn, NDArray[np.int64]]],
) -> tuple[Drawn, list[NDArray[np.uint8]]]:
    """Open a video, draw for the number of frames it has, and read the frames drawn at one go.

    Args:
        manifest: the videos.
        row: which of them.
        reader: opens it.
        draw: of a number of frames gives what was drawn and the ranks to read, ``(N,)``. It is
            asked again where the decoder finds another number of frames than was promised. Of a
            row that is a clip, both count the frames within its window alone.

    Returns:
        What was drawn, and the N frames ``(H, W, 3)`` uint8.

    Raises:
        VideoError: the file cannot be read, whatever the reader made of it.
    """
    try:
        with reader.open(manifest.path(row), num_frames=manifest.num_frames(row)) as video:
            window = manifest.window(row)
            try:
                return _read(video, window, video.num_frames, draw)
            except FrameCountChangedError as error:
                return _read(video, window, error.actual, draw)
    except UserError:
        raise
    except VideoError:
        raise
    except _FAILURES as error:
        raise VideoError(f"{type(error).__name__}: {error}") from error


def _read(
    video: OpenVideo,
    window: tuple[float, float] | None,
    num_frames: int,
    draw: Callable[[int], tuple[Drawn, NDArray[np.int64]]],
) -> tuple[Drawn, list[NDArray[np.uint8]]]:
    if num_frames < 1:
        raise VideoError("no frame can be decoded")
    if window is None:
        drawn, ranks = draw(num_frames)
        return drawn, video.read(ranks)
    within = window_ranks(video.times(), *window)
    drawn, ranks = draw(len(within))
    return drawn, video.read(within.start + np.asarray(ranks))


def window_ranks(times: NDArray[np.float64], start: float, end: float) -> range:
    """Return the ranks of the frames shown from ``start`` until before ``end``.

    Where none begins to be shown in between, the one frame that is on screen at ``start``.

    Args:
        times: when each frame is shown, ``(n,)``, rising.
        start: on the same clock.
        end: likewise, after ``start``.

    Raises:
        VideoError: ``start`` lies beyond the video's end.

    Example:
        >>> times = np.arange(10) / 5  # five frames a second, two seconds
        >>> window_ranks(times, 0.4, 1.0), window_ranks(times, 0.5, 0.55)
        (range(2, 5), range(2, 3))
    """
    last = times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 0)
    if start >= last and start > 0:
        raise VideoError(f"the clip begins at {start:g}, and the video ends at {last:g}")
    # A frame at 0.1 s may stand at 0.09999999999 by rounding.
    first, stop = np.searchsorted(times, (start - _ROUNDING, end - _ROUNDING)).tolist()
    if first < stop:
        return range(first, stop)
    return range(max(0, first - 1), max(0, first - 1) + 1)


def reject(manifest: VideoTable, row: int, error: VideoError) -> Rejection:
    """Note why a video could not be used, in one line."""
    return {
        "video_id": manifest.video_id(row),
        "path": str(manifest.path(row)),
        "reason": " ".join(str(error).split()),
    }
