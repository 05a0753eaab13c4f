"""Re-encode one video: every frame that decodes, upright, smaller, at its own time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.video.reformatter import Interpolation, VideoReformatter

from vclr_lightning.data.prepare.encoder import Encoder, writing
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import probe
from vclr_lightning.data.readers.opening import open_stream
from vclr_lightning.data.readers.picture import PictureMaker
from vclr_lightning.data.readers.sequential import SequentialDecoder
from vclr_lightning.data.readers.table import read_table
from vclr_lightning.data.readers.trust import stream_doubts

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from vclr_lightning.data.prepare.recipe import Recipe
    from vclr_lightning.data.readers.probing import VideoProbe

_USUAL_RATE = Fraction(25)  # frames per second of files that tell nothing

# From PyAV 17 on the conversion runs in as many threads as there are cores unless told otherwise.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


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
        count = _write(source, partial, size=size, recipe=recipe)
        found = probe(partial, decode=True)
        if found.num_frames != count:
            raise VideoError(f"{count} frames decode, but {found.num_frames} of the new file")
    return found


def _write(source: Path, partial: Path, *, size: tuple[int, int], recipe: Recipe) -> int:
    with open_stream(source) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate or _USUAL_RATE
        stamped = _is_stamped(source)
        time_base = stream.time_base if stamped else 1 / rate
        decoder = SequentialDecoder(container, stream)
        frames = iter(_pictures(decoder, size))
        first = next(frames)
        with av.open(
            str(partial), "w", format="mp4", container_options={"movflags": "+faststart"}
        ) as sink:
            encoder = Encoder(sink, first[1], recipe=recipe, time_base=time_base, rate=rate)
