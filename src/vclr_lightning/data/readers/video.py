"""One opened video file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.readers.picture import PictureMaker
from vclr_lightning.data.readers.planned import PlannedReader, UnreliableTableError
from vclr_lightning.data.readers.sequential import count_frames, read_sequentially
from vclr_lightning.data.readers.table import read_table
from vclr_lightning.data.readers.trust import stream_doubts

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray


class PyAVVideo:
    """A video file opened by :class:`~vclr_lightning.data.readers.PyAVReader`.

    Frames are read by plan as long as the container's packet table can be believed; from the first
    contradiction on, and where there is doubt from the start, by decoding from the first packet.
    Either way a frame is the one that a plain decode of the whole file gives at its rank.
    """

    def __init__(
        self,
        *,
        path: Path,
        container: InputContainer,
        stream: VideoStream,
        num_frames: int | None,
        thread_count: int,
    ) -> None:
        self._path = path
        self._thread_count = thread_count
        self._picture = PictureMaker()
        table = read_table(container, stream)
        stamps_doubt, count_doubt = stream_doubts(table, container.format.name, stream)
        if num_frames is None and (stamps_doubt or count_doubt):
            num_frames = count_frames(path, thread_count=thread_count)
        self._count_known = num_frames is not None
        self._num_frames = table.num_frames if num_frames is None else num_frames
        if self._num_frames < 1:
            raise VideoError("no frame can be decoded")
        self._planned: PlannedReader | None = None
        if stamps_doubt is None and self._num_frames == table.num_frames:
            self._planned = PlannedReader(
                container=container,
                stream=stream,
                table=table,
                picture=self._picture,
                skip_unreferenced=thread_count == 1,
                count_known=self._count_known,
            )

    @property
    def num_frames(self) -> int:
        """Decodable frames."""
        return self._num_frames

    @property
    def by_plan(self) -> bool:
        """Whether frames are read by plan, and not by decoding from the first packet."""
        return self._planned is not None

    def read(self, ranks: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the frames of ``ranks`` as ``(H, W, 3)`` RGB.

        Raises:
            FrameCountChangedError: another number of frames decodes than ``num_frames``, which is
                right from then on.
            IndexError: a rank is negative or not below ``num_frames``.
        """
        order = [int(rank) for rank in ranks]
        if order and not 0 <= min(order) <= max(order) < self._num_frames:
            raise IndexError(f"ranks {order} are not all within 0..{self._num_frames - 1}")
        wanted = set(order)
        pictures: dict[int, NDArray[np.uint8]] | None = None
        contradicted = False
        if self._planned is not None:
            try:
                pictures = self._planned.read(wanted)
            except UnreliableTableError:
                self._planned, contradicted = None, True
        if pictures is None:
            pictures, actual = read_sequentially(
                self._path,
                wanted,
                self._picture,
                to_end=contradicted and not self._count_known,
                thread_count=self._thread_count,
            )
            if actual is not None:
                self._settle(actual)
        return [pictures[rank] for rank in order]

    def _settle(self, actual: int) -> None:
        """Take over the number of frames that decode."""
        self._count_known = True
        if actual != self._num_frames:
            self._num_frames = actual
            raise FrameCountChangedError(actual)
