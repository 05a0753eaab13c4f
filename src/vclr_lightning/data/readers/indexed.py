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
    from vclr_lightning.data.readers.packets import GroupIndex

_NO_FILLIN, _NO_PARSE = 0x10, 0x20  # AVFMT_FLAG_NOFILLIN, AVFMT_FLAG_NOPARSE
_MEMORY = 64 * 2**20  # bytes of packets held at a time


class IndexedReader:
    """Reads frames of one open stream by its index.

    The index gives the packets of each group of pictures; the packets read give the order in which
    its frames are shown. As long as groups are closed, that is, no frame of a group is shown before
    its keyframe, a group's frame indices are the positions of its packets. An open group is a
    contradiction, which the packet table resolves.

    ``timestamps_in_doubt``: frames are reordered, and the container's presentation times may be
    decoding times. Then a group whose times rise is a contradiction, too.
    """

    def __init__(
        self,
        *,
        container: InputContainer,
        stream: VideoStream,
        index: GroupIndex,
        decoder: StretchDecoder,
        timestamps_in_doubt: bool,
    ) -> None:
        # An MP4 stores about every packet what FFmpeg's parser would work out from its bytes.
        container.flags |= _NO_FILLIN | _NO_PARSE
        self._container = container
        self._stream = stream
        self.index = index
        self._decoder = decoder
        self._timestamps_in_doubt = timestamps_in_doubt
        self._reorders = bool(stream.codec_context.has_b_frames)
        self._held = 0
        # Seeking takes presentation times; the first packet shows how much later they are.
        self._delay = max(0, (stream.start_time or 0) - index.times[0])

    def read(self, frame_indices: Collection[int]) -> dict[int, NDArray[np.uint8]]:
        """Return frames by index; raise :class:`ContradictionError` if that is impossible."""
        groups: dict[range, list[int]] = {}
        for i in sorted(frame_indices):
            groups.setdefault(self.index.group(i), []).append(i)
        # All groups are read before any is decoded: seeking flushes the decoder's state.
        self._held = 0
        return self._decoder.decode([self._stretch(*group) for group in groups.items()])

    def _stretch(self, group: range, frame_indices: list[int]) -> Stretch:
        """Read a group and find out which of its packets are wanted."""
        try:
            self._container.seek(self.index.times[group.start] + self._delay, stream=self._stream)
            packets = list(self._packets(group))
        except av.FFmpegError as error:
            raise ContradictionError(f"reading fails: {error}") from error
        joins = self._decoder.joins(packets[0])
        if group.start and not joins and not self._decoder.is_clean_entry(packets[0]):
            raise ContradictionError("decoding cannot start at a keyframe")
        pts = [packet.pts for packet in packets if packet.pts is not None]
        if len(set(pts)) < len(packets):
            raise ContradictionError("presentation times are missing or not unique")
        order = sorted(range(len(pts)), key=pts.__getitem__)
        if order[0] != 0:
            raise ContradictionError("a group of pictures is open")
        rising = order == list(range(len(order)))
        if self._timestamps_in_doubt and len(order) > 1 and rising:
            raise ContradictionError("frames are reordered, but not by their presentation times")
        if not self._reorders and not rising:
            raise ContradictionError("frames are not reordered, but their presentation times are")
        positions = {order[i - group.start]: i for i in frame_indices}
        stop = max(positions) + 1
        return Stretch(
            packets[:stop],
            wanted={pts[position]: i for position, i in positions.items()},
            expected=stop,
            entry=pts[0] if group.start else None,
            joins=joins,
        )

    def _packets(self, group: range) -> Iterator[av.Packet]:
        """Yield the packets of a group, each checked against the index."""
        times = self.index.times
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
            if self._held > _MEMORY:
                raise ContradictionError("groups of pictures are too large to hold")
            yield packet
            position += 1
            if position == group.stop:
                return
        raise ContradictionError("packets are others than the index says")
