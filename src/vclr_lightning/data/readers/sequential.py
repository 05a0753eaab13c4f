"""Decode a file from its first packet on, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import av

from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers.opening import open_stream, read_packets

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.picture import PictureMaker
    from vclr_lightning.data.readers.sources import VideoSource

# Past this share of damaged packets, what still comes out of the decoder is no picture of anything.
_DAMAGE_LIMIT = 0.1


class SequentialDecoder:
    """Yields every frame that decodes, in the order of presentation.

    A damaged packet costs its own frame and not the rest; where the container itself breaks off,
    what the decoder still holds is the end.

    Args:
        container: an open file, no packet of which has been read.
        stream: its video stream.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self._sent = 0
        self._failed = 0

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            yield from self._decode(packet)
        yield from self._decode(None)

    def refuse_damage(self) -> None:
        """Raise :class:`VideoError` if more than a tenth of the packets so far were damaged."""
        if self._failed > _DAMAGE_LIMIT * self._sent:
            raise VideoError(f"damaged: {self._failed} of {self._sent} packets do not decode")

    def _packets(self) -> Iterator[av.Packet]:
        try:
            yield from read_packets(self._container, self._stream)
        except av.FFmpegError:
            return

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        self._sent += packet is not None
        try:
            return self._stream.codec_context.decode(packet)
        except av.FFmpegError:
            self._failed += packet is not None
            return []


def count_frames(source: Path | VideoSource, *, thread_count: int = 1) -> int:
    """Return the number of frames that decode.

    Raises:
        VideoError: the file is no readable video, or more than a tenth of it is damaged.
    """
    _, count = read_sequentially(source, (), None, to_end=True, thread_count=thread_count)
    assert count is not None
    return count


def read_sequentially(
    source: Path | VideoSource,
    ranks: Iterable[int],
    picture: PictureMaker | None,
    *,
    to_end: bool,
    thread_count: int = 1,
) -> tuple[dict[int, NDArray[np.uint8]], int | None]:
    """Decode from the start and keep the frames of ``ranks``.

    Args:
        source: a video file, or where else a video is.
        ranks: presentation ranks.
        picture: turns a frame into an array; not needed without ranks.
        to_end: whether to go on past the last rank, to learn how many frames there are.
        thread_count: threads of the decoder.

    Returns:
        The frames by rank, without those past the end of the video; and the number of frames of
        the video, or ``None`` where decoding stopped before its end.

    Raises:
        VideoError: the file is no readable video, or more than a tenth of it is damaged.
    """
    wanted = set(ranks)
    last = max(wanted, default=-1)
    found: dict[int, NDArray[np.uint8]] = {}
    count = 0
    with open_stream(source, thread_count=thread_count, watched=True) as (container, stream):
        decoder = SequentialDecoder(container, stream)
        for frame in decoder:
            if count in wanted and picture is not None:
                found[count] = picture(frame)
            count += 1
            if count > last and not to_end:
                decoder.refuse_damage()
                return found, None
        decoder.refuse_damage()
    return found, count
