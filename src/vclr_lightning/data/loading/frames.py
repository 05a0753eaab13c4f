"""Evaluation samples: frames spread evenly over a video."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.data.faults import blaming, picture
from vclr_lightning.data.loading.decoding import read_clips, reject
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.sampling.segments import clip_indices, evaluation_indices, snippet_indices

if TYPE_CHECKING:
    from collections.abc import Callable

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
        frames_per_clip: T, for networks of clips: clips take the place of frames, and begin evenly
            spaced so that the last one ends with the video.
        stride: distance between the frames of a clip.

    Shape:
        ``sample["frames"]``: ``(m, C, T, H, W)`` uint8; ``sample["mask"]``: ``(m,)``.

    Raises:
        UserError: a number is below 1.
    """

    def __init__(
        self,
        *,
        manifest: VideoTable,
        reader: VideoReader,
        transform: ClipTransform,
        num_frames: int = 30,
        every: int | None = None,
        frames_per_clip: int = 1,
        stride: int = 1,
    ) -> None:
        for name, value in (
            ("num_frames", num_frames),
            ("every", every),
            ("frames_per_clip", frames_per_clip),
            ("stride", stride),
        ):
            if value is not None and value < 1:
                raise UserError(f"{name}={value} must be at least 1")
        self._manifest = manifest
        self._reader = reader
        self._transform = transform
        self._num_frames = num_frames
        self._every = every
        self._frames_per_clip = frames_per_clip
        self._stride = stride

    def __len__(self) -> int:
        return len(self._manifest)

    def __getitem__(self, index: int) -> FramesSample:
        size = self._transform.size
        clips: list[Tensor] = []
        rejected: list[Rejection] = []
        try:
            clips = read_clips(
                self._manifest,
                index,
                self._reader,
                draw=self._draw,
                converter=lambda: self._converter(index),
            )
        except VideoError as error:
            rejected = [reject(self._manifest, index, error)]
        count = len(clips)
        length = self._num_frames if self._every is None else max(1, count)
        shape = (length, 3, self._frames_per_clip, size, size)
        frames = torch.zeros(shape, dtype=torch.uint8)
        for position, clip in enumerate(clips):
            frames[position] = clip
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

    def _converter(self, index: int) -> Callable[[list[NDArray[np.uint8]]], Tensor]:
        rng, size = numpy_generator(index), self._transform.size

        def convert(frames: list[NDArray[np.uint8]]) -> Tensor:
            with blaming(self._transform):
                return picture(self._transform(frames, rng), 3, len(frames), size, size)

        return convert

    def _draw(self, num_frames: int) -> NDArray[np.int64]:
        span = (self._frames_per_clip - 1) * self._stride
        if self._every is not None:
            # The clip lies around the middle frame, but within the video.
            middle = snippet_indices(num_frames, self._every)
            starts = np.clip(middle - span // 2, 0, max(0, num_frames - 1 - span))
        else:
            starts = evaluation_indices(max(1, num_frames - span), self._num_frames)
        return clip_indices(
            starts, frames=self._frames_per_clip, stride=self._stride, num_frames=num_frames
        )
