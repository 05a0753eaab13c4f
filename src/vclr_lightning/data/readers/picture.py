"""From a decoded frame to an upright RGB array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

from vclr_lightning.data.readers.opening import PYAV

if TYPE_CHECKING:
    from numpy.typing import NDArray

# From PyAV 17 on the conversion runs in as many threads as there are cores unless told otherwise.
ONE_THREAD: dict[str, Any] = {"threads": 1} if PYAV >= 17 else {}


def upright(picture: NDArray[np.uint8], matrix: Sequence[int]) -> NDArray[np.uint8]:
    """Apply a display matrix: turns by quarters, and mirrorings.

    Args:
        picture: ``(H, W, 3)``.
        matrix: nine numbers as containers store them: the stored pixel ``(x, y)`` is shown at
            ``(m0 x + m3 y, m1 x + m4 y)``, up to a shift.

    Example:
        >>> picture = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
        >>> upright(picture, [0, 1, 0, -1, 0, 0, 0, 0, 1])[:, :, 0].tolist()  # clockwise
        [[3, 0], [4, 1], [5, 2]]
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    along, across = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture = picture.swapaxes(0, 1)
        along, across = c, b
    if along < 0:
        picture = picture[:, ::-1]
    if across < 0:
        picture = picture[::-1]
    return picture


class PictureMaker:
    """Turns the decoded frames of one video into RGB; shares one converter among them.

    A display matrix that mirrors top to bottom and does nothing else is not noticed: FFmpeg
    reports no turn for it.
    """

    def __init__(self) -> None:
        self._converter = VideoReformatter()
        self._matrices: dict[int, list[int]] = {}

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return ``(H, W, 3)`` uint8, upright; rows may be padded."""
        rgb = self._converter.reformat(frame, format="rgb24", **ONE_THREAD)
        picture = cast("NDArray[np.uint8]", rgb.to_ndarray())
        if turn := frame.rotation:
            if turn not in self._matrices:
                self._matrices[turn] = _display_matrix(frame)
            turned = upright(picture, self._matrices[turn])
            picture = np.ascontiguousarray(turned)  # torch takes no negative strides
        return picture


def _display_matrix(frame: av.VideoFrame) -> list[int]:
    # Asking a frame for its side data ties it into a reference cycle, so a tiny copy is asked.
    copy = VideoReformatter().reformat(frame, width=16, height=16, format="gray", **ONE_THREAD)
    side_data: Any = copy.side_data
    return [int(number) for number in np.frombuffer(side_data[Type.DISPLAYMATRIX], np.int32)]
