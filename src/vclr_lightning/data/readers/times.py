"""When the frames of a video are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers.table import read_table
from vclr_lightning.data.readers.trust import stream_doubts

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray


def frame_times(
    container: InputContainer, stream: VideoStream, *, num_frames: int
) -> NDArray[np.float64]:
    """Return when each frame is shown, in seconds from the first.

    The presentation times of the packets, which are read but not decoded, so that a variable frame
    rate is right. Where they are in doubt, or are not those of ``num_frames`` frames, frames are
    taken to be equally far apart, by the stream's average rate.

    Args:
        container: an open file, no packet of which has been read.
        stream: its video stream.
        num_frames: frames that decode, at least 1.

    Shape:
        Returns ``(num_frames,)``.

    Raises:
        VideoError: the stream has neither times nor a rate.
    """
    table = read_table(container, stream)
    doubt, _ = stream_doubts(table, container.format.name, stream)
    if doubt is None and table.num_frames == num_frames and stream.time_base:
        stamps = table.pts[table.positions()]
        unit = np.float64(stream.time_base)
        return (stamps - stamps[:1]) * unit
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise VideoError("the file does not tell when its frames are shown")
    return np.arange(num_frames, dtype=np.float64) / float(rate)
