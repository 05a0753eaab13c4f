"""Pictures of videos, for pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.core.screen import track
from vclr_lightning.data.loading.decoding import read_drawn, reject
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.transforms import EvalTransform

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from vclr_lightning.core.types import Rejection
    from vclr_lightning.data.protocols import VideoReader, VideoTable


def middle_pictures(
    table: VideoTable,
    rows: Iterable[int],
    reader: VideoReader,
    *,
    size: int = 160,
    show: bool = True,
    description: str = "pictures",
) -> tuple[dict[int, Tensor], list[Rejection]]:
    """Read the frame in the middle of some videos, and cut out its middle.

    Args:
        table: the videos.
        rows: which of them.
        reader: opens them.
        size: of the pictures.
        show: show a progress bar.
        description: of the bar.

    Returns:
        A picture ``(3, size, size)`` uint8 by row, and the videos that could not be read.
    """
    transform = EvalTransform(size=size, resize=size)
    pictures: dict[int, Tensor] = {}
    rejected: list[Rejection] = []
    for row in track(sorted(set(rows)), description, show=show):
        try:
            _, frames = read_drawn(table, row, reader, _middle)
        except VideoError as error:
            rejected.append(reject(table, row, error))
        else:
            pictures[row] = transform(frames, np.random.default_rng(0))[:, 0]
    return pictures, rejected


def _middle(num_frames: int) -> tuple[None, NDArray[np.int64]]:
    return None, np.array([num_frames // 2])
