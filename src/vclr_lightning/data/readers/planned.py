"""Read frames by the packet table: seek to what serves them, decode no more than they need."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import av
import numpy as np

from vclr_lightning.data.readers.decoding import ContradictionError, Stretch
from vclr_lightning.data.readers.opening import read_packets
from vclr_lightning.data.readers.plan import Run, plan_runs
from vclr_lightning.data.readers.table import place_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.decoding import StretchDecoder
    from vclr_lightning.data.readers.table import PacketTable


class _UncleanEntryError(Exception):
    """Decoding from this keyframe would not equal decoding from the start."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class PlannedReader:
    """Reads frames of one open stream by its packet table.

    Args:
        container: an open file.
        stream: its video stream.
        table: the stream's packets.
        decoder: of this stream.
    """

    def __init__(
        self,
        *,
        container: InputContainer,
        stream: VideoStream,
        table: PacketTable,
        decoder: StretchDecoder,
    ) -> None:
        self._container = container
        self._stream = stream
        self._table = table
        self._decoder = decoder
        self._positions = table.positions()
        self._stamps: list[int] = table.pts.tolist()
        self._places: list[int] = table.place.tolist()
        keys = np.flatnonzero(table.key).tolist() if decoder.may_start_within else []
        self._entries: list[int] = [key for key in keys if key > 0]

    def read(self, frame_indices: Collection[int]) -> dict[int, NDArray[np.uint8]]:
        """Return the frames of ``frame_indices``, by index.

        Raises:
            ContradictionError: the file contradicts its table.
        """
        index_of = {int(self._positions[index]): index for index in frame_indices}
        found: dict[int, NDArray[np.uint8]] = {}
        while missing := [p for p, index in index_of.items() if index not in found]:
            for run in plan_runs(missing, self._entries, self._stamps):
                try:
                    pictures = self._decode(run)
                except _UncleanEntryError as error:
                    self._entries.remove(error.position)
                    break
                found.update({index_of[p]: picture for p, picture in pictures.items()})
        return found

    def _decode(self, run: Run) -> dict[int, NDArray[np.uint8]]:
        """Return the pictures of a run by position."""
        try:
            self._container.seek(self._stamps[run.start], stream=self._stream)
            packets = read_packets(self._container, self._stream)
            first = next(packets, None)
        except av.FFmpegError as error:
            raise ContradictionError(f"seeking fails: {error}") from error
        if first is None:
            raise ContradictionError("seeking leads to the end")
        position = self._land(first, run.start)
        shown = self._table.kept[position : run.stop + 1]
        since = None
        if position:
            since = self._stamps[position]
            shown = shown & (self._table.pts[position : run.stop + 1] >= since)
        stretch = Stretch(
            self._checked(first, packets, position, run.stop),
            wanted={self._stamps[p]: p for p in run.targets},
            expected=int(np.count_nonzero(shown)),
            entry=since,
        )
        return self._decoder.decode([stretch], since=since)

    def _checked(
        self, first: av.Packet, rest: Iterator[av.Packet], start: int, stop: int
    ) -> Iterator[av.Packet]:
        """Yield the packets from ``start`` to ``stop``, each held against the table."""
        yield first
        for position in range(start + 1, stop + 1):
            packet = next(rest, None)
            if packet is None:
                raise ContradictionError("the file ends before its table does")
            if packet.pts != self._stamps[position] or place_of(packet) != self._places[position]:
                raise ContradictionError("packets come in another order after seeking")
            yield packet

    def _land(self, packet: av.Packet, start: int) -> int:
        """Return the position of the first packet after seeking to ``start``."""
        position = start
        if packet.pts != self._stamps[start]:
            position = self._stamps.index(packet.pts) if packet.pts in self._stamps else start + 1
        if position > start or place_of(packet) != self._places[position]:
            raise ContradictionError("seeking leads elsewhere")
        if position > 0:
            if not self._table.key[position]:
                raise ContradictionError("seeking leads to no keyframe")
            if not self._decoder.is_clean_entry(packet):
                if position != start:
                    raise ContradictionError("seeking leads to an unclean keyframe")
                raise _UncleanEntryError(position)
        return position
