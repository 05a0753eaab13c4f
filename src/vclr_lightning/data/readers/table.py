"""The packet table of a video stream: what a container says about its frames, without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np

from vclr_lightning.data.readers.bitstream import fills_packet, length_prefix
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
        size: bytes.
        key: whether decoding may start here, by what the container says.
        kept: whether a frame comes of it: not dropped by an edit list, not hidden by the codec.
        stamped: whether every packet has a presentation time.
        intact: whether the container was read to its end without an error or a broken packet.

    Shape:
        each array ``(P,)``.
    """

    pts: NDArray[np.int64]
    size: NDArray[np.int64]
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
        """Return the packet of each frame, by presentation rank, ``(num_frames,)``."""
        kept = np.flatnonzero(self.kept)
        return kept[np.argsort(self.pts[kept], kind="stable")]

    @property
    def keyframe_interval(self) -> float | None:
        """Packets for each keyframe, on average; ``None`` without a keyframe."""
        keys = int(np.count_nonzero(self.key))
        return len(self) / keys if keys else None


def _shown(packet: av.Packet) -> bool:
    """Whether a VP8 packet holds a frame to be shown: bit 4 of its first byte."""
    return bool(memoryview(packet)[0] & 0x10)


def read_table(container: InputContainer, stream: VideoStream) -> PacketTable:
    """Read every packet of ``stream`` from where ``container`` stands, decoding none."""
    context = stream.codec_context
    codec = context.codec.canonical_name
    hides = codec == "vp8"
    width = length_prefix(codec, context.extradata or b"")
    rows: list[tuple[int | None, int, bool, bool]] = []
    intact = True
    try:
        for packet in read_packets(container, stream):
            if packet.is_corrupt or (width and not fills_packet(packet, packet.size, width)):
                intact = False
            kept = not packet.is_discard and (not hides or _shown(packet))
            rows.append((packet.pts, packet.size, packet.is_keyframe, kept))
    except av.FFmpegError:
        intact = False
    pts, size, key, kept_all = zip(*rows, strict=True) if rows else ((), (), (), ())
    stamped = None not in pts
    return PacketTable(
        pts=np.array(pts if stamped else [0] * len(rows), dtype=np.int64),
        size=np.array(size, dtype=np.int64),
        key=np.array(key, dtype=np.bool_),
        kept=np.array(kept_all, dtype=np.bool_),
        stamped=stamped,
        intact=intact,
    )
