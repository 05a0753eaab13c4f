"""A sampler that makes labels: a clip, forwards or backwards (the arrow of time)."""

from dataclasses import dataclass

import numpy as np

from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.sampling.frame_indices import clip_indices


@dataclass(frozen=True)
class ArrowSampler:
    frames: int = 8
    stride: int = 1
    targets = ("backwards",)

    @property
    def views(self):
        return {"clip": ViewSpec(clips=1, frames=self.frames)}

    def __call__(self, num_frames, rng):
        last = max(0, num_frames - self.stride * (self.frames - 1) - 1)
        start = rng.integers(last + 1, size=1)
        clip = clip_indices(start, frames=self.frames, stride=self.stride, num_frames=num_frames)
        backwards = rng.integers(2)
        return Draw(
            frame_indices={"clip": clip[:, ::-1] if backwards else clip},
            targets={"backwards": np.asarray(backwards)},
        )
