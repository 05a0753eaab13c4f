"""What a container says about the packets of its video stream, and when that can be believed."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter, lt, sub
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from vclr_lightning.data.readers.bitstream import UnitCheck
from vclr_lightning.data.readers.opening import read_packets

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

_KEY, _DISCARD = 1, 2  # flags of an index entry

# Containers that store when each frame is shown; and AVI, whose decoding order is the order of
# presentation unless frames are reordered.
_TIMESTAMPED = frozenset({"mov", "matroska", "flv", "avi"})


@dataclass(frozen=True, slots=True)
class GroupIndex:
    """The index of an MP4: packets in groups of pictures that each start with a keyframe.

    Attributes:
        times: decoding time of each packet, rising.
        starts: position of each keyframe; the first is 0.
    """

    times: list[int]
    starts: list[int]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def spacing(self) -> int | None:
        """Time from each packet to the next if it is constant, else ``None``."""
        steps = set(map(sub, islice(self.times, 1, None), self.times))
        return steps.pop() if len(steps) == 1 else None

    def group(self, position: int) -> range:
        """Return the positions of the group that ``position`` is in.

        Example:
            >>> GroupIndex([0, 1, 2, 3, 4], [0, 3]).group(2)
            range(0, 3)
        """
        number = bisect_right(self.starts, position)
        end = self.starts[number] if number < len(self.starts) else len(self)
        return range(self.starts[number - 1], end)


def read_index(container: InputContainer, stream: VideoStream) -> GroupIndex | None:
    """Return the stream's index, or ``None`` if there is none or it may be incomplete.

    It must hold as many packets as the header promises, the last within the file and none left out
    by an edit list. Reading it costs a tenth of reading the packets.
    """
    entries: Any = getattr(stream, "index_entries", ())  # PyAV 17 and later
    if not container.format.name.startswith("mov") or not 0 < len(entries) == stream.frames:
        return None
    context = stream.codec_context
    codec = context.codec.canonical_name
    if codec == "vp8" or (codec == "mpeg4" and context.has_b_frames):
        return None  # not every packet gives one frame
    read = list(map(attrgetter("timestamp", "flags"), entries))
    times, flags = [time for time, _ in read], [flag for _, flag in read]
    last = entries[-1]
    if (
        not flags[0] & _KEY
        or any(flag & _DISCARD for flag in set(flags))
        or not all(map(lt, times, islice(times, 1, None)))
        or last.pos + last.size > container.size
    ):
        return None
    return GroupIndex(times, [i for i, flag in enumerate(flags) if flag & _KEY])


@dataclass(frozen=True, slots=True)
class PacketTable:
    """Every packet of a stream, in decoding order.

    Attributes:
        pts: presentation time in units of the stream's time base; 0 if there is none.
        place: position in the file in bytes; if unknown, minus the packet's size.
        key: whether the container marks it as a keyframe.
        kept: whether it gives a frame: not dropped by an edit list, not hidden by the codec.
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
        """Packets per keyframe on average, ``None`` without a keyframe."""
        keys = int(np.count_nonzero(self.key))
        return len(self) / keys if keys else None


def place_of(packet: av.Packet) -> int:
    """Return what identifies a packet in its file, see :class:`PacketTable`."""
    place: int | None = packet.pos
    return -packet.size if place is None else place


def read_table(container: InputContainer, stream: VideoStream) -> PacketTable:
    """Read every packet of ``stream`` from where ``container`` stands, decoding none."""
    context = stream.codec_context
    codec = context.codec.canonical_name
    is_whole = UnitCheck(codec, context.extradata or b"")
    rows: list[tuple[int | None, int, bool, bool]] = []
    intact = True
    try:
        for packet in read_packets(container, stream):
            if packet.is_corrupt or not is_whole(packet, packet.size):
                intact = False
            # Bit 4 of a VP8 packet's first byte: whether its frame is shown.
            shown = codec != "vp8" or bool(memoryview(packet)[0] & 0x10)
            kept = shown and not packet.is_discard
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


def timestamp_doubt(
    table: PacketTable,
    *,
    container: str,
    codec: str,
    reorders: bool,
    tagged: bool,
    counted: bool = False,
) -> str | None:
    """Return why presentation times cannot identify frames, or ``None`` if they can.

    Args:
        table: the stream's packets.
        container: FFmpeg's name of the format, such as ``mov,mp4,m4a,3gp,3g2,mj2``.
        codec: FFmpeg's name of it.
        reorders: whether the decoder shows frames in another order than it decodes them.
        tagged: whether the stream has a four-character code of its codec. In Matroska this marks
            streams copied from an AVI, with AVI's times.
        counted: whether as many frames decode as the table promises; then a container that need
            not store all times is believed.
    """
    family = container.split(",")[0]
    if family not in _TIMESTAMPED and not counted:
        return f"{family} does not say of every frame when it is shown"
    if not table.stamped:
        return "some packets have no presentation time"
    rising = bool(np.all(np.diff(table.pts) > 0))
    if not rising and len(np.unique(table.pts)) < len(table):
        return "two packets have one presentation time"
    if reorders:
        if family == "avi" or (family == "matroska" and tagged):
            return "frames are reordered and the container stores times of decoding"
        if codec == "mpeg4":
            return "frames are reordered and two may share a packet"
        if rising:
            return "frames are reordered, but not by their presentation times"
    elif not rising:
        return "frames are not reordered, but their presentation times are"
    return None


def count_doubt(table: PacketTable, *, promised: int) -> str | None:
    """Return why the number of frames may differ from the table's and the header's, or ``None``."""
    if not table.intact:
        return "the file is damaged"
    if promised and promised != len(table):
        return f"the header promises {promised} frames and the file holds {len(table)} packets"
    if len(table) and not table.key[0]:
        return "the first packet is no keyframe"
    if len(table) and bool(np.any(table.kept & (table.pts < table.pts[0]))):
        return "frames are shown before the first keyframe"
    return None


def stream_doubts(
    table: PacketTable, container: str, stream: VideoStream, *, counted: bool = False
) -> tuple[str | None, str | None]:
    """Return :func:`timestamp_doubt` and :func:`count_doubt` of an open stream."""
    context = stream.codec_context
    try:
        tagged = bool((context.codec_tag or "").strip("\x00"))
    except UnicodeDecodeError:  # PyAV takes any tag for ASCII
        tagged = True
    timestamps = timestamp_doubt(
        table,
        container=container,
        codec=context.codec.canonical_name,
        reorders=bool(context.has_b_frames),
        tagged=tagged,
        counted=counted,
    )
    return timestamps, count_doubt(table, promised=stream.frames or 0)
