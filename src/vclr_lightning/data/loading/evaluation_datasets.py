"""Evaluation samples, in which nothing is random: evenly spaced frames or segment centres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.data.faults import blaming, picture
from vclr_lightning.data.loading.clips_dataset import ClipsDataset
from vclr_lightning.data.sampling.evaluation_frames import (
    evaluation_indices,
    segment_centres,
    snippet_indices,
)
from vclr_lightning.data.sampling.frame_indices import MILLISECOND, segment_bounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vclr_lightning.core.types import Rejection
    from vclr_lightning.data.protocols import ClipTransform
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


@dataclass(frozen=True, kw_only=True, eq=False)
class FramesDataset(ClipsDataset):
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
        every: instead, the middle frame of each run of this many frames; m then depends on the
            video, so a batch can hold one sample only.
        frames_per_clip: T, for networks of clips: m clips that begin evenly spaced, the last one
            ending with the video.
        stride: distance between the frames of a clip.
        rate: frames per second of a clip, instead of ``stride``.
        windows: instead of all these, the windows of one clip to take; m then depends on the video.

    Shape:
        ``sample["frames"]``: ``(m, C, T, H, W)`` uint8; ``sample["mask"]``: ``(m,)``.

    Raises:
        UserError: a number is below 1, or a window has several clips.
    """

    transform: ClipTransform
    num_frames: int = 30
    every: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.windows is not None and self.windows.num_segments != 1:
            raise UserError(
                f"num_segments={self.windows.num_segments} of windows must be 1 for features, which"
                " are those of single clips"
            )

    def __getitem__(self, index: int) -> FramesSample:
        manifest, size = self.manifest, self.transform.size
        clips, rejected = self.read(index, self._starts, partial(self._converter, index))
        count = len(clips)
        fixed = self.every is None and self.windows is None
        length = self.num_frames if fixed else max(1, count)
        frames = torch.zeros(length, 3, self.frames_per_clip, size, size, dtype=torch.uint8)
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
        rng, size = numpy_generator(index), self.transform.size

        def convert(frames: list[NDArray[np.uint8]]) -> Tensor:
            with blaming(self.transform):
                return picture(self.transform(frames, rng), 3, len(frames), size, size)

        return convert

    def _starts(
        self, num_frames: int, fitting: int, times: NDArray[np.float64] | None
    ) -> NDArray[np.int64]:
        if self.every is None:
            return evaluation_indices(fitting, self.num_frames)
        # The clip lies around the middle frame, but within the video.
        middle = snippet_indices(num_frames, self.every)
        steps = self.frames_per_clip - 1
        if self.rate is None or times is None:
            begins = middle - steps * self.stride // 2
        else:
            half = steps / self.rate / 2
            begins = np.searchsorted(times, times[middle] - half + MILLISECOND, side="right") - 1
        return np.clip(begins, 0, fitting - 1)


class CentresSample(TypedDict):
    """One video: ``views`` is ``(k, S, C, T, H, W)`` uint8; not ``valid``: it cannot be read.

    Of m windows, ``(k m, S, C, T, H, W)``, the windows of one crop after those of another.
    """

    views: Tensor
    label: int
    index: int
    valid: bool
    rejected: list[Rejection]


@dataclass(frozen=True, kw_only=True, eq=False)
class CentresDataset(ClipsDataset):
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
        rate: frames per second of a clip, instead of ``stride``.
        seed: with a seed, a frame (or clip start) of each segment is drawn by it instead.
        windows: instead, the windows to take, each of them a view as a crop is; their number
            depends on the video, so a batch can hold one sample only.

    Raises:
        UserError: a number is below 1.
    """

    transform: ViewsTransform
    num_segments: int = 25
    seed: int | None = None

    def __getitem__(self, index: int) -> CentresSample:
        starts = partial(self._starts, index=index)
        clips, rejected = self.read(index, starts, lambda: self._convert)
        if rejected:
            crops, size = self.transform.num_views, self.transform.size
            shape = (crops, self._clips, 3, self.frames_per_clip, size, size)
            views = torch.zeros(shape, dtype=torch.uint8)
        else:
            views = torch.stack(clips, dim=1)  # (k, m S, C, T, H, W)
            views = views.view(-1, self._clips, *views.shape[2:])
        return {
            "views": views,
            "label": self.manifest.label(index),
            "index": index,
            "valid": not rejected,
            "rejected": rejected,
        }

    @property
    def _clips(self) -> int:
        return self.num_segments if self.windows is None else self.windows.num_segments

    def _convert(self, frames: list[NDArray[np.uint8]]) -> Tensor:
        with blaming(self.transform):
            views, size = self.transform(frames), self.transform.size
            return picture(views, self.transform.num_views, 3, len(frames), size, size)

    def _starts(
        self, num_frames: int, fitting: int, times: NDArray[np.float64] | None, *, index: int
    ) -> NDArray[np.int64]:
        if self.seed is None:
            return segment_centres(fitting, self.num_segments)
        bounds = segment_bounds(fitting, self.num_segments)
        rng = numpy_generator(self.seed, "test", index)
        return rng.integers(bounds[:, 0], bounds[:, 1])
