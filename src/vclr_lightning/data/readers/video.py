"""One open video file: how to find its frames, and what to do when the file contradicts itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.data.protocols import FrameCountChangedError, VideoError, checked_indices
from vclr_lightning.data.readers.bitstream import parameter_sets
from vclr_lightning.data.readers.decoding import ContradictionError, PictureMaker, StretchDecoder
from vclr_lightning.data.readers.indexed import IndexedReader
from vclr_lightning.data.readers.opening import head, open_stream
from vclr_lightning.data.readers.packets import (
    GroupIndex,
    PacketTable,
    read_index,
    read_table,
    stream_doubts,
)
from vclr_lightning.data.readers.planned import PlannedReader
from vclr_lightning.data.readers.sequential import frame_times, read_sequentially, read_timestamps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.opening import ByteSource
    from vclr_lightning.data.readers.table_store import TableStore


class PyAVVideo:
    """A video file opened by :class:`~vclr_lightning.data.readers.PyAVReader`.

    Frames are read by the container's index or packet table as long as it can be believed; after
    a contradiction, or if there is doubt from the start, by decoding from the first packet.
    """

    def __init__(
        self,
        source: ByteSource,
        opened: ExitStack,
        num_frames: int | None,
        tables: TableStore | None,
        decoding: dict[str, Any],
    ) -> None:
        self._source = source
        self._opened = opened
        self._decoding = decoding
        self._num_frames = num_frames or 0
        self._count_known = num_frames is not None
        self._picture = PictureMaker()
        self._timestamps: list[int | None] | None = None
        self._planned: IndexedReader | PlannedReader | None = None
        self._tables = tables
        self._cached = tables.load(source) if tables is not None else None
        self._table_is_cached = isinstance(self._cached, PacketTable)
        if isinstance(self._cached, PacketTable):
            self._open()
            self._plan_by_table(self._cached)
        elif not self._plan_by_header():
            self._open()
            in_doubt = bool(self._stream.codec_context.has_b_frames)
            if not self._plan_by_index(self._index(), timestamps_in_doubt=in_doubt):
                self._plan_by_table(self._read_table())
        if self._num_frames < 1:
            raise VideoError("no frame can be decoded")

    def _open(self, *, probed: bool = True) -> None:
        threads = self._decoding["thread_count"]
        stream = open_stream(self._source, thread_count=threads, probed=probed)
        self._container, self._stream = self._opened.enter_context(stream)

    def _index(self) -> GroupIndex | None:
        if isinstance(self._cached, GroupIndex):
            return self._cached
        return read_index(self._container, self._stream)

    def _plan_by_header(self) -> bool:
        """Read by the index of an H.264 MP4 whose header makes FFmpeg's probing decode needless.

        Probing finds out whether frames are reordered. This is known without it if the container's
        presentation times show reordering (then FFmpeg reports it unprobed), if each frame is a
        group on its own, or if the header says that frames are not reordered. A header that
        contains colours is probed: they stay in force for later parts that contain none.
        """
        try:
            if head(self._source, 8)[4:] != b"ftyp":
                return False
        except OSError:  # which opening it again reports
            return False
        self._open(probed=False)
        context = self._stream.codec_context
        extradata = context.extradata or b""
        if context.codec.canonical_name != "h264" or extradata[:1] != b"\x01":
            return False
        sets = parameter_sets(extradata)
        if sets is None or any(one.colours for one in sets):
            return False
        index = self._index()
        if index is None:
            return False
        intra = len(index.starts) == len(index)
        if not (intra or context.has_b_frames or all(one.as_decoded for one in sets)):
            return False
        return self._plan_by_index(index, timestamps_in_doubt=False)

    def _plan_by_index(self, index: GroupIndex | None, *, timestamps_in_doubt: bool) -> bool:
        """Read by the container's index from now on, if it has one that can be believed."""
        decoder = self._decoder()
        if index is None or not decoder.may_start_within:
            return False
        if self._count_known and self._num_frames != len(index):
            return False
        if self._tables is not None and index is not self._cached:
            self._tables.keep(self._source, index)
        self._num_frames = len(index)
        self._planned = IndexedReader(
            container=self._container,
            stream=self._stream,
            index=index,
            decoder=decoder,
            timestamps_in_doubt=timestamps_in_doubt,
        )
        return True

    def _plan_by_table(self, table: PacketTable) -> None:
        """Read by the packet table from now on or, if it cannot be believed, sequentially."""
        doubts = stream_doubts(table, self._container.format.name, self._stream)
        if not self._count_known:
            self._num_frames = table.num_frames
            if any(doubts):
                self._timestamps = read_timestamps(self._source, **self._decoding)
                self._num_frames = len(self._timestamps)
                self._count_known = True
        self._planned = None
        decoder = self._decoder()
        sure = table.intact and doubts[0] is None and decoder.may_seek
        if sure and self._num_frames == table.num_frames:
            self._planned = PlannedReader(
                container=self._container, stream=self._stream, table=table, decoder=decoder
            )

    def _read_table(self) -> PacketTable:
        table = read_table(self._container, self._stream)
        if self._tables is not None:
            self._tables.keep(self._source, table)
        return table

    def _decoder(self) -> StretchDecoder:
        return StretchDecoder(
            stream=self._stream,
            picture=self._picture,
            skip_unreferenced=self._decoding["thread_count"] == 1,
            count_known=self._count_known,
        )

    def _contradicted(self) -> None:
        """Go on with the packet table instead of the index, or sequentially instead of either."""
        if self._table_is_cached:  # some containers seek only where they have been read before
            self._table_is_cached = False
            self._container.seek(0)
            self._plan_by_table(self._read_table())
        elif isinstance(self._planned, IndexedReader):
            promised = self._num_frames
            self._open()
            self._plan_by_table(self._read_table())
            if self._num_frames != promised:
                raise FrameCountChangedError(self._num_frames)
        else:
            self._planned = None

    @property
    def num_frames(self) -> int:
        """Decodable frames."""
        return self._num_frames

    @property
    def by_plan(self) -> bool:
        """Whether frames are read by index or table, not by decoding from the first packet."""
        return self._planned is not None

    def times(self) -> NDArray[np.float64]:
        """Return when each frame is shown, in seconds from the first, ``(num_frames,)``.

        Presentation times if the container or its frames have them, which for an MP4 at a constant
        rate its index gives; otherwise evenly spaced times by the stream's average rate.

        Raises:
            VideoError: the file has neither.
        """
        spacing = self._planned.index.spacing if isinstance(self._planned, IndexedReader) else None
        if spacing is not None and self._stream.time_base:
            step = spacing * self._stream.time_base
            return np.arange(self._num_frames, dtype=np.float64) * float(step)
        return frame_times(
            self._source,
            num_frames=self._num_frames,
            timestamps=self._timestamps,
            **self._decoding,
        )

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the frames of ``frame_indices`` as ``(H, W, 3)`` RGB.

        Raises:
            FrameCountChangedError: another number of frames decodes than ``num_frames``, which is
                right from then on.
            IndexError: an index is negative or not below ``num_frames``.
        """
        order = checked_indices(frame_indices, self._num_frames)
        wanted = set(order)
        to_end = False
        while self._planned is not None:
            try:
                pictures = self._planned.read(wanted)
                return [pictures[i] for i in order]
            except ContradictionError:
                self._contradicted()
                to_end = not self._count_known
        pictures, actual = read_sequentially(
            self._source, wanted, self._picture, to_end=to_end, **self._decoding
        )
        if actual is not None:
            self._count_known = True
            if actual != self._num_frames:
                self._num_frames = actual
                raise FrameCountChangedError(actual)
        return [pictures[i] for i in order]
