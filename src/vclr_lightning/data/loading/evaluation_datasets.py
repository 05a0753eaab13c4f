"""Evaluation samples, in which nothing is random: evenly spaced frames or segment centres."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.data.faults import blaming, picture
from vclr_lightning.data.loading.clip_reading import read_clips, reject
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.sampling.frame_indices import (
    clip_indices,
    evaluation_indices,
    segment_bounds,
    segment_centres,
    snippet_indices,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vclr_lightning.core.types import Rejection
    from vclr_lightning.data.protocols import ClipTransform, VideoReader, VideoTable
    from vclr_lightning.data.transforms import ViewsTransform


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
    """``num_frames`` frames of a video, evenly spaced from the first to the last.

    Of a row that is a clip within a file, frames of the clip. A shorter video gives each frame
    once; the last is repeated to fill up, and ``mask`` is false there. A video that cannot be read
    gives a blank sample that is not ``valid``, with the reason in ``rejected``: in an evaluation it
    is not replaced.

    Args:
        manifest: the videos; the key is a row of it.
        reader: opens them.
        transform: resizes and crops one frame.
        num_frames: m, at least 1.
        every: instead, the middle frame of each run of so many frames; m then depends on the
            video, so a batch can hold one sample only.
        frames_per_clip: T, for networks of clips: m clips that begin evenly spaced, the last one
            ending with the video.
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
        numbers = {"num_frames": num_frames, "frames_per_clip": frames_per_clip, "stride": stride}
        _check_positive(**numbers, every=1 if every is None else every)
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
        manifest, size = self._manifest, self._transform.size
        clips: list[Tensor] = []
        rejected: list[Rejection] = []
        converter = partial(self._converter, index)
        try:
            clips = read_clips(manifest, index, self._reader, draw=self._draw, converter=converter)
        except VideoError as error:
            rejected = [reject(manifest, index, error)]
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
            "video_id": manifest.video_id(index),
            "group_id": manifest.group_id(index),
            "label": manifest.label(index),
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


class CentresSample(TypedDict):
    """One video: ``views`` is ``(k, S, C, T, H, W)`` uint8; not ``valid``: it cannot be read."""

    views: Tensor
    label: int
    index: int
    valid: bool
    rejected: list[Rejection]


class CentresDataset(Dataset[CentresSample]):
    """Test samples of a classifier: the middle frame of each segment of a video, in k crops.

    For networks of clips, the range of possible clip starts is cut into segments, and clips start
    at their centres. A video that cannot be read gives a blank sample that is not ``valid``, with
    the reason in ``rejected``.

    Args:
        manifest: the videos; the key is a row of it.
        reader: opens them.
        transform: resizes a clip and cuts its crops.
        num_segments: S, frames or clips per video.
        frames_per_clip: T, for networks of clips.
        stride: distance between the frames of a clip.
        seed: with a seed, a frame (or clip start) of each segment is drawn by it instead.

    Raises:
        UserError: a number is below 1.
    """

    def __init__(
        self,
        *,
        manifest: VideoTable,
        reader: VideoReader,
        transform: ViewsTransform,
        num_segments: int = 25,
        frames_per_clip: int = 1,
        stride: int = 1,
        seed: int | None = None,
    ) -> None:
        _check_positive(num_segments=num_segments, frames_per_clip=frames_per_clip, stride=stride)
        self._manifest = manifest
        self._reader = reader
        self._transform = transform
        self._num_segments = num_segments
        self._frames_per_clip = frames_per_clip
        self._stride = stride
        self._seed = seed

    def __len__(self) -> int:
        return len(self._manifest)

    def __getitem__(self, index: int) -> CentresSample:
        manifest, size = self._manifest, self._transform.size
        rejected: list[Rejection] = []
        draw = partial(self._draw, index=index)
        try:
            clips = read_clips(
                manifest, index, self._reader, draw=draw, converter=lambda: self._convert
            )
            views = torch.stack(clips, dim=1)
        except VideoError as error:
            rejected = [reject(manifest, index, error)]
            shape = (self._transform.num_views, self._num_segments, 3, self._frames_per_clip)
            views = torch.zeros(*shape, size, size, dtype=torch.uint8)
        return {
            "views": views,
            "label": manifest.label(index),
            "index": index,
            "valid": not rejected,
            "rejected": rejected,
        }

    def _convert(self, frames: list[NDArray[np.uint8]]) -> Tensor:
        with blaming(self._transform):
            views, size = self._transform(frames), self._transform.size
            return picture(views, self._transform.num_views, 3, len(frames), size, size)

    def _draw(self, num_frames: int, index: int = 0) -> NDArray[np.int64]:
        begins = max(1, num_frames - (self._frames_per_clip - 1) * self._stride)
        if self._seed is None:
            starts = segment_centres(begins, self._num_segments)
        else:
            bounds = segment_bounds(begins, self._num_segments)
            rng = numpy_generator(self._seed, "test", index)
            starts = rng.integers(bounds[:, 0], bounds[:, 1])
        return clip_indices(
            starts, frames=self._frames_per_clip, stride=self._stride, num_frames=num_frames
        )


def _check_positive(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
