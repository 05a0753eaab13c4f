"""Read frames by the packet table: seek to the keyframes they need, decode no more than needed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np

from vclr_lightning.data.readers.decoding import ContradictionError, Stretch
from vclr_lightning.data.readers.opening import read_packets
from vclr_lightning.data.readers.packets import place_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.decoding import StretchDecoder
    from vclr_lightning.data.readers.packets import PacketTable


@dataclass(frozen=True, slots=True)
class DecodeRun:
    """Packets to decode one after another, from ``start`` to the last of the sorted ``targets``."""

    start: int
    targets: tuple[int, ...]

    @property
    def stop(self) -> int:
        """Position of the last packet to decode."""
        return self.targets[-1]


def serving_entry(target: int, entries: Sequence[int], pts: Sequence[int]) -> int:
    """Return the last entry from which ``target`` decodes.

    A frame that comes after a keyframe in the file but is shown before it (a leading frame of an
    open group of pictures) needs the keyframe before that.

    Args:
        target: position of a packet.
        entries: sorted positions at which decoding may start, besides the first packet.
        pts: presentation time of each packet, ``(P,)``.

    Example:
        >>> pts = [0, 2, 1, 6, 4, 5]
        >>> [serving_entry(p, [0, 3], pts) for p in (2, 3, 4, 5)]
        [0, 3, 0, 0]
    """
    number = bisect_right(entries, target)
    while number and pts[entries[number - 1]] > pts[target]:
        number -= 1
    return entries[number - 1] if number else 0


def plan_runs(
    targets: Iterable[int], entries: Sequence[int], pts: Sequence[int]
) -> list[DecodeRun]:
    """Return the runs that together decode ``targets`` and as few packets as possible.

    Arguments as of :func:`serving_entry`. Runs are in the order of the file; no target needs the
    packets between two of them.

    Example:
        >>> plan_runs([1, 7, 8], [0, 3, 6], range(9))
        [DecodeRun(start=0, targets=(1,)), DecodeRun(start=6, targets=(7, 8))]
    """
    spans = sorted((serving_entry(t, entries, pts), t) for t in set(targets))
    runs: list[tuple[int, list[int]]] = []
    for start, target in spans:
        if runs and start <= max(runs[-1][1]) + 1:
            runs[-1][1].append(target)
        else:
            runs.append((start, [target]))
    return [DecodeRun(start, tuple(sorted(members))) for start, members in runs]


class _UncleanEntryError(Exception):
    """Decoding from the keyframe at ``args[0]`` would not equal decoding from the start."""


class PlannedReader:
    """Reads frames of one open stream by its packet table."""

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
        self._pts: list[int] = table.pts.tolist()
        self._places: list[int] = table.place.tolist()
        keys = np.flatnonzero(table.key).tolist() if decoder.may_start_within else []
        self._entries: list[int] = [key for key in keys if key > 0]

    def read(self, frame_indices: Collection[int]) -> dict[int, NDArray[np.uint8]]:
        """Return frames by index; raise :class:`ContradictionError` if that is impossible."""
        index_of = {int(self._positions[i]): i for i in frame_indices}
        found: dict[int, NDArray[np.uint8]] = {}
        while missing := [p for p, i in index_of.items() if i not in found]:
            for run in plan_runs(missing, self._entries, self._pts):
                try:
                    pictures = self._decode(run)
                except _UncleanEntryError as error:
                    self._entries.remove(error.args[0])
                    break
                found.update({index_of[p]: picture for p, picture in pictures.items()})
        return found

    def _decode(self, run: DecodeRun) -> dict[int, NDArray[np.uint8]]:
        """Return the pictures of a run by position."""
        try:
            self._container.seek(self._pts[run.start], stream=self._stream)
            packets = read_packets(self._container, self._stream)
            first = next(packets, None)
        except av.FFmpegError as error:
            raise ContradictionError(f"seeking fails: {error}") from error
        if first is None:
            raise ContradictionError("seeking leads to the end")
        position = self._position_of(first, run.start)
        shown = self._table.kept[position : run.stop + 1]
        since = None
        if position:
            since = self._pts[position]
            shown = shown & (self._table.pts[position : run.stop + 1] >= since)
        stretch = Stretch(
            self._checked(first, packets, position, run.stop),
            wanted={self._pts[p]: p for p in run.targets},
            expected=int(np.count_nonzero(shown)),
            entry=since,
        )
        return self._decoder.decode([stretch], since=since)

    def _checked(
        self, first: av.Packet, rest: Iterator[av.Packet], start: int, stop: int
    ) -> Iterator[av.Packet]:
        """Yield the packets from ``start`` to ``stop``, each checked against the table."""
        yield first
        for position in range(start + 1, stop + 1):
            packet = next(rest, None)
            if packet is None:
                raise ContradictionError("the file ends before its table does")
            if packet.pts != self._pts[position] or place_of(packet) != self._places[position]:
                raise ContradictionError("packets come in another order after seeking")
            yield packet

    def _position_of(self, packet: av.Packet, start: int) -> int:
        """Return the position of the first packet after seeking to ``start``."""
        position = start
        if packet.pts != self._pts[start]:
            position = self._pts.index(packet.pts) if packet.pts in self._pts else start + 1
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
