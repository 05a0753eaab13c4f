"""Probe a video that was extracted to a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vclr_lightning.data.readers import ImageFolderReader


def probe_frames(folder: Path, template: str) -> dict[str, Any]:
    """Count the frames of a folder and measure the first, by the reader that training uses.

    Returns:
        Fields of a manifest's row; duration and frame rate are not known.

    Raises:
        VideoError: there are no frames, one is missing, or the first is no picture.
    """
    with ImageFolderReader(template=template).open(folder) as video:
        height, width, _ = video.read([0])[0].shape
        return {
            "num_frames": video.num_frames,
            "exact": True,
            "width": width,
            "height": height,
            "codec": Path(template).suffix.removeprefix("."),
            "keyframe_interval": 1,
        }
