"""Evenly spaced frames of a video, as several tuples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.data.faults import blaming
from vclr_lightning.data.loading.clip_reading import read_clips
from vclr_lightning.data.sampling.frame_indices import clip_indices, segment_centres
from vclr_lightning.data.transforms import EvalTransform
from vclr_lightning.stages.gradcam.chosen_videos import ChosenVideo

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Frames:
    """Evenly spaced frames of a video, as passes of one tuple each.

    Pass k of K takes frame k, K + k, 2 K + k and so on of S K, one of each segment.

    Attributes:
        clips: what a network sees, ``(K, S, C, T, H, W)`` uint8.
        pictures: the same part of each frame (of a clip's middle one) as large as it is shown,
            ``(K, S, 3, size, size)`` uint8.
    """

    clips: Tensor
    pictures: Tensor


def read_frames(
    video: ChosenVideo,
    *,
    transform: EvalTransform,
    segments: int,
    passes: int,
    frames_per_clip: int = 1,
    stride: int = 1,
    size: int = 160,
) -> Frames:
    """Read the frames of a video.

    Args:
        video: which one.
        transform: resizes and crops a frame.
        segments: S, frames (clips) of a tuple.
        passes: K, tuples.
        frames_per_clip: T, of a network of clips.
        stride: distance between the frames of a clip.
        size: of the pictures to show.

    Raises:
        VideoError: the video cannot be read.
    """
    scale = size / transform.size
    scaled = partial(_scaled, by=scale, least=size)
    stretch = transform.stretch
    enlarged = replace(
        transform,
        size=size,
        resize=scaled(transform.resize),
        stretch=None if stretch is None else (scaled(stretch[0]), scaled(stretch[1])),
    )

    def draw(num_frames: int) -> NDArray[np.int64]:
        span = (frames_per_clip - 1) * stride
        starts = segment_centres(max(1, num_frames - span), segments * passes)
        return clip_indices(starts, frames=frames_per_clip, stride=stride, num_frames=num_frames)

    def converter() -> Callable[[list[NDArray[np.uint8]]], tuple[Tensor, Tensor]]:
        rng = np.random.default_rng(0)  # of transforms in which nothing is random

        def convert(frames: list[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
            middle = frames[len(frames) // 2]
            with blaming(transform):
                return transform(frames, rng), enlarged([middle], rng)[:, 0]

        return convert

    taken = read_clips(video.table, video.row, video.reader, draw=draw, converter=converter)
    clips, pictures = (torch.stack(part) for part in zip(*taken, strict=True))
    return Frames(*(_by_pass(part, segments) for part in (clips, pictures)))


def _by_pass(frames: Tensor, segments: int) -> Tensor:
    """Frames in order of time, ``(S K, ...)``, to ``(K, S, ...)``."""
    return frames.view(segments, -1, *frames.shape[1:]).transpose(0, 1)


def _scaled(pixels: int, *, by: float, least: int) -> int:
    return max(least, round(by * pixels))
