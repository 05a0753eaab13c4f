"""The packet table of a video stream: what a container says about its frames, without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np

from vclr_lightning.data.readers.bitstream import UnitCheck
from vclr_lightning.data.readers.opening import read_packets

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PacketTable:
    """Every packet of a stream, in the order in which they are decoded.

    Attributes:
        pts: presentation time in units of the stream's time base; 0 where there is none.
        place: where it lies in the file, in bytes; minus its size where that is not known.
        key: whether decoding may start here, by what the container says.
        kept: whether a frame comes of it: not dropped by an edit list, not hidden by the codec.
        stamped: whether every packet has a presentation time.
        intact: whether the container was read to its end without an error, a broken packet, or one
            that changes the header.

    Shape:
        each array ``(P,)``.
    """

    pts: NDArray[np.int64]
    place: NDArray[np.int64]
    key: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    stamped: bool
    intact: bool

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def num_frames(self) -> int:
        """Frames that the container promises."""
        return int(np.count_nonzero(self.kept))

    def positions(self) -> NDArray[np.int64]:
        """Return the packet of each frame, by frame index, ``(num_frames,)``."""
        kept = np.flatnonzero(self.kept)
        return kept[np.argsort(self.pts[kept], kind="stable")]

    @property
    def keyframe_interval(self) -> float | None:
        """Packets for each keyframe, on average; ``None`` without a keyframe."""
        keys = int(np.count_nonzero(self.key))
        return len(self) / keys if keys else None


def place_of(packet: av.Packet) -> int:
    """Return what identifies a packet in its file, see :class:`PacketTable`."""
    place: int | None = packet.pos
    return -packet.size if place is None else place


def _shown(packet: av.Packet) -> bool:
    """Whether a VP8 packet holds a frame to be shown: bit 4 of its first byte."""
    return bool(memoryview(packet)[0] & 0x10)


def read_table(container: InputContainer, stream: VideoStream) -> PacketTable:
    """Read every packet of ``stream`` from where ``container`` stands, decoding none."""
    context = stream.codec_context
    codec = context.codec.canonical_name
    hides = codec == "vp8"
    is_whole = UnitCheck(codec, context.extradata or b"")
    rows: list[tuple[int | None, int, bool, bool]] = []
    intact = True
    try:
        for packet in read_packets(container, stream):
            if packet.is_corrupt or not is_whole(packet, packet.size):
                intact = False
            kept = not packet.is_discard and (not hides or _shown(packet))
            rows.append((packet.pts, place_of(packet), packet.is_keyframe, kept))
    except av.FFmpegError:
        intact = False
    pts, place, key, kept_all = zip(*rows, strict=True) if rows else ((), (), (), ())
    stamped = None not in pts
    return PacketTable(
        pts=np.array(pts if stamped else [0] * len(rows), dtype=np.int64),
        place=np.array(place, dtype=np.int64),
        key=np.array(key, dtype=np.bool_),
        kept=np.array(kept_all, dtype=np.bool_),
        stamped=stamped,
        intact=intact,
    )
