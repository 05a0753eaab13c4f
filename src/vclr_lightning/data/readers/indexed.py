"""Read frames by the index of an MP4: only the groups of pictures that hold them are touched."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import av

from vclr_lightning.data.readers.decoding import ContradictionError, Stretch
from vclr_lightning.data.readers.opening import read_packets

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.decoding import StretchDecoder
    from vclr_lightning.data.readers.index import GroupIndex

_NO_FILLIN, _NO_PARSE = 0x10, 0x20  # AVFMT_FLAG_NOFILLIN, AVFMT_FLAG_NOPARSE
_HELD_LIMIT = 64 * 2**20  # bytes of packets held at a time


class IndexedReader:
    """Reads frames of one open stream by its index.

    The index tells which packets make up a group of pictures, and a group read tells in which
    order its frames are shown. As long as groups are closed, that is, none of a group's frames is
    shown before its keyframe, indices within a group follow on the positions before it. A group
    that is not closed is a contradiction, to be settled by the packet table.

    Args:
        container: an open file.
        stream: its video stream.
        index: the stream's index.
        decoder: of this stream.
        stamps_in_doubt: whether frames are reordered and the container's times of presentation may
            yet be those of decoding. Then a group whose times rise is a contradiction, too.
    """

    def __init__(
        self,
        *,
        container: InputContainer,
        stream: VideoStream,
        index: GroupIndex,
        decoder: StretchDecoder,
        stamps_in_doubt: bool,
    ) -> None:
        # An MP4 says of every packet what FFmpeg's parser would otherwise work out from its bytes.
        container.flags |= _NO_FILLIN | _NO_PARSE
        self._container = container
        self._stream = stream
        self._index = index
        self._decoder = decoder
        self._stamps_in_doubt = stamps_in_doubt
        self._reorders = bool(stream.codec_context.has_b_frames)
        self._held = 0
        # Seeking asks for times of presentation; the first packet shows by how much they are later.
        self._delay = max(0, (stream.start_time or 0) - index.times[0])

    @property
    def index(self) -> GroupIndex:
        """The stream's index."""
        return self._index

    def read(self, frame_indices: Collection[int]) -> dict[int, NDArray[np.uint8]]:
        """Return the frames of ``frame_indices``, by index.

        Raises:
            ContradictionError: the file contradicts its index, or the index does not suffice.
        """
        groups: dict[range, list[int]] = {}
        for index in sorted(frame_indices):
            groups.setdefault(self._index.group(index), []).append(index)
        # First read, then decode: seeking flushes the decoder, which costs it what it has set up.
        self._held = 0
        stretches = [self._stretch(group, members) for group, members in groups.items()]
        return self._decoder.decode(stretches)

    def _stretch(self, group: range, indices: list[int]) -> Stretch:
        """Read a group and find out which of its packets are wanted."""
        try:
            self._container.seek(self._index.times[group.start] + self._delay, stream=self._stream)
            packets = list(self._packets(group))
        except av.FFmpegError as error:
            raise ContradictionError(f"reading fails: {error}") from error
        joins = self._decoder.joins(packets[0])
        if group.start and not joins and not self._decoder.is_clean_entry(packets[0]):
            raise ContradictionError("a keyframe is no clean start")
        stamps = self._stamps(packets)
        order = sorted(range(len(stamps)), key=stamps.__getitem__)
        if order[0] != 0:
            raise ContradictionError("a group of pictures is open")
        rising = order == list(range(len(order)))
        if self._stamps_in_doubt and len(order) > 1 and rising:
            raise ContradictionError("frames are reordered, but not by their presentation times")
        if not self._reorders and not rising:
            raise ContradictionError("frames are not reordered, but their presentation times are")
        positions = {order[index - group.start]: index for index in indices}
        stop = max(positions) + 1
        return Stretch(
            packets[:stop],
            wanted={stamps[position]: index for position, index in positions.items()},
            expected=stop,
            entry=stamps[0] if group.start else None,
            joins=joins,
        )

    def _packets(self, group: range) -> Iterator[av.Packet]:
        """Yield the packets of a group, each held against the index."""
        times = self._index.times
        position = -1
        for packet in read_packets(self._container, self._stream):
            if position < 0:
                if packet.dts is None or packet.dts > times[group.start]:
                    break
                if packet.dts < times[group.start]:  # seeking led to an earlier keyframe
                    continue
                position = group.start
            if packet.dts != times[position]:
                break
            if not self._decoder.is_whole(packet):
                raise ContradictionError("a packet is damaged")
            self._held += packet.size
            if self._held > _HELD_LIMIT:
                raise ContradictionError("groups of pictures are too large to hold")
            yield packet
            position += 1
            if position == group.stop:
                return
        raise ContradictionError("packets are others than the index says")

    @staticmethod
    def _stamps(packets: list[av.Packet]) -> list[int]:
        stamps = [packet.pts for packet in packets if packet.pts is not None]
        if len(set(stamps)) < len(packets):
            raise ContradictionError("presentation times are missing or not unique")
        return stamps
