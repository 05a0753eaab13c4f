"""Test samples of a classifier: the middle of each segment, in one or more crops."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.data.faults import blaming, picture
from vclr_lightning.data.loading.decoding import read_clips, reject
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.sampling.segments import clip_indices, segment_bounds, segment_centres

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vclr_lightning.core.types import Rejection
    from vclr_lightning.data.protocols import VideoReader, VideoTable


class Views(Protocol):
    """Turns a clip into k pictures of fixed size; see
    :class:`~vclr_lightning.data.transforms.ViewsTransform`."""

    @property
    def size(self) -> int: ...

    @property
    def num_views(self) -> int: ...

    def __call__(self, clip: Sequence[NDArray[np.uint8]]) -> Tensor: ...


class CentresSample(TypedDict):
    """One video: ``views`` is ``(k, S, C, T, H, W)`` uint8; not ``valid``: it cannot be read."""

    views: Tensor
    label: int
    index: int
    valid: bool
    rejected: list[Rejection]


class CentresDataset(Dataset[CentresSample]):
    """Gives the middle frame of each segment of a video in k crops; nothing is random.

    For networks of clips, clips begin at the centres of the segments of where one can begin. A
    video that cannot be read gives a blank sample that is not ``valid`` and says why.

    Args:
        manifest: the videos; the key is a row of it.
        reader: opens them.
        transform: resizes a clip and cuts its crops.
        num_segments: S, frames or clips of a video.
        frames_per_clip: T, for networks of clips.
        stride: distance between the frames of a clip.
        seed: draw a frame (or where a clip begins) of each segment by it, instead of the middle.

    Raises:
        UserError: a number is below 1.
    """

    def __init__(
        self,
        *,
        manifest: VideoTable,
        reader: VideoReader,
        transform: Views,
        num_segments: int = 25,
        frames_per_clip: int = 1,
        stride: int = 1,
        seed: int | None = None,
    ) -> None:
        for name, value in (
            ("num_segments", num_segments),
            ("frames_per_clip", frames_per_clip),
            ("stride", stride),
        ):
            if value < 1:
                raise UserError(f"{name}={value} must be at least 1")
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
        size = self._transform.size
        rejected: list[Rejection] = []
        try:
            clips = read_clips(
                self._manifest,
                index,
                self._reader,
                draw=partial(self._draw, index=index),
                converter=lambda: self._convert,
            )
            views = torch.stack(clips, dim=1)
        except VideoError as error:
            rejected = [reject(self._manifest, index, error)]
            shape = (self._transform.num_views, self._num_segments, 3, self._frames_per_clip)
            views = torch.zeros(*shape, size, size, dtype=torch.uint8)
        return {
            "views": views,
            "label": self._manifest.label(index),
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
