"""Re-encode one video: every frame that decodes, upright, smaller, at its own time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.prepare.video_writer import Encoder, writing, x264_options
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import probe
from vclr_lightning.data.readers.decoding import ONE_THREAD, PictureMaker
from vclr_lightning.data.readers.opening import open_stream
from vclr_lightning.data.readers.sequential import SequentialDecoder, read_timestamps, stamped_times

if TYPE_CHECKING:
    from av.video.stream import VideoStream

    from vclr_lightning.data.readers.video_probe import VideoProbe

_CRF_MOST = 51  # of H.264 with 8 bits
_SMALLEST = 16  # pixels; no scaled video is smaller
_USUAL_RATE = Fraction(25)  # frames per second of files that do not contain it


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to encode: H.264 without B-frames, with keyframes at regular intervals.

    Attributes:
        short_edge: pixels to which the shorter side is reduced; smaller videos keep their size.
        keyframe_every: frames from one keyframe to the next; 1 for keyframes alone.
        crf: x264's quality, 0 (lossless) to 51 (worst).

    Raises:
        UserError: a value is out of its range.
    """

    short_edge: int = 256
    keyframe_every: int = 8
    crf: int = 18

    def __post_init__(self) -> None:
        if self.short_edge < _SMALLEST:
            raise UserError(f"a short edge of {self.short_edge} pixels is too small for a video")
        if self.keyframe_every < 1:
            raise UserError(f"a keyframe every {self.keyframe_every} frames: give 1 or more")
        if not 0 <= self.crf <= _CRF_MOST:
            raise UserError(f"crf {self.crf} must be 0 (lossless) to {_CRF_MOST}; 18 is usual")

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the result, both even.

        Args:
            width: pixels of the upright picture.
            height: likewise.

        Example:
            >>> Recipe().size(1280, 720), Recipe().size(176, 143)
            ((456, 256), (176, 142))
        """
        scale = self.short_edge / min(width, height)
        if scale >= 1:  # no pixel is made up
            return max(2, width // 2 * 2), max(2, height // 2 * 2)
        return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))

    def describe(self) -> str:
        """Return the recipe in words.

        Example:
            >>> Recipe().describe()
            'short edge 256, a keyframe every 8 frames, crf 18'
        """
        every = "keyframes alone"
        if self.keyframe_every > 1:
            every = f"a keyframe every {self.keyframe_every} frames"
        return f"short edge {self.short_edge}, {every}, crf {self.crf}"


class _TimesError(Exception):
    """The frames have no increasing timestamps."""


def transcode(source: Path, out: Path, recipe: Recipe) -> VideoProbe:
    """Re-encode ``source`` as the MP4 file ``out``, which appears only when it is complete.

    The result is decoded to its end and has as many frames as decode from the source, shown at
    their own times, also at a variable frame rate; frames without timestamps are spaced
    evenly at the stream's average rate. Sound is left out.

    Args:
        source: a video file.
        out: its folder need not exist.
        recipe: how to encode.

    Returns:
        What probing ``out`` found.

    Raises:
        VideoError: the source cannot be read, or the result has another number of frames.
        UserError: the folder cannot be written to, or is full.
    """
    looked = probe(source)
    size = recipe.size(looked.width, looked.height)
    with writing(out) as partial:
        try:
            count = _write(source, partial, size=size, recipe=recipe, clock=None)
        except _TimesError:
            count = _write(source, partial, size=size, recipe=recipe, clock=_clock(source))
        found = probe(partial, decode=True)
        if found.num_frames != count:
            raise VideoError(f"{count} frames decode, but {found.num_frames} of the new file")
    return found


def _clock(source: Path) -> tuple[Fraction, Sequence[int]]:
    """Return a time unit and increasing timestamps for the frames of a file without usable ones."""
    stamps = read_timestamps(source)
    with open_stream(source) as (_, stream):
        times = stamped_times(stamps, 1.0) if stream.time_base else None
        if times is None:
            return 1 / _rate(stream), range(len(stamps))
        indices = np.arange(len(times))
        rising = np.maximum.accumulate(np.round(times).astype(np.int64) - indices) + indices
        return Fraction(stream.time_base or 1), rising.tolist()


def _rate(stream: VideoStream) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or _USUAL_RATE)


def _write(
    source: Path,
    partial: Path,
    *,
    size: tuple[int, int],
    recipe: Recipe,
    clock: tuple[Fraction, Sequence[int]] | None,
) -> int:
    """Encode all frames, at the clock's times or their own, and return their number."""
    scale = _Scaler(*size)
    options = x264_options(crf=recipe.crf, keyframe_every=recipe.keyframe_every)
    index_first = {"movflags": "faststart"}
    with (
        open_stream(source, watched=True) as (container, stream),
        av.open(str(partial), "w", format="mp4", container_options=index_first) as sink,
    ):
        if clock is None and not stream.time_base:
            raise _TimesError
        unit, times = (Fraction(stream.time_base or 1), None) if clock is None else clock
        decoder = SequentialDecoder(container, stream)
        encoder: Encoder | None = None
        begin = last = None
        count = 0
        for frame in decoder:
            stamp = frame.pts if times is None else times[count]
            if stamp is None or (last is not None and stamp <= last):
                raise _TimesError
            begin, last = stamp if begin is None else begin, stamp
            picture = scale(frame)
            picture.pts, picture.time_base = stamp - begin, unit
            encoder = encoder or Encoder(
                sink, picture, options=options, time_base=unit, rate=_rate(stream)
            )
            encoder.add(picture)
            count += 1
        decoder.refuse_damage()
        if encoder is None:
            raise VideoError("no frame can be decoded")
        encoder.finish()
        return count


class _Scaler:
    """Brings frames upright, to ``yuv420p`` and one size; matrix and range of colours stay."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._scaler = VideoReformatter()
        self._upright = PictureMaker()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        if frame.rotation:
            frame = av.VideoFrame.from_ndarray(self._upright(frame), format="rgb24")
        # Bicubic scaling reads too few pixels from half the size on: fine patterns turn into others
        far = frame.width >= 2 * self._width
        return self._scaler.reformat(
            frame,
            width=self._width,
            height=self._height,
            format="yuv420p",
            interpolation=Interpolation.AREA if far else Interpolation.BICUBIC,
            **ONE_THREAD,
        )
