"""Re-encode one video: every frame that decodes, upright, smaller, at its own time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from vclr_lightning.data.encoding import Encoder, writing
from vclr_lightning.data.prepare.pictures import Scaler
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import probe
from vclr_lightning.data.readers.opening import open_stream
from vclr_lightning.data.readers.sequential import SequentialDecoder, read_timestamps, stamped_times

if TYPE_CHECKING:
    from av.video.stream import VideoStream

    from vclr_lightning.data.prepare.recipe import Recipe
    from vclr_lightning.data.readers.probing import VideoProbe

_USUAL_RATE = Fraction(25)  # frames per second of files that tell nothing


class _TimesError(Exception):
    """The frames have no times of their own that rise."""


def transcode(source: Path, out: Path, recipe: Recipe) -> VideoProbe:
    """Write ``source`` anew as the MP4 file ``out``, which appears only when it is complete.

    The result is decoded to its end and has as many frames as decode from the source, shown at
    their own times, so that a variable frame rate stays one; frames without any are equally far
    apart, at the stream's average rate. Sound is left out.

    Args:
        source: a video file.
        out: of a folder that need not exist.
        recipe: how to encode.

    Returns:
        What is found in ``out``.

    Raises:
        VideoError: the source cannot be read, or the result is not as it should be.
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
    """Return a unit of time, and when each frame is shown, rising, of a file that has none."""
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
    """Encode all frames, by a clock or else at their own times, and return how many there are."""
    scale = Scaler(*size)
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
                sink, picture, options=recipe.options(), time_base=unit, rate=_rate(stream)
            )
            encoder.add(picture)
            count += 1
        decoder.refuse_damage()
        if encoder is None:
            raise VideoError("no frame can be decoded")
        encoder.finish()
        return count
