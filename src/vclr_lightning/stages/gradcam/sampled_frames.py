"""Evenly spaced frames of a video, as several tuples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vclr_lightning.data.faults import blaming
from vclr_lightning.data.loading.clip_reading import read_clips
from vclr_lightning.data.sampling.evaluation_frames import segment_centres
from vclr_lightning.data.sampling.frame_indices import clip_indices, possible_starts
from vclr_lightning.data.transforms import EvalTransform
from vclr_lightning.stages.gradcam.videos import ChosenVideo

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sample_frames(
    video: ChosenVideo,
    *,
    transform: EvalTransform,
    segments: int,
    passes: int,
    frames_per_clip: int = 1,
    stride: int = 1,
    rate: float | None = None,
    size: int = 160,
) -> tuple[Tensor, Tensor]:
    """Read evenly spaced frames of a video, as K passes of one tuple each.

    Pass k takes frame k, K + k, 2 K + k and so on of S K, one of each segment.

    Returns:
        What a network sees, ``(K, S, C, T, H, W)`` uint8; and the same part of each frame (of a
        clip's middle one) as large as it is shown, ``(K, S, 3, size, size)`` uint8.

    Raises:
        VideoError: the video cannot be read.
    """

    def scaled(pixels: int) -> int:
        return max(size, round(size / transform.size * pixels))

    stretch = transform.stretch
    enlarged = replace(
        transform,
        size=size,
        resize=scaled(transform.resize),
        stretch=None if stretch is None else (scaled(stretch[0]), scaled(stretch[1])),
    )

    def draw(num_frames: int, times: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
        at: dict[str, Any] = {"stride": stride, "rate": rate, "times": times}
        fitting = possible_starts(num_frames, steps=frames_per_clip - 1, **at)
        starts = segment_centres(fitting, segments * passes)
        return clip_indices(starts, frames=frames_per_clip, num_frames=num_frames, **at)

    def converter() -> Callable[[list[NDArray[np.uint8]]], tuple[Tensor, Tensor]]:
        rng = np.random.default_rng(0)  # of transforms in which nothing is random

        def convert(frames: list[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
            middle = frames[len(frames) // 2]
            with blaming(transform):
                return transform(frames, rng), enlarged([middle], rng)[:, 0]

        return convert

    found = read_clips(
        video.table,
        video.row,
        video.reader,
        draw=draw,
        converter=converter,
        needs_times=rate is not None,
    )
    stacked = (torch.stack(part) for part in zip(*found, strict=True))
    clips, pictures = (x.view(segments, -1, *x.shape[1:]).transpose(0, 1) for x in stacked)
    return clips, pictures
