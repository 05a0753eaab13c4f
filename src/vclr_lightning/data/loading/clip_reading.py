"""Read the frames that were drawn from one video of a manifest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vclr_lightning.core.errors import UserError
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


def check_times(reader: VideoReader) -> None:
    """Raise :class:`UserError` if the videos of a reader have no times in seconds."""
    if not getattr(reader, "has_times", True):
        raise UserError(
            "extracted frames have no times, so their clips cannot be read at a rate; give "
            "frame_stride (stride of a sampler) instead of frame_rate (rate)"
        )


def read_drawn(
    manifest: VideoTable,
    row: int,
    reader: VideoReader,
    draw: Callable[..., tuple[Drawn, NDArray[np.int64]]],
    *,
    needs_times: bool = False,
) -> tuple[Drawn, list[NDArray[np.uint8]]]:
    """Open a video, draw frames given how many it has, and read them in one pass.

    Args:
        manifest: the videos.
        row: which of them.
        reader: opens it.
        draw: maps a number of frames to what was drawn and the frame indices to read, ``(N,)``. It
            is called again if the video is read again, or has another number of frames than
            promised. For a row that is a clip within a file, both count the clip's frames only.
        needs_times: whether ``draw`` is also given ``times=``, when each of these frames is shown.

    Returns:
        What was drawn, and the N frames ``(H, W, 3)`` uint8.

    Raises:
        VideoError: the file cannot be read.
        CodeFault: the reader or ``draw`` has a bug.
    """

    def take(
        video: OpenVideo, within: range, **times: Any
    ) -> tuple[Drawn, list[NDArray[np.uint8]]]:
        with blaming(draw):
            drawn, indices = draw(len(within), **times)
        return drawn, _read(video, within.start + np.asarray(indices))

    return _with_open(manifest, row, reader, take, needs_times=needs_times)


def read_clips(
    manifest: VideoTable,
    row: int,
    reader: VideoReader,
    *,
    draw: Callable[..., NDArray[np.int64]],
    converter: Callable[[], Callable[[list[NDArray[np.uint8]]], Converted]],
    needs_times: bool = False,
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
        needs_times: see :func:`read_drawn`.

    Raises:
        VideoError: the file cannot be read.
        CodeFault: the reader, ``draw`` or the conversion has a bug.
    """

    def take(video: OpenVideo, within: range, **times: Any) -> list[Converted]:
        convert = converter()
        with blaming(draw):
            clips = within.start + draw(len(within), **times)
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

    return _with_open(manifest, row, reader, take, needs_times=needs_times)


def _with_open(
    manifest: VideoTable,
    row: int,
    reader: VideoReader,
    take: Callable[..., Taken],
    *,
    needs_times: bool,
) -> Taken:
    """Call ``take`` with the open video and the row's frames, again if their number changes."""
    known, path = manifest.num_frames(row), manifest.path(row)
    window = manifest.window(row)
    if needs_times:
        check_times(reader)

    def of(video: OpenVideo, num_frames: int) -> Taken:
        if num_frames < 1:
            raise VideoError("no frame can be decoded")
        if window is None and not needs_times:
            return take(video, range(num_frames))
        times = video.times()
        within = range(num_frames) if window is None else window_indices(times, *window)
        if not needs_times:
            return take(video, within)
        if len(times) < within.stop:
            raise VideoError(f"it has {within.stop} frames, and times of {len(times)}")
        return take(video, within, times=times[within.start : within.stop])

    def attempt() -> Taken:
        with reader.open(path, num_frames=known) as video:
            try:
                return of(video, video.num_frames)
            except FrameCountChangedError as error:
                lost = 0 if known is None else known - error.actual
                if known is not None and lost > max(FRAME_SLACK, (1 - LEAST_SHARE) * known):
                    raise VideoError(
                        f"truncated: it had {known} frames when it was indexed, and now"
                        f" {error.actual} decode"
                    ) from error
                return of(video, error.actual)

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
