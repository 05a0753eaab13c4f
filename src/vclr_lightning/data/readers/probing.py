"""What can be said of a video file before it is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.data.protocols import FRAME_SLACK, LEAST_SHARE, VideoError
from vclr_lightning.data.readers.opening import open_stream
from vclr_lightning.data.readers.picture import PictureMaker
from vclr_lightning.data.readers.sequential import SequentialDecoder
from vclr_lightning.data.readers.table import PacketTable, read_table
from vclr_lightning.data.readers.trust import stream_doubts

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


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
    """

    duration: float | None
    num_frames: int
    exact: bool
    fps: float | None
    width: int
    height: int
    codec: str
    keyframe_interval: float | None


@dataclass(frozen=True, slots=True)
class _Glance:
    """What decoding shows: the first picture, and the count where decoding went to the end."""

    width: int
    height: int
    count: int | None


def probe(path: Path, *, decode: bool = False) -> VideoProbe:
    """Look into a video file.

    Args:
        path: a video file.
        decode: whether to decode all of it, so that the number of frames is exact and damage
            shows; otherwise only the first frame is, and all of it where the container's own
            account is in doubt.

    Raises:
        VideoError: it is no readable video, more than a tenth of it is damaged, or it breaks off
            before nine tenths of what its header promises.

    Example:
        >>> probe(Path("no/such/file.mp4"))
        Traceback (most recent call last):
        ...
        vclr_lightning.data.protocols.VideoError: the file does not exist
    """
    path = Path(path)
    with open_stream(path) as (container, stream):
        table = read_table(container, stream)
        stamps_doubt, count_doubt = stream_doubts(table, container.format.name, stream)
        glance = _look(path, to_end=decode or bool(stamps_doubt or count_doubt))
        _refuse_truncation(container.format.name.split(",")[0], stream, table, glance.count)
        num_frames = table.num_frames if glance.count is None else glance.count
        duration = None if stamps_doubt else _shown_seconds(stream, table)
        fps = _frames_per_second(stream, num_frames, duration)
        if duration is None:
            duration = num_frames / fps if fps else _header_seconds(container)
        return VideoProbe(
            duration=duration,
            num_frames=num_frames,
            exact=glance.count is not None,
            fps=fps,
            width=glance.width,
            height=glance.height,
            codec=stream.codec_context.codec.canonical_name,
            keyframe_interval=table.keyframe_interval,
        )


def _look(path: Path, *, to_end: bool) -> _Glance:
    """Decode the first frame, or all."""
    with open_stream(path, watched=True) as (container, stream):
        decoder = SequentialDecoder(container, stream)
        frames = iter(decoder)
        first = next(frames, None)
        if first is None:
            raise VideoError("no frame can be decoded")
        height, width, _ = PictureMaker()(first).shape
        # Two fields of an H.264 picture may come in two packets, which only decoding tells.
        fields = first.interlaced_frame and stream.codec_context.codec.canonical_name == "h264"
        count = None
        if to_end or fields:
            count = 1 + sum(1 for _ in frames)
            decoder.refuse_damage()
        return _Glance(width, height, count)


def _refuse_truncation(
    family: str, stream: VideoStream, table: PacketTable, count: int | None
) -> None:
    promised = stream.frames or 0
    missing = promised - len(table)
    if missing > max(FRAME_SLACK, (1 - LEAST_SHARE) * promised) and not (
        family == "mov" and _fills_its_duration(stream, table)
    ):
        raise VideoError(f"truncated: the header promises {promised} frames, {count} decode")


def _fills_its_duration(stream: VideoStream, table: PacketTable) -> bool:
    """Whether packets are missing from an MP4 because its edit list leaves them out."""
    shown = _shown_seconds(stream, table)
    if shown is None or not stream.duration or not stream.time_base:
        return False
    return shown >= LEAST_SHARE * float(stream.duration * stream.time_base)


def _shown_seconds(stream: VideoStream, table: PacketTable) -> float | None:
    if not table.stamped or not stream.time_base or table.num_frames < 2:
        return None
    pts = np.sort(table.pts[table.kept])
    return float((pts[-1] - pts[0] + np.median(np.diff(pts))) * stream.time_base)


def _frames_per_second(
    stream: VideoStream, num_frames: int, duration: float | None
) -> float | None:
    rate = stream.average_rate or stream.guessed_rate
    if rate:
        return float(rate)
    return num_frames / duration if duration else None


def _header_seconds(container: InputContainer) -> float | None:
    return container.duration / 1e6 if container.duration else None
