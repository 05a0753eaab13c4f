"""When the frames of a video are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.data.protocols import LEAST_SHARE, VideoError
from vclr_lightning.data.readers.opening import open_stream
from vclr_lightning.data.readers.sequential import read_stamps
from vclr_lightning.data.readers.table import read_table
from vclr_lightning.data.readers.trust import stream_doubts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.sources import VideoSource

_DISORDER = 32  # frames; no codec reorders as many


def stamped_times(stamps: Sequence[int | None], unit: float) -> NDArray[np.float64] | None:
    """Return when frames are shown by their own presentation times, in seconds from the first.

    Times of frames that have none lie evenly between their neighbours'. Where a clock starts anew,
    as in files that were joined, it goes on; where the container stored times of decoding, frames
    take them in order.

    Args:
        stamps: of each frame, in the order of presentation.
        unit: seconds.

    Returns:
        Rising times, ``(len(stamps),)``, or ``None`` if more than a tenth of the frames has
        no time of its own.

    Example:
        >>> stamped_times([100, 102, 105, 0, 2], 0.1)  # the clock starts anew
        array([0.  , 0.2 , 0.5 , 0.75, 0.95])
        >>> stamped_times([7, 7, 7], 0.1) is None
        True
    """
    times = np.array([np.nan if stamp is None else stamp for stamp in stamps], dtype=np.float64)
    known = np.flatnonzero(~np.isnan(times))
    if len(known) < max(1, LEAST_SHARE * len(times)):
        return None
    times = np.interp(np.arange(len(times)), known, times[known])
    steps = np.diff(times)
    usual = np.median(np.abs(steps)) if len(steps) else 0.0
    times[1:] += np.cumsum(np.where(steps < -_DISORDER * usual, usual - steps, 0.0))
    times.sort()
    if len(np.unique(times)) < LEAST_SHARE * len(times):
        return None
    times -= times[0]
    return times * np.float64(unit)


def shown_seconds(times: NDArray[np.float64]) -> float | None:
    """Return how long frames are shown, the last one as long as usual; ``None`` of one frame.

    Example:
        >>> shown_seconds(np.array([0.0, 0.5, 1.0]))
        1.5
    """
    return float(times[-1] - times[0] + np.median(np.diff(times))) if len(times) > 1 else None


def frame_times(
    source: VideoSource,
    *,
    num_frames: int,
    stamps: Sequence[int | None] | None = None,
    **decoding: Any,
) -> NDArray[np.float64]:
    """Return when each frame is shown, in seconds from the first, ``(num_frames,)``.

    The presentation times of the packets, which are read but not decoded; where they are in doubt,
    or are not those of ``num_frames`` frames, those of the decoded frames. Where these have none
    either, frames are taken to be equally far apart, by the stream's average rate.

    Args:
        source: where the video is.
        num_frames: frames that decode, at least 1.
        stamps: presentation times of the decoded frames, where they are known.
        decoding: arguments of :func:`read_stamps`, where they are not.

    Raises:
        VideoError: the stream has neither times nor a rate.
    """
    with open_stream(source) as (container, stream):
        unit = float(stream.time_base or 0)
        rate = stream.average_rate or stream.guessed_rate
        table = None if stamps is not None else read_table(container, stream)
        if table is not None and unit and table.num_frames == num_frames:
            doubt, _ = stream_doubts(table, container.format.name, stream, counted=True)
            if doubt is None:
                in_order = table.pts[table.positions()]
                return (in_order - in_order[:1]) * np.float64(unit)
    stamps = read_stamps(source, **decoding) if stamps is None else stamps
    times = stamped_times(stamps, unit) if unit and len(stamps) == num_frames else None
    if times is not None:
        return times
    if not rate:
        raise VideoError("the file does not say when its frames are shown")
    return np.arange(num_frames, dtype=np.float64) / float(rate)
