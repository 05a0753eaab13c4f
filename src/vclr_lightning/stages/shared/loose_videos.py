"""Video files of no data set, and pictures of videos."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.core.screen import track
from vclr_lightning.data.loading.clip_reading import read_drawn
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import probe
from vclr_lightning.data.transforms import EvalTransform

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from vclr_lightning.data.protocols import VideoReader, VideoTable

_SIZE = 160  # pixels


@dataclass(frozen=True)
class VideoFiles:
    """Files of no data set, as a :class:`~vclr_lightning.data.protocols.VideoTable`.

    Example:
        >>> table = VideoFiles((Path("a.mp4"), Path("b.mp4")))
        >>> len(table), table.path(1).name, table.label(1)
        (2, 'b.mp4', -1)
    """

    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        return "\n".join(map(str, self.files))

    def path(self, i: int) -> Path:
        return self.files[i]

    def video_id(self, i: int) -> int:
        return i

    def group_id(self, i: int) -> int:
        return i

    def label(self, i: int) -> int:
        return -1

    def num_frames(self, i: int) -> int | None:
        found = probe(self.files[i])
        return found.num_frames if found.exact else None

    def window(self, i: int) -> tuple[float, float] | None:
        return None


def middle_frames(
    table: VideoTable, rows: Iterable[int], reader: VideoReader
) -> dict[int, Tensor | None]:
    """Return the middle frame ``(3, H, W)`` of some videos, ``None`` of those that are damaged.

    Args:
        table: the videos.
        rows: of the table.
        reader: opens them.
    """
    transform = EvalTransform(size=_SIZE, resize=_SIZE)
    found: dict[int, Tensor | None] = {}
    for row in track(sorted(set(rows)), "pictures"):
        try:
            _, frames = read_drawn(table, row, reader, _middle)
        except VideoError:
            found[row] = None
        else:
            found[row] = transform(frames, np.random.default_rng(0))[:, 0]
    return found


def _middle(num_frames: int) -> tuple[None, NDArray[np.int64]]:
    return None, np.array([num_frames // 2])
