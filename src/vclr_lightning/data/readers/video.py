"""One opened video file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.readers.decoding import ContradictionError, StretchDecoder
from vclr_lightning.data.readers.index import GroupIndex, read_index
from vclr_lightning.data.readers.indexed import IndexedReader
from vclr_lightning.data.readers.opening import is_mp4
from vclr_lightning.data.readers.order import parameter_sets, shows_as_decoded
from vclr_lightning.data.readers.picture import PictureMaker
from vclr_lightning.data.readers.planned import PlannedReader
from vclr_lightning.data.readers.sequential import read_sequentially, read_stamps
from vclr_lightning.data.readers.table import PacketTable, read_table
from vclr_lightning.data.readers.times import frame_times
from vclr_lightning.data.readers.trust import stream_doubts

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from vclr_lightning.data.readers.sources import VideoSource
    from vclr_lightning.data.readers.tables import TableStore


class Attach(Protocol):
    """Opens the video once more, for as long as the reader has it open.

    Args:
        probed: as of :func:`~vclr_lightning.data.readers.opening.open_stream`.

    Raises:
        VideoError: it is no readable video.
    """

    def __call__(self, *, probed: bool = True) -> tuple[InputContainer, VideoStream]: ...


class PyAVVideo:
    """A video file opened by :class:`~vclr_lightning.data.readers.PyAVReader`.

    Frames are read by plan as long as the container's packet table can be believed; from the first
    contradiction on, and where there is doubt from the start, by decoding from the first packet.
    Either way a frame is the one that a plain decode of the whole file gives at its index.
    """

    def __init__(
        self,
        *,
        source: VideoSource,
        attach: Attach,
        num_frames: int | None,
        thread_count: int,
        max_damaged: float,
        tables: TableStore | None = None,
    ) -> None:
        self._source = source
        self._attach = attach
        self._decoding: dict[str, Any] = {"thread_count": thread_count, "max_damaged": max_damaged}
        self._one_thread = thread_count == 1
        self._stamps: list[int | None] | None = None
        self._picture = PictureMaker()
        self._num_frames = num_frames or 0
        self._count_known = num_frames is not None
        self._planned: IndexedReader | PlannedReader | None = None
        self._tables = tables
        self._known = tables.load(source) if tables is not None else None
        self._table_is_kept = isinstance(self._known, PacketTable)
        if isinstance(self._known, PacketTable):
            self._container, self._stream = attach()
            self._plan_by_table(self._known)
        elif not self._plan_by_header():
            self._container, self._stream = attach()
            in_doubt = bool(self._stream.codec_context.has_b_frames)
            if not self._plan_by_index(self._index(), stamps_in_doubt=in_doubt):
                self._plan_by_table(self._read_table())
        if self._num_frames < 1:
            raise VideoError("no frame can be decoded")

    def _index(self) -> GroupIndex | None:
        if isinstance(self._known, GroupIndex):
            return self._known
        return read_index(self._container, self._stream)

    def _plan_by_header(self) -> bool:
        """Read by the container's index as below, if nothing need be decoded to believe it.

        What probing would tell of an H.264 stream is whether frames are reordered. That is known
        where the container's times of presentation show it (then FFmpeg says so, unprobed), where
        each frame is a group on its own, and where the stream's header says that they are not.
        Colours that the header tells stay in force for parts that tell none, when the decoder has
        seen the header's first: with those, the file is probed.
        """
        if not is_mp4(self._source):
            return False
        self._container, self._stream = self._attach(probed=False)
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
        alone = len(index.starts) == len(index)
        if not (alone or context.has_b_frames or shows_as_decoded(sets)):
            return False
        return self._plan_by_index(index, stamps_in_doubt=False)

    def _plan_by_index(self, index: GroupIndex | None, *, stamps_in_doubt: bool) -> bool:
        """Read by the container's index from now on, if it has one that can be believed."""
        decoder = self._decoder()
        if index is None or not decoder.may_start_within:
            return False
        if self._count_known and self._num_frames != len(index):
            return False
        if self._tables is not None and index is not self._known:
            self._tables.keep(self._source, index)
        self._num_frames = len(index)
        self._planned = IndexedReader(
            container=self._container,
            stream=self._stream,
            index=index,
            decoder=decoder,
            stamps_in_doubt=stamps_in_doubt,
        )
        return True

    def _plan_by_table(self, table: PacketTable) -> None:
        """Read by the packet table from now on, or, if it cannot be believed, sequentially."""
        stamps_doubt, count_doubt = stream_doubts(table, self._container.format.name, self._stream)
        if not self._count_known:
            self._num_frames = table.num_frames
            if stamps_doubt or count_doubt:
                self._stamps = read_stamps(self._source, **self._decoding)
                self._num_frames = len(self._stamps)
                self._count_known = True
        self._planned = None
        decoder = self._decoder()
        sure = table.intact and stamps_doubt is None and decoder.may_seek
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
            skip_unreferenced=self._one_thread,
            count_known=self._count_known,
        )

    def _contradicted(self) -> None:
        """Go by the packet table instead of the index, or by nothing instead of the table."""
        if self._table_is_kept:  # some containers seek only where they have been read before
            self._table_is_kept = False
            self._container.seek(0)
            self._plan_by_table(self._read_table())
            return
        if not isinstance(self._planned, IndexedReader):
            self._planned = None
            return
        promised = self._num_frames
        self._container, self._stream = self._attach()
        self._plan_by_table(self._read_table())
        if self._num_frames != promised:
            raise FrameCountChangedError(self._num_frames)

    @property
    def num_frames(self) -> int:
        """Decodable frames."""
        return self._num_frames

    @property
    def by_plan(self) -> bool:
        """Whether frames are read by plan, and not by decoding from the first packet."""
        return self._planned is not None

    def times(self) -> NDArray[np.float64]:
        """Return when each frame is shown, in seconds from the first, ``(num_frames,)``.

        Presentation times where the container or its frames have them, which for an MP4 at a
        constant rate its index gives; otherwise frames are taken to be as far apart as the
        stream's average rate says.

        Raises:
            VideoError: the file tells neither.
        """
        index = self._planned.index if isinstance(self._planned, IndexedReader) else None
        if index is not None and index.spacing is not None and self._stream.time_base:
            step = index.spacing * self._stream.time_base
            return np.arange(self._num_frames, dtype=np.float64) * float(step)
        return frame_times(
            self._source, num_frames=self._num_frames, stamps=self._stamps, **self._decoding
        )

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the frames of ``frame_indices`` as ``(H, W, 3)`` RGB.

        Raises:
            FrameCountChangedError: another number of frames decodes than ``num_frames``, which is
                right from then on.
            IndexError: an index is negative or not below ``num_frames``.
        """
        order = [int(index) for index in frame_indices]
        if order and not 0 <= min(order) <= max(order) < self._num_frames:
            raise IndexError(f"frame indices {order} are not all within 0..{self._num_frames - 1}")
        wanted = set(order)
        to_end = False
        while self._planned is not None:
            try:
                pictures = self._planned.read(wanted)
                return [pictures[index] for index in order]
            except ContradictionError:
                self._contradicted()
                to_end = not self._count_known
        pictures, actual = read_sequentially(
            self._source, wanted, self._picture, to_end=to_end, **self._decoding
        )
        if actual is not None:
            self._settle(actual)
        return [pictures[index] for index in order]

    def _settle(self, actual: int) -> None:
        """Take over the number of frames that decode."""
        self._count_known = True
        if actual != self._num_frames:
            self._num_frames = actual
            raise FrameCountChangedError(actual)
