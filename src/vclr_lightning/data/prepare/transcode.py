"""Re-encode one video: every frame that decodes, upright, smaller, at its own time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av

from vclr_lightning.data.encoding import Encoder, writing
from vclr_lightning.data.prepare.pictures import Scaler
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import probe
from vclr_lightning.data.readers.opening import open_stream
from vclr_lightning.data.readers.sequential import SequentialDecoder
from vclr_lightning.data.readers.table import read_table
from vclr_lightning.data.readers.trust import stream_doubts

if TYPE_CHECKING:
    from vclr_lightning.data.prepare.recipe import Recipe
    from vclr_lightning.data.readers.probing import VideoProbe

_USUAL_RATE = Fraction(25)  # frames per second of files that tell nothing


class _TimesError(Exception):
    """The frames that decode are not shown one after another, as the packets said."""


def transcode(source: Path, out: Path, recipe: Recipe) -> VideoProbe:
    """Write ``source`` anew as the MP4 file ``out``, which appears only when it is complete.

    The result is decoded to its end and has as many frames as decode from the source, shown at the
    same times: those of the packets where they can be believed, so that a variable frame rate
    stays one, and otherwise equally far apart at the stream's average rate. Sound is left out.

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
            count = _write(source, partial, size=size, recipe=recipe, stamped=_is_stamped(source))
        except _TimesError:
            count = _write(source, partial, size=size, recipe=recipe, stamped=False)
        found = probe(partial, decode=True)
        if found.num_frames != count:
            raise VideoError(f"{count} frames decode, but {found.num_frames} of the new file")
    return found


def _is_stamped(source: Path) -> bool:
    """Whether the file says of every frame when it is shown."""
    with open_stream(source) as (container, stream):
        table = read_table(container, stream)
        doubt, _ = stream_doubts(table, container.format.name, stream)
        return doubt is None and bool(stream.time_base)


def _write(
    source: Path, partial: Path, *, size: tuple[int, int], recipe: Recipe, stamped: bool
) -> int:
    """Encode all frames and return how many there are."""
    scale = Scaler(*size)
    index_first = {"movflags": "faststart"}
    with (
        open_stream(source, watched=True) as (container, stream),
        av.open(str(partial), "w", format="mp4", container_options=index_first) as sink,
    ):
        rate = Fraction(stream.average_rate or stream.guessed_rate or _USUAL_RATE)
        time_base = Fraction(stream.time_base) if stamped and stream.time_base else 1 / rate
        decoder = SequentialDecoder(container, stream)
        encoder: Encoder | None = None
        times = _Times(stamped=stamped)
        for frame in decoder:
            time = times.next(frame)
            picture = scale(frame)
            picture.pts, picture.time_base = time, time_base
            encoder = encoder or Encoder(
                sink, picture, options=recipe.options(), time_base=time_base, rate=rate
            )
            encoder.add(picture)
        decoder.refuse_damage()
        if encoder is None:
            raise VideoError("no frame can be decoded")
        encoder.finish()
        return times.count


class _Times:
    """When each frame is shown, counted from the first."""

    def __init__(self, *, stamped: bool) -> None:
        self._stamped = stamped
        self._begin = self._last = 0
        self.count = 0

    def next(self, frame: av.VideoFrame) -> int:
        self.count += 1
        if not self._stamped:
            return self.count - 1
        if frame.pts is None:
            raise _TimesError
        if self.count == 1:
            self._begin = int(frame.pts)
        time = int(frame.pts) - self._begin
        if self.count > 1 and time <= self._last:
            raise _TimesError
        self._last = time
        return time
