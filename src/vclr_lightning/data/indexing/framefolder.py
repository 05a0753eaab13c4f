"""Probe a video that was extracted to a folder of pictures."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from vclr_lightning.data.indexing.files import frame_pattern
from vclr_lightning.data.protocols import VideoError


def probe_frames(folder: Path, template: str) -> dict[str, Any]:
    """Count the frames of a folder and measure the first; they must be numbered without a gap.

    Returns:
        Fields of a manifest's row; duration and frame rate are not known.

    Raises:
        VideoError: there are no frames, one is missing, or the first is no picture.
    """
    import av

    pattern = frame_pattern(template)
    numbers = sorted(
        int(match[1]) for name in os.listdir(folder) if (match := pattern.fullmatch(name))
    )
    if not numbers:
        raise VideoError(f"holds no files of the form {template}")
    for number, following in pairwise(numbers):
        if following != number + 1:
            raise VideoError(f"{template.format(number + 1)} is missing")
    first = folder / template.format(numbers[0])
    try:
        with av.open(str(first)) as container:
            picture = next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, IndexError) as error:
        raise VideoError(f"{first.name} is no picture that can be read") from error
    return {
        "num_frames": len(numbers),
        "exact": True,
        "width": picture.width,
        "height": picture.height,
        "codec": Path(template).suffix.removeprefix("."),
        "keyframe_interval": 1,
    }
