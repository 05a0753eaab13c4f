"""Read the frames that were drawn from one video of a manifest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vclr_lightning.data.faults import blaming, described, is_transient, judged
from vclr_lightning.data.protocols import (
    FRAME_SLACK,
    LEAST_SHARE,
    FrameCountChangedError,
    VideoError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.core.types import Rejection
    from vclr_lightning.data.protocols import OpenVideo, VideoReader, VideoTable

Drawn = TypeVar("Drawn")
Converted = TypeVar("Converted")
Taken = TypeVar("Taken")

_AT_ONCE = 64  # frames of a video held at full size
_ROUNDING = 1e-6  # seconds


def read_drawn(
    manifest: VideoTable,
    row: int,
    reader: VideoReader,
    draw: Callable[[int], tuple[Drawn, NDArray[np.int64]]],
) -> tuple[Drawn, list[NDArray[np.uint8]]]:
    """Open a video, draw frames given how many it has, and read them in one pass.

    Args:
        manifest: the videos.
        row: which of them.
        reader: opens it.
        draw: maps a number of frames to what was drawn and the frame indices to read, ``(N,)``. It
            is called again if the video is read again, or has another number of frames than
            promised. For a row that is a clip within a file, both count the clip's frames only.

    Returns:
        What was drawn, and the N frames ``(H, W, 3)`` uint8.

    Raises:
        VideoError: the file cannot be read.
        CodeFault: the reader or ``draw`` has a bug.
    """

    def take(video: OpenVideo, within: range) -> tuple[Drawn, list[NDArray[np.uint8]]]:
        with blaming(draw):
            drawn, indices = draw(len(within))
        return drawn, _read(video, within.start + np.asarray(indices))

    return _with_open(manifest, row, reader, take)


def read_clips(
    manifest: VideoTable,
    row: int,
    reader: VideoReader,
    *,
    draw: Callable[[int], NDArray[np.int64]],
    converter: Callable[[], Callable[[list[NDArray[np.uint8]]], Converted]],
) -> list[Converted]:
    """Open a video and convert clips of it, a few frames at a time to save memory.

    Args:
        manifest: the videos.
        row: which of them.
        reader: opens it.
        draw: maps a number of frames to the frame indices of the clips, ``(m, T)``; see
            :func:`read_drawn`.
        converter: returns a function that converts a clip's frames, ``(H, W, 3)`` uint8; called
            again if the video is read again.

    Raises:
        VideoError: the file cannot be read.
        CodeFault: the reader, ``draw`` or the conversion has a bug.
    """

    def take(video: OpenVideo, within: range) -> list[Converted]:
        convert = converter()
        with blaming(draw):
            clips = within.start + draw(len(within))
        length = clips.shape[1]
        size = max(1, _AT_ONCE // length)
        converted = []
        for start in range(0, len(clips), size):
            frames = _read(video, clips[start : start + size].reshape(-1))
            with blaming(convert):
                converted += [
                    convert(frames[k : k + length]) for k in range(0, len(frames), length)
                ]
        return converted

    return _with_open(manifest, row, reader, take)


def _with_open(
    manifest: VideoTable,
    row: int,
    reader: VideoReader,
    take: Callable[[OpenVideo, range], Taken],
) -> Taken:
    """Call ``take`` with the open video and the row's frames, again if their number changes."""
    known, path = manifest.num_frames(row), manifest.path(row)

    def attempt() -> Taken:
        with reader.open(path, num_frames=known) as video:
            window = manifest.window(row)
            try:
                return take(video, _within(video, window, video.num_frames))
            except FrameCountChangedError as error:
                lost = 0 if known is None else known - error.actual
                if known is not None and lost > max(FRAME_SLACK, (1 - LEAST_SHARE) * known):
                    raise VideoError(
                        f"truncated: it had {known} frames when it was indexed, and now"
                        f" {error.actual} decode"
                    ) from error
                return take(video, _within(video, window, error.actual))

    return judged(attempt, part=reader, on=path)


def _read(video: OpenVideo, indices: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    """Read frames and check what the reader returns, so that its bugs are reported as such."""
    frames = list(video.read(indices))
    if len(frames) != len(indices):
        raise ValueError(f"of {len(indices)} frames to read it returns {len(frames)}")
    for frame in frames:
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.shape[2:] != (3,):
            raise TypeError(f"it returns {described(frame)} as a frame, not (H, W, 3) of uint8")
        if not frame.size:
            raise ValueError(f"it returns {described(frame)} as a frame, which is empty")
    return frames


def _within(video: OpenVideo, window: tuple[float, float] | None, num_frames: int) -> range:
    if num_frames < 1:
        raise VideoError("no frame can be decoded")
    return range(num_frames) if window is None else window_indices(video.times(), *window)


def window_indices(times: NDArray[np.float64], start: float, end: float) -> range:
    """Return the indices of the frames whose presentation begins in ``start <= t < end``.

    If there is none, the one frame that is on screen at ``start``.

    Args:
        times: when each frame is shown, ``(n,)``, rising.
        start: on the same clock.
        end: on the same clock, after ``start``.

    Raises:
        VideoError: ``start`` lies beyond the video's end.

    Example:
        >>> times = np.arange(10) / 5  # five frames a second, two seconds
        >>> window_indices(times, 0.4, 1.0), window_indices(times, 0.5, 0.55)
        (range(2, 5), range(2, 3))
    """
    last = times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 0)
    if start >= last and start > 0:
        raise VideoError(f"the clip begins at {start:g}, and the video ends at {last:g}")
    # A frame at 0.1 s may have the time 0.09999999999.
    first, stop = np.searchsorted(times, (start - _ROUNDING, end - _ROUNDING)).tolist()
    first = first if first < stop else max(0, first - 1)
    return range(first, max(stop, first + 1))


def reject(manifest: VideoTable, row: int, error: VideoError) -> Rejection:
    """Return a rejection with the reason in one line."""
    rejection: Rejection = {
        "video_id": manifest.video_id(row),
        "path": str(manifest.path(row)),
        "reason": " ".join(str(error).split()),
    }
    if is_transient(error):
        rejection["passing"] = True
    return rejection
