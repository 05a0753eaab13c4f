"""What can be said of a video file before it is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.data.protocols import FRAME_SLACK, LEAST_SHARE, VideoError
from vclr_lightning.data.readers.opening import open_stream
from vclr_lightning.data.readers.picture import PictureMaker
from vclr_lightning.data.readers.sequential import MAX_DAMAGED, SequentialDecoder, check_share
from vclr_lightning.data.readers.sources import VideoSource, WholeFile
from vclr_lightning.data.readers.structure import ENCRYPTED, is_encrypted, promised_size
from vclr_lightning.data.readers.table import PacketTable, read_table
from vclr_lightning.data.readers.times import shown_seconds, stamped_times
from vclr_lightning.data.readers.trust import stream_doubts

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

_RATE_SLACK = 0.02  # times in milliseconds, of a few frames, tell no better


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoProbe:
    """What :func:`probe` found.

    Attributes:
        duration: seconds that the frames are shown for; ``None`` where nothing tells.
        num_frames: frames that decode; where not ``exact``, frames that the container promises.
        exact: whether ``num_frames`` comes of decoding the whole file.
        fps: frames per second on average; ``None`` where nothing tells.
        width: pixels of the upright picture.
        height: pixels of the upright picture.
        codec: FFmpeg's name of it, such as ``h264``.
        keyframe_interval: frames for each keyframe, on average; ``None`` where the container
            marks no keyframe.
        damaged: share of the frames that are damaged or do not decode, as far as the decoder
            notices; ``None`` where that was not asked.
    """

    duration: float | None
    num_frames: int
    exact: bool
    fps: float | None
    width: int
    height: int
    codec: str
    keyframe_interval: float | None
    damaged: float | None = None


@dataclass(frozen=True, slots=True)
class _Glance:
    """What decoding shows: the first picture, and the rest where decoding went to the end."""

    width: int
    height: int
    decoder: SequentialDecoder
    stamps: list[int | None] | None = None


def probe(path: Path, *, decode: bool = False, max_damaged: float = MAX_DAMAGED) -> VideoProbe:
    """Look into a video file.

    Args:
        path: a video file.
        decode: whether to decode all of it, so that the number of frames is exact and damage
            shows, as far as the decoder notices any; otherwise only the first frame is, and all of
            it where the container's own account is in doubt.
        max_damaged: share of the frames that may be damaged; without ``decode``, that may not
            decode.

    Raises:
        VideoError: it is no readable video, encrypted, damaged by more, or it breaks off before
            nine tenths of what its header promises.
        UserError: ``max_damaged`` is not between 0 and 1.

    Example:
        >>> probe(Path("no/such/file.mp4"))
        Traceback (most recent call last):
        ...
        vclr_lightning.data.protocols.VideoError: the file does not exist
    """
    check_share(max_damaged)
    source = WholeFile(Path(path))
    with open_stream(source) as (container, stream):
        if is_encrypted(source):
            raise VideoError(ENCRYPTED)
        table = read_table(container, stream)
        size, promised = container.size, promised_size(source) or 0
        to_end = (
            decode or promised > size or any(stream_doubts(table, container.format.name, stream))
        )
        glance = _look(source, to_end=to_end, noticing=decode)
        count = table.num_frames if glance.stamps is None else len(glance.stamps)
        _refuse_truncation(container.format.name.split(",")[0], stream, table, count)
        if size < LEAST_SHARE * promised:
            raise VideoError(
                f"truncated: of {promised:,} bytes that its header promises there are {size:,}"
            )
        if glance.stamps is not None:
            glance.decoder.refuse_damage(max_damaged)
        times = _times(stream, table, glance.stamps)
        duration = None if times is None else shown_seconds(times)
        fps = _frames_per_second(stream, count, duration)
        if duration is None:
            duration = count / fps if fps else _header_seconds(container)
        return VideoProbe(
            duration=duration,
            num_frames=count,
            exact=glance.stamps is not None,
            fps=fps,
            width=glance.width,
            height=glance.height,
            codec=stream.codec_context.codec.canonical_name,
            keyframe_interval=table.keyframe_interval,
            damaged=glance.decoder.damaged if decode else None,
        )


def _look(source: VideoSource, *, to_end: bool, noticing: bool) -> _Glance:
    """Decode the first frame, or all."""
    with open_stream(source, watched=True) as (container, stream):
        decoder = SequentialDecoder(container, stream, noticing=noticing)
        frames = iter(decoder)
        first = next(frames, None)
        if first is None:
            raise VideoError("no frame can be decoded")
        height, width, _ = PictureMaker()(first).shape
        # Two fields of an H.264 picture may come in two packets, which only decoding tells.
        fields = first.interlaced_frame and stream.codec_context.codec.canonical_name == "h264"
        if not to_end and not fields:
            return _Glance(width, height, decoder)
        return _Glance(width, height, decoder, [first.pts, *(frame.pts for frame in frames)])


def _refuse_truncation(family: str, stream: VideoStream, table: PacketTable, count: int) -> None:
    promised = stream.frames or 0
    missing = promised - len(table)
    if missing > max(FRAME_SLACK, (1 - LEAST_SHARE) * promised) and not (
        family == "mov" and _fills_its_duration(stream, table)
    ):
        raise VideoError(f"truncated: the header promises {promised} frames, {count} decode")


def _fills_its_duration(stream: VideoStream, table: PacketTable) -> bool:
    """Whether packets are missing from an MP4 because its edit list leaves them out."""
    times = _times(stream, table, None)
    shown = None if times is None else shown_seconds(times)
    if shown is None or not stream.duration or not stream.time_base:
        return False
    return shown >= LEAST_SHARE * float(stream.duration * stream.time_base)


def _times(
    stream: VideoStream, table: PacketTable, stamps: list[int | None] | None
) -> NDArray[np.float64] | None:
    """When frames are shown: those that decoded, or else what the packets say."""
    if not stream.time_base:
        return None
    if stamps is not None:
        return stamped_times(stamps, float(stream.time_base))
    return np.sort(table.pts[table.kept]) * np.float64(stream.time_base) if table.stamped else None


def _frames_per_second(
    stream: VideoStream, num_frames: int, duration: float | None
) -> float | None:
    """The header's rate where the times agree with it: it is often only the unit of time."""
    rate = float(stream.average_rate or stream.guessed_rate or 0) or None
    slack = max(FRAME_SLACK + 0.5, _RATE_SLACK * num_frames)
    if duration and not (rate and abs(rate * duration - num_frames) < slack):
        return num_frames / duration
    return rate


def _header_seconds(container: InputContainer) -> float | None:
    return container.duration / 1e6 if container.duration else None
