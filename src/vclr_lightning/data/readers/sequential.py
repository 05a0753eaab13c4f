"""Decode a file from its first packet on, whatever is wrong with it; and when frames are shown."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import LEAST_SHARE, VideoError
from vclr_lightning.data.readers.opening import open_stream, read_packets
from vclr_lightning.data.readers.packets import read_table, stream_doubts

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.decoding import PictureMaker
    from vclr_lightning.data.readers.opening import ByteSource

MAX_DAMAGED = 0.1
"""Default share of damaged frames above which a video is rejected."""

_DISORDER = 32  # frames; no codec reorders as many


def check_share(max_damaged: float) -> None:
    """Raise :class:`UserError` unless ``max_damaged`` is between 0 and 1."""
    if not 0 <= max_damaged <= 1:
        raise UserError(f"max_damaged={max_damaged} must be between 0 and 1")


class SequentialDecoder:
    """Yields every frame that decodes of a newly opened stream, in order of presentation.

    A damaged packet costs its own frame only; where the container itself breaks off, the frames
    still in the decoder are the last. ``count_damage`` also counts frames that are damaged and yet
    decode: packets that the container marks or for which the decoder reports an error, and frames
    that the decoder marks.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, *, count_damage: bool = False
    ) -> None:
        self._container = container
        self._stream = stream
        self._counts_damage = count_damage
        self._sent = self._lost = self._suspect = self._marked = 0

    def __iter__(self) -> Iterator[av.VideoFrame]:
        level = av.logging.get_level()
        if self._counts_damage and level is None:
            av.logging.set_level(av.logging.PANIC)  # without a level, errors are not even counted
        try:
            for packet in self._packets():
                yield from self._decode(packet)
            yield from self._decode(None)
        finally:
            if self._counts_damage:
                av.logging.set_level(level)

    @property
    def damaged(self) -> float:
        """Share of the frames so far that are damaged or did not decode."""
        return (self._lost + max(self._suspect, self._marked)) / max(1, self._sent)

    def refuse_damage(self, limit: float = MAX_DAMAGED) -> None:
        """Raise :class:`VideoError` if more than a share ``limit`` of the frames was damaged."""
        if self.damaged > limit:
            how = "are damaged" if self._counts_damage else "do not decode"
            number = round(self.damaged * self._sent)
            raise VideoError(f"damaged: {number} of {self._sent} packets {how}")

    def _packets(self) -> Iterator[av.Packet]:
        try:
            yield from read_packets(self._container, self._stream)
        except av.FFmpegError:
            return

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        self._sent += packet is not None
        errors = self._counts_damage and av.logging.get_last_error()[0]
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.FFmpegError:
            self._lost += packet is not None
            return []
        if self._counts_damage:
            self._marked += sum(frame.is_corrupt for frame in frames)
            if packet is not None:
                reported = av.logging.get_last_error()[0] > errors
                self._suspect += reported or packet.is_corrupt
        return frames


def read_timestamps(
    source: Path | ByteSource, *, thread_count: int = 1, max_damaged: float = MAX_DAMAGED
) -> list[int | None]:
    """Return the presentation time of every frame that decodes, in the stream's unit.

    Raises:
        VideoError: the video cannot be read, or more than ``max_damaged`` of it does not decode.
    """
    with open_stream(source, thread_count=thread_count, watched=True) as (container, stream):
        decoder = SequentialDecoder(container, stream)
        timestamps = [frame.pts for frame in decoder]
        decoder.refuse_damage(max_damaged)
    return timestamps


def read_sequentially(
    source: Path | ByteSource,
    wanted: Collection[int],
    picture: PictureMaker,
    *,
    to_end: bool,
    thread_count: int = 1,
    max_damaged: float = MAX_DAMAGED,
) -> tuple[dict[int, NDArray[np.uint8]], int | None]:
    """Decode from the start and convert the frames of the ``wanted`` indices.

    Returns:
        The frames by index, without those past the end of the video; and the number of frames of
        the video, or ``None`` if decoding stopped before its end, as it may unless ``to_end``.

    Raises:
        VideoError: the video cannot be read, or more than ``max_damaged`` of it does not decode.
    """
    last = max(wanted, default=-1)
    found: dict[int, NDArray[np.uint8]] = {}
    count = 0
    with open_stream(source, thread_count=thread_count, watched=True) as (container, stream):
        decoder = SequentialDecoder(container, stream)
        for frame in decoder:
            if count in wanted:
                found[count] = picture(frame)
            count += 1
            if count > last and not to_end:
                decoder.refuse_damage(max_damaged)
                return found, None
        decoder.refuse_damage(max_damaged)
    return found, count


def stamped_times(timestamps: Sequence[int | None], unit: float) -> NDArray[np.float64] | None:
    """Return when frames are shown by their own presentation times, in seconds from the first.

    Missing times are interpolated. Where the clock restarts, as in concatenated files, it is
    continued; where the container stored decoding times, frames take them in order. ``None`` if
    more than a tenth of the frames has no time of its own.

    Example:
        >>> stamped_times([100, 102, 105, 0, 2], 0.1)  # the clock restarts
        array([0.  , 0.2 , 0.5 , 0.75, 0.95])
        >>> stamped_times([7, 7, 7], 0.1) is None
        True
    """
    times = np.array([np.nan if t is None else t for t in timestamps], dtype=np.float64)
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


def frame_times(
    source: ByteSource,
    *,
    num_frames: int,
    timestamps: Sequence[int | None] | None = None,
    **decoding: Any,
) -> NDArray[np.float64]:
    """Return when each frame is shown, in seconds from the first, ``(num_frames,)``.

    These are the presentation times of the packets, read but not decoded; if they are in doubt or
    not those of ``num_frames`` frames, those of the decoded frames; if these have none either,
    evenly spaced times by the stream's average rate.

    ``timestamps`` are those of the decoded frames, if known; ``decoding`` are arguments of
    :func:`read_timestamps`, if not.

    Raises:
        VideoError: the stream has neither times nor a rate.
    """
    with open_stream(source) as (container, stream):
        unit = float(stream.time_base or 0)
        rate = stream.average_rate or stream.guessed_rate
        table = None if timestamps is not None else read_table(container, stream)
        if table is not None and unit and table.num_frames == num_frames:
            doubt, _ = stream_doubts(table, container.format.name, stream, counted=True)
            if doubt is None:
                in_order = table.pts[table.positions()]
                return (in_order - in_order[:1]) * np.float64(unit)
    if timestamps is None:
        timestamps = read_timestamps(source, **decoding)
    times = stamped_times(timestamps, unit) if unit and len(timestamps) == num_frames else None
    if times is not None:
        return times
    if not rate:
        raise VideoError("the file does not say when its frames are shown")
    return np.arange(num_frames, dtype=np.float64) / float(rate)
