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
from vclr_lightning.data.segments import evaluation_ranks

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

    A video of fewer frames gives each once; the last is repeated to fill up, and ``mask`` is false
    there. A video that cannot be read gives a blank sample that is not ``valid`` and says why:
    in an evaluation nothing takes its place.

    Args:
        manifest: the videos; the key is a row of it.
        reader: opens them.
        transform: resizes and crops one frame.
        num_frames: m, at least 1.

    Shape:
        ``sample["frames"]``: ``(m, C, 1, H, W)`` uint8; ``sample["mask"]``: ``(m,)``.

    Raises:
        UserError: ``num_frames`` is below 1.
    """

    def __init__(
        self,
        *,
        manifest: VideoTable,
        reader: VideoReader,
        transform: ClipTransform,
        num_frames: int = 30,
    ) -> None:
        if num_frames < 1:
            raise UserError(f"num_frames={num_frames} must be at least 1")
        self._manifest = manifest
        self._reader = reader
        self._transform = transform
        self._num_frames = num_frames

    def __len__(self) -> int:
        return len(self._manifest)

    def __getitem__(self, index: int) -> FramesSample:
        rng = numpy_generator(index)
        size = self._transform.size
        frames = torch.zeros(self._num_frames, 3, 1, size, size, dtype=torch.uint8)
        count, rejected = 0, []
        try:
            ranks, pictures = read_drawn(self._manifest, index, self._reader, self._draw)
        except VideoError as error:
            rejected = [reject(self._manifest, index, error)]
        else:
            count = len(ranks)
            for position, picture in enumerate(pictures):
                frames[position] = self._transform([picture], rng)
            frames[count:] = frames[count - 1]
        return {
            "frames": frames,
            "mask": np.arange(self._num_frames) < count,
            "count": count,
            "video_id": self._manifest.video_id(index),
            "group_id": self._manifest.group_id(index),
            "label": self._manifest.label(index),
            "index": index,
            "valid": count > 0,
            "rejected": rejected,
        }

    def _draw(self, num_frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        ranks = evaluation_ranks(num_frames, self._num_frames)
        return ranks, ranks
