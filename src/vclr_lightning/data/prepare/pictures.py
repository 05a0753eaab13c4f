"""Bring decoded frames to the size and form in which they are encoded."""

from __future__ import annotations

import av
from av.video.reformatter import Interpolation, VideoReformatter

from vclr_lightning.data.readers.decoding import ONE_THREAD, PictureMaker


class Scaler:
    """Turns the decoded frames of one video upright, into ``yuv420p`` and to one size.

    Colours stay what they are: a frame keeps its matrix and range, and says so.

    Args:
        width: of the upright picture, even.
        height: likewise.
    """

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
