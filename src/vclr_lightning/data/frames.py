"""Evaluation samples: frames spread evenly over a video."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.data.decoding import read_drawn, reject
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.segments import evaluation_ranks, snippet_ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vclr_lightning.core.types import Rejection
    from vclr_lightning.data.protocols import ClipTransform, VideoReader, VideoTable


class FramesSample(TypedDict):
    """One video's part of a :class:`~vclr_lightning.core.types.FramesBatch`."""

    frames: Tensor
    mask: NDArray[np.bool_]
    count: int
    video_id: int
    group_id: int
    label: int
    index: int
    valid: bool
    rejected: list[Rejection]


class FramesDataset(Dataset[FramesSample]):
    """Gives ``num_frames`` frames of a video, evenly spaced from the first to the last.

    A row that is a clip inside of a longer file gives frames of its window alone.

    A video of fewer frames gives each once; the last is repeated to fill up, and ``mask`` is false
    there. A video that cannot be read gives a blank sample that is not ``valid`` and says why:
    in an evaluation nothing takes its place.

    Args:
        manifest: the videos; the key is a row of it.
        reader: opens them.
        transform: resizes and crops one frame.
        num_frames: m, at least 1.
        every: instead, the middle frame of each run of so many frames, m as it comes; such samples
            are of unequal length, and a batch holds one of them.

    Shape:
        ``sample["frames"]``: ``(m, C, 1, H, W)`` uint8; ``sample["mask"]``: ``(m,)``.

    Raises:
        UserError: ``num_frames`` or ``every`` is below 1.
    """

    def __init__(
        self,
        *,
        manifest: VideoTable,
        reader: VideoReader,
        transform: ClipTransform,
        num_frames: int = 30,
        every: int | None = None,
    ) -> None:
        for name, value in (("num_frames", num_frames), ("every", every)):
            if value is not None and value < 1:
                raise UserError(f"{name}={value} must be at least 1")
        self._manifest = manifest
        self._reader = reader
        self._transform = transform
        self._num_frames = num_frames
        self._every = every

    def __len__(self) -> int:
        return len(self._manifest)

    def __getitem__(self, index: int) -> FramesSample:
        rng = numpy_generator(index)
        size = self._transform.size
        ranks: NDArray[np.int64] = np.arange(0)
        pictures: list[NDArray[np.uint8]] = []
        rejected: list[Rejection] = []
        try:
            ranks, pictures = read_drawn(self._manifest, index, self._reader, self._draw)
        except VideoError as error:
            rejected = [reject(self._manifest, index, error)]
        count = len(ranks)
        length = self._num_frames if self._every is None else max(1, count)
        frames = torch.zeros(length, 3, 1, size, size, dtype=torch.uint8)
        for position, picture in enumerate(pictures):
            frames[position] = self._transform([picture], rng)
        if count:
            frames[count:] = frames[count - 1]
        return {
            "frames": frames,
            "mask": np.arange(length) < count,
            "count": count,
            "video_id": self._manifest.video_id(index),
            "group_id": self._manifest.group_id(index),
            "label": self._manifest.label(index),
            "index": index,
            "valid": count > 0,
            "rejected": rejected,
        }

    def _draw(self, num_frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self._every is not None:
            ranks = snippet_ranks(num_frames, self._every)
        else:
            ranks = evaluation_ranks(num_frames, self._num_frames)
        return ranks, ranks
