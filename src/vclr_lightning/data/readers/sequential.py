"""Decode a file from its first packet on, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import av

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers.opening import open_stream, read_packets

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.picture import PictureMaker
    from vclr_lightning.data.readers.sources import VideoSource

MAX_DAMAGED = 0.1
"""Share of its frames by default past which a video is no picture of anything."""


def check_share(max_damaged: float) -> None:
    """Raise :class:`UserError` where that is no share."""
    if not 0 <= max_damaged <= 1:
        raise UserError(f"max_damaged={max_damaged} must be between 0 and 1")


class SequentialDecoder:
    """Yields every frame that decodes, in the order of presentation.

    A damaged packet costs its own frame and not the rest; where the container itself breaks off,
    what the decoder still holds is the end.

    Args:
        container: an open file, no packet of which has been read.
        stream: its video stream.
        noticing: whether to count frames that are damaged and yet decode: packets that the
            container marks as damaged, or at which the decoder reports an error, and frames
            that it marks itself.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, *, noticing: bool = False
    ) -> None:
        self._container = container
        self._stream = stream
        self._noticing = noticing
        self._sent = self._lost = self._suspect = self._marked = 0

    def __iter__(self) -> Iterator[av.VideoFrame]:
        level = av.logging.get_level()
        if self._noticing and level is None:
            av.logging.set_level(av.logging.PANIC)  # without a level, errors are not even counted
        try:
            for packet in self._packets():
                yield from self._decode(packet)
            yield from self._decode(None)
        finally:
            if self._noticing:
                av.logging.set_level(level)

    @property
    def damaged(self) -> float:
        """Share of the frames so far that are damaged, or did not decode."""
        return (self._lost + max(self._suspect, self._marked)) / max(1, self._sent)

    def refuse_damage(self, limit: float = MAX_DAMAGED) -> None:
        """Raise :class:`VideoError` if more than a share ``limit`` of the frames was damaged."""
        if self.damaged > limit:
            how = "are damaged" if self._noticing else "do not decode"
            number = round(self.damaged * self._sent)
            raise VideoError(f"damaged: {number} of {self._sent} packets {how}")

    def _packets(self) -> Iterator[av.Packet]:
        try:
            yield from read_packets(self._container, self._stream)
        except av.FFmpegError:
            return

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        self._sent += packet is not None
        errors = self._noticing and av.logging.get_last_error()[0]
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.FFmpegError:
            self._lost += packet is not None
            return []
        if self._noticing:
            self._marked += sum(frame.is_corrupt for frame in frames)
            if packet is not None:
                reported = av.logging.get_last_error()[0] > errors
                self._suspect += reported or packet.is_corrupt
        return frames


def read_stamps(
    source: Path | VideoSource, *, thread_count: int = 1, max_damaged: float = MAX_DAMAGED
) -> list[int | None]:
    """Return the presentation time of every frame that decodes, in the stream's unit.

    Args:
        source: a video file, or where else a video is.
        thread_count: threads of the decoder.
        max_damaged: share of the frames that may not decode.

    Raises:
        VideoError: the file is no readable video, or more of it is damaged.
    """
    with open_stream(source, thread_count=thread_count, watched=True) as (container, stream):
        decoder = SequentialDecoder(container, stream)
        stamps = [frame.pts for frame in decoder]
        decoder.refuse_damage(max_damaged)
    return stamps


def read_sequentially(
    source: Path | VideoSource,
    frame_indices: Iterable[int],
    picture: PictureMaker,
    *,
    to_end: bool,
    thread_count: int = 1,
    max_damaged: float = MAX_DAMAGED,
) -> tuple[dict[int, NDArray[np.uint8]], int | None]:
    """Decode from the start and keep the frames of ``frame_indices``.

    Args:
        source: a video file, or where else a video is.
        frame_indices: of the wanted frames.
        picture: turns a frame into an array.
        to_end: whether to go on past the last index, to learn how many frames there are.
        thread_count: threads of the decoder.
        max_damaged: share of the frames that may not decode.

    Returns:
        The frames by index, without those past the end of the video; and the number of frames of
        the video, or ``None`` where decoding stopped before its end.

    Raises:
        VideoError: the file is no readable video, or more of it is damaged.
    """
    wanted = set(frame_indices)
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
