"""Read what was drawn from one video file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import FrameCountChangedError, VideoError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.core.types import Rejection
    from vclr_lightning.data.protocols import VideoReader, VideoTable

Drawn = TypeVar("Drawn")

# What a file can do to a reader; anything else is a mistake in the program and is let through.
_FAILURES = (VideoError, FrameCountChangedError, OSError, EOFError, ValueError, RuntimeError)


def read_drawn(
    manifest: VideoTable,
    row: int,
    reader: VideoReader,
    draw: Callable[[int], tuple[Drawn, NDArray[np.int64]]],
) -> tuple[Drawn, list[NDArray[np.uint8]]]:
    """Open a video, draw for the number of frames it has, and read the frames drawn at one go.

    Args:
        manifest: the videos.
        row: which of them.
        reader: opens it.
        draw: of a number of frames gives what was drawn and the ranks to read, ``(N,)``. It is
            asked again where the decoder finds another number of frames than was promised.

    Returns:
        What was drawn, and the N frames ``(H, W, 3)`` uint8.

    Raises:
        VideoError: the file cannot be read, whatever the reader made of it.
    """
    try:
        with reader.open(manifest.path(row), num_frames=manifest.num_frames(row)) as video:
            if video.num_frames < 1:
                raise VideoError("no frame can be decoded")
            drawn, ranks = draw(video.num_frames)
            try:
                return drawn, video.read(ranks)
            except FrameCountChangedError as error:
                if error.actual < 1:
                    raise VideoError("no frame can be decoded") from error
                drawn, ranks = draw(error.actual)
                return drawn, video.read(ranks)
    except UserError:
        raise
    except VideoError:
        raise
    except _FAILURES as error:
        raise VideoError(f"{type(error).__name__}: {error}") from error


def reject(manifest: VideoTable, row: int, error: VideoError) -> Rejection:
    """Note why a video could not be used, in one line."""
    return {
        "video_id": manifest.video_id(row),
        "path": str(manifest.path(row)),
        "reason": " ".join(str(error).split()),
    }
