"""Examine a video file before training on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.data.protocols import FRAME_SLACK, LEAST_SHARE, VideoError
from vclr_lightning.data.readers.decoding import PictureMaker
from vclr_lightning.data.readers.opening import WholeFile, open_stream
from vclr_lightning.data.readers.packets import PacketTable, read_table, stream_doubts
from vclr_lightning.data.readers.sequential import (
    MAX_DAMAGED,
    SequentialDecoder,
    check_share,
    stamped_times,
)
from vclr_lightning.data.readers.structure import ENCRYPTED, is_encrypted, promised_size

if TYPE_CHECKING:
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

_RATE_SLACK = 0.02  # share; times of a few frames in milliseconds are no more exact


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoProbe:
    """What :func:`probe` found.

    Attributes:
        duration: seconds that the frames are shown for, ``None`` if unknown.
        num_frames: frames that decode; if not ``exact``, frames that the container promises.
        exact: whether ``num_frames`` was counted by decoding the whole file.
        fps: frames per second on average, ``None`` if unknown.
        width: pixels of the upright picture.
        height: pixels of the upright picture.
        codec: FFmpeg's name of it, such as ``h264``.
        keyframe_interval: frames per keyframe on average, ``None`` if the container marks none.
        damaged: share of the frames that are damaged or do not decode, as far as the decoder
            notices; ``None`` unless asked for.
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


def probe(path: Path, *, decode: bool = False, max_damaged: float = MAX_DAMAGED) -> VideoProbe:
    """Examine a video file.

    Args:
        path: a video file.
        decode: whether to decode all of it, which gives the exact number of frames and reveals
            damage as far as the decoder notices any. Otherwise only the first frame is decoded, or
            all if the container's own metadata is in doubt.
        max_damaged: share of the frames that may be damaged; without ``decode``, that may not
            decode.

    Raises:
        VideoError: the video cannot be read, is encrypted, has more damage, or breaks off before
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
        with source.opened() as file:
            if is_encrypted(file):
                raise VideoError(ENCRYPTED)
            promised = promised_size(file) or 0
        family, size = container.format.name.split(",")[0], container.size
        table = read_table(container, stream)
        doubts = stream_doubts(table, container.format.name, stream)
        timestamps: list[int | None] | None = None
        with open_stream(source, watched=True) as (watched, frames_of):
            decoder = SequentialDecoder(watched, frames_of, count_damage=decode)
            frames = iter(decoder)
            first = next(frames, None)
            if first is None:
                raise VideoError("no frame can be decoded")
            height, width, _ = PictureMaker()(first).shape
            codec = stream.codec_context.codec.canonical_name
            # Two fields of an H.264 picture may come in two packets, which only decoding reveals.
            fields = first.interlaced_frame and codec == "h264"
            if decode or promised > size or any(doubts) or fields:
                timestamps = [first.pts, *(frame.pts for frame in frames)]
        count = table.num_frames if timestamps is None else len(timestamps)
        _refuse_truncation(family, stream, table, count)
        if size < LEAST_SHARE * promised:
            raise VideoError(
                f"truncated: of {promised:,} bytes that its header promises there are {size:,}"
            )
        if timestamps is not None:
            decoder.refuse_damage(max_damaged)
        duration = _shown_seconds(_times(stream, table, timestamps))
        fps = _frames_per_second(stream, count, duration)
        if duration is None and fps:
            duration = count / fps
        elif duration is None and container.duration:
            duration = container.duration / 1e6
        return VideoProbe(
            duration=duration,
            num_frames=count,
            exact=timestamps is not None,
            fps=fps,
            width=width,
            height=height,
            codec=codec,
            keyframe_interval=table.keyframe_interval,
            damaged=decoder.damaged if decode else None,
        )


def _refuse_truncation(family: str, stream: VideoStream, table: PacketTable, count: int) -> None:
    promised = stream.frames or 0
    if promised - len(table) <= max(FRAME_SLACK, (1 - LEAST_SHARE) * promised):
        return
    if family == "mov" and stream.duration and stream.time_base:
        # Packets may be missing because the edit list leaves them out.
        shown = _shown_seconds(_times(stream, table, None))
        if shown is not None and shown >= LEAST_SHARE * float(stream.duration * stream.time_base):
            return
    raise VideoError(f"truncated: the header promises {promised} frames, {count} decode")


def _times(
    stream: VideoStream, table: PacketTable, timestamps: list[int | None] | None
) -> NDArray[np.float64] | None:
    """When frames are shown, by the decoded frames or else by the packets."""
    if not stream.time_base:
        return None
    if timestamps is not None:
        return stamped_times(timestamps, float(stream.time_base))
    return np.sort(table.pts[table.kept]) * np.float64(stream.time_base) if table.stamped else None


def _shown_seconds(times: NDArray[np.float64] | None) -> float | None:
    """How long frames are shown, the last one as long as usual; ``None`` for a single frame."""
    if times is None or len(times) < 2:
        return None
    return float(times[-1] - times[0] + np.median(np.diff(times)))


def _frames_per_second(
    stream: VideoStream, num_frames: int, duration: float | None
) -> float | None:
    """The header's rate if the times agree with it: it is often only the unit of time."""
    rate = float(stream.average_rate or stream.guessed_rate or 0) or None
    slack = max(FRAME_SLACK + 0.5, _RATE_SLACK * num_frames)
    if duration and not (rate and abs(rate * duration - num_frames) < slack):
        return num_frames / duration
    return rate
