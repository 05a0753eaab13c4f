"""Read frames by a plan: seek to what serves them, decode no more than they need."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import av
import numpy as np

from vclr_lightning.data.readers.bitstream import (
    is_clean_entry,
    may_skip_unreferenced,
    may_start_within,
)
from vclr_lightning.data.readers.plan import Run, plan_runs

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.picture import PictureMaker
    from vclr_lightning.data.readers.table import PacketTable

Pictures = dict[int, "NDArray[np.uint8]"]


class UnreliableTableError(Exception):
    """The file does not behave as its packet table says; only decoding from the start is safe."""


class _UncleanEntryError(Exception):
    """Decoding from this keyframe would not equal decoding from the start."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class PlannedReader:
    """Reads frames of one open stream, given its packet table.

    Args:
        container: an open file.
        stream: its video stream, no packet of which has been decoded.
        table: the stream's packets.
        picture: turns a frame into an array.
        skip_unreferenced: whether frames between targets that no other refers to may be left
            out; exact with one decoding thread.
        count_known: whether the number of frames is known from decoding.
    """

    def __init__(
        self,
        *,
        container: InputContainer,
        stream: VideoStream,
        table: PacketTable,
        picture: PictureMaker,
        skip_unreferenced: bool,
        count_known: bool,
    ) -> None:
        context = stream.codec_context
        self._container = container
        self._stream = stream
        self._context = context
        self._table = table
        self._picture = picture
        self._codec = context.codec.canonical_name
        self._extradata = context.extradata or b""
        self._skips = skip_unreferenced and may_skip_unreferenced(self._codec, self._extradata)
        # Two fields of an H.264 picture may come in two packets: then packets count double.
        self._refuse_fields = self._codec == "h264" and not count_known
        self._positions = table.positions()
        keys = np.flatnonzero(table.key) if may_start_within(self._codec) else np.zeros(0, int)
        self._entries: NDArray[np.int64] = keys[keys > 0]
        self._stamps: list[int] = table.pts.tolist()
        self._sizes: list[int] = table.size.tolist()

    def read(self, ranks: Collection[int]) -> Pictures:
        """Return the frames of ``ranks``, each a presentation rank.

        Raises:
            UnreliableTableError: the file contradicts its table.
        """
        rank_of = {int(self._positions[rank]): rank for rank in ranks}
        found: Pictures = {}
        while missing := [p for p, rank in rank_of.items() if rank not in found]:
            for run in plan_runs(missing, self._entries, self._table.pts):
                try:
                    pictures = self._decode(run)
                except _UncleanEntryError as error:
                    self._entries = self._entries[self._entries != error.position]
                    break
                except av.FFmpegError as error:
                    raise UnreliableTableError(f"{error}") from error
                found.update({rank_of[p]: picture for p, picture in pictures.items()})
        return found

    def _decode(self, run: Run) -> Pictures:
        """Return the pictures of a run by position."""
        context, stamps, sizes = self._context, self._stamps, self._sizes
        targets = frozenset(run.targets)
        collect = _Collector(
            {stamps[p]: p for p in run.targets}, self._picture, refuse_fields=self._refuse_fields
        )
        self._container.seek(stamps[run.start], stream=self._stream)
        position = first = -1
        skipping = False
        context.skip_frame = "DEFAULT"
        for packet in self._container.demux(self._stream):
            if not packet.size:
                continue
            if position < 0:
                position = first = self._land(packet, run.start)
                collect.since = stamps[first] if first else None
            elif packet.pts != stamps[position] or packet.size != sizes[position]:
                raise UnreliableTableError("packets come in another order after seeking")
            if self._skips and skipping is (position in targets):
                skipping = not skipping
                context.skip_frame = "NONREF" if skipping else "DEFAULT"
            collect(context.decode(packet))
            if position == run.stop:
                break
            position += 1
        if position != run.stop:
            raise UnreliableTableError("the file ends before its table does")
        collect(context.decode(None))
        if not self._skips:
            sent = slice(first, run.stop + 1)
            shown = self._table.kept[sent]
            if first:
                shown = shown & (self._table.pts[sent] >= stamps[first])
            if collect.count < np.count_nonzero(shown):
                raise UnreliableTableError("fewer frames than packets")
        return collect.pictures()

    def _land(self, packet: av.Packet, start: int) -> int:
        """Return the position of the first packet after seeking to ``start``."""
        at = np.flatnonzero(self._table.pts == packet.pts).tolist()
        if len(at) != 1 or at[0] > start or self._sizes[at[0]] != packet.size:
            raise UnreliableTableError("seeking leads elsewhere")
        position: int = at[0]
        if position > 0:
            if not self._table.key[position]:
                raise UnreliableTableError("seeking leads to no keyframe")
            if not is_clean_entry(self._codec, bytes(packet), self._extradata):
                if position != start:
                    raise UnreliableTableError("seeking leads to an unclean keyframe")
                raise _UncleanEntryError(position)
        return position


class _Collector:
    """Keeps the wanted frames among those that a decoder gives, and watches for contradictions."""

    def __init__(
        self, wanted: dict[int, int], picture: PictureMaker, *, refuse_fields: bool
    ) -> None:
        self._wanted = wanted
        self._picture = picture
        self._refuse_fields = refuse_fields
        self._pictures: Pictures = {}
        self._last: int | None = None
        self.since: int | None = None  # what is shown earlier belongs to a part not decoded
        self.count = 0

    def __call__(self, frames: list[av.VideoFrame]) -> None:
        for frame in frames:
            pts = frame.pts
            if pts is None or (self._last is not None and pts <= self._last):
                raise UnreliableTableError("frames decode in another order than they are shown")
            self._last = pts
            if self.since is not None and pts < self.since:
                continue
            if frame.is_corrupt:
                raise UnreliableTableError("a frame is damaged")
            if self._refuse_fields and frame.interlaced_frame:
                raise UnreliableTableError("two packets may make one frame")
            self.count += 1
            position = self._wanted.get(pts)
            if position is not None:
                self._pictures[position] = self._picture(frame)

    def pictures(self) -> Pictures:
        """Return the wanted frames by position."""
        if len(self._pictures) < len(self._wanted):
            raise UnreliableTableError("a frame that the table promises does not decode")
        return self._pictures
