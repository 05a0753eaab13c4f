"""When a packet table may be believed, and when the decoder must be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

    from vclr_lightning.data.readers.table import PacketTable

# Containers that store when each frame is shown, and AVI, which stores the order of decoding and
# so tells it only for streams in which both orders are one.
_STAMPING = frozenset({"mov", "matroska", "flv", "avi"})


def stamps_doubt(
    *,
    table: PacketTable,
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
        codec: FFmpeg's name of the codec.
        reorders: whether the decoder shows frames in another order than it decodes them.
        tagged: whether the stream carries a four-character code of its codec; in Matroska that
            is how streams out of an AVI are stored, with AVI's times.
        counted: whether as many frames decode as the table promises; then a container that need
            not tell all times is believed.
    """
    family = container.split(",")[0]
    if family not in _STAMPING and not counted:
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


def count_doubt(*, table: PacketTable, promised: int) -> str | None:
    """Return why the number of frames may differ from the table's, or ``None``.

    Args:
        table: the stream's packets.
        promised: frames by the container's header; 0 where it says nothing.
    """
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
    """Return :func:`stamps_doubt` and :func:`count_doubt` of an open stream."""
    context = stream.codec_context
    stamps = stamps_doubt(
        table=table,
        container=container,
        codec=context.codec.canonical_name,
        reorders=bool(context.has_b_frames),
        tagged=_is_tagged(context),
        counted=counted,
    )
    return stamps, count_doubt(table=table, promised=stream.frames or 0)


def _is_tagged(context: VideoCodecContext) -> bool:
    try:
        return bool((context.codec_tag or "").strip("\x00"))
    except UnicodeDecodeError:  # PyAV takes any tag for ASCII
        return True
