"""Samplers of two clips of a video: CoCLR's, CVRL's, and VTHCL's at two rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.sampling.clip_sampler import ClipSampler

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ClipPairSampler(ClipSampler):
    """Draws two clips independently, as CoCLR does; they may overlap or coincide.

    With more frames than ``frames_per_clip * stride``, the start is uniform among 0 to
    ``num_frames - frames_per_clip * stride - 1``, so that the last frame is never used. A shorter
    video is padded in front: its first frame repeats, then all of its steps follow.

    Views: ``query`` and ``key``, one clip each.

    Args:
        frames_per_clip: T, frames of a clip.
        stride: frames in a step.
        rate: frames per second, instead of ``stride``; see :class:`ClipSampler`.
        min_frames: shorter videos are left out.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> draw = ClipPairSampler(frames_per_clip=4)(3, np.random.default_rng(0))
        >>> draw.frame_indices["query"].tolist()
        [[0, 0, 1, 2]]
    """

    frames_per_clip: int = 32

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The two views."""
        return dict.fromkeys(("query", "key"), ViewSpec(clips=1, frames=self.frames_per_clip))

    def __call__(
        self,
        num_frames: int,
        rng: np.random.Generator,
        *,
        times: NDArray[np.float64] | None = None,
    ) -> Draw:
        """Draw from a video of ``num_frames`` frames (at least 1)."""
        frames, stride = self.timeline(num_frames, rng, times)
        steps = stride * np.arange(self.frames_per_clip, dtype=np.int64)
        free = len(frames) - self.frames_per_clip * stride
        clips = {}
        for view in self.views:
            if free > 0:
                clip = frames[rng.integers(free) + steps]
            else:
                there = frames[steps[steps < len(frames)]]
                clip = np.pad(there, (self.frames_per_clip - len(there), 0), mode="edge")
            clips[view] = clip[np.newaxis]
        return Draw(frame_indices=clips)


@dataclass(frozen=True, kw_only=True)
class IntervalSampler(ClipSampler):
    """Draws two clips that are rather close in time, as CVRL does.

    With M possible starts of a clip, the interval d between the two starts has the probability
    ``(2 (M - d) - 1) / M^2``, d from 0 to M - 1, which falls linearly; the earlier start is uniform
    among those that this leaves, and a coin decides which clip is the first view. Clips of a video
    that is too short for one start anywhere, independently, and go on at the video's beginning.

    Views: ``clip1`` and ``clip2``, one clip each.

    Args:
        frames_per_clip: T, frames of a clip.
        stride: frames in a step.
        rate: frames per second, instead of ``stride``; see :class:`ClipSampler`.
        min_frames: shorter videos are left out.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> draw = IntervalSampler(frames_per_clip=3, stride=2)(30, np.random.default_rng(0))
        >>> draw.frame_indices["clip1"].tolist(), draw.frame_indices["clip2"].tolist()
        ([[8, 10, 12]], [[18, 20, 22]])
    """

    stride: int = 2

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The two views."""
        return dict.fromkeys(("clip1", "clip2"), ViewSpec(clips=1, frames=self.frames_per_clip))

    def __call__(
        self,
        num_frames: int,
        rng: np.random.Generator,
        *,
        times: NDArray[np.float64] | None = None,
    ) -> Draw:
        """Draw from a video of ``num_frames`` frames (at least 1)."""
        frames, stride = self.timeline(num_frames, rng, times)
        possible = len(frames) - (self.frames_per_clip - 1) * stride
        if possible > 0:
            # The inverse of the interval's distribution.
            interval = int(possible * (1 - math.sqrt(1 - rng.random())))
            interval = min(interval, possible - 1)
            earlier = int(rng.integers(possible - interval))
            starts = np.array([earlier, earlier + interval])[:: 1 - 2 * int(rng.integers(2))]
        else:
            starts = rng.integers(len(frames), size=2)
        steps = stride * np.arange(self.frames_per_clip, dtype=np.int64)
        clips = frames[(starts[:, np.newaxis] + steps) % len(frames)]
        return Draw(frame_indices={"clip1": clips[:1], "clip2": clips[1:]})


@dataclass(frozen=True, kw_only=True)
class TwoRateSampler(ClipSampler):
    """Draws one span of a video at two rates, as VTHCL does.

    The fast clip has ``alpha`` times the frames of the slow one, which is every ``alpha``-th of
    them. The start is uniform among those at which the fast clip fits; in a shorter video the last
    frame repeats.

    Views: ``slow`` (T frames) and ``fast`` (``alpha`` T frames), one clip each.

    Args:
        frames_per_clip: T, frames of the slow clip.
        alpha: frames of the fast clip for one of the slow clip.
        stride: frames in a step of the slow clip, a multiple of ``alpha``.
        rate: frames per second of the slow clip, instead of ``stride``; see :class:`ClipSampler`.
        min_frames: shorter videos are left out.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> sampler = TwoRateSampler(frames_per_clip=2, alpha=2, stride=6)
        >>> draw = sampler(10, np.random.default_rng(0))
        >>> draw.frame_indices["slow"].tolist(), draw.frame_indices["fast"].tolist()
        ([[0, 6]], [[0, 3, 6, 9]])
    """

    frames_per_clip: int = 8
    alpha: int = 4
    stride: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 1:
            raise UserError(f"alpha={self.alpha} must be at least 1")
        if self.rate is None and self.stride % self.alpha:
            raise UserError(
                f"stride={self.stride} of the slow clip must be a multiple of alpha={self.alpha}, "
                "so that the fast clip has a whole number of frames between"
            )

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The two views."""
        return {
            "slow": ViewSpec(clips=1, frames=self.frames_per_clip),
            "fast": ViewSpec(clips=1, frames=self.frames_per_clip * self.alpha),
        }

    def __call__(
        self,
        num_frames: int,
        rng: np.random.Generator,
        *,
        times: NDArray[np.float64] | None = None,
    ) -> Draw:
        """Draw from a video of ``num_frames`` frames (at least 1)."""
        frames, stride = self.timeline(num_frames, rng, times, parts=self.alpha)
        steps = stride * np.arange(self.frames_per_clip * self.alpha, dtype=np.int64)
        start = rng.integers(max(1, len(frames) - steps[-1]))
        fast = frames[np.minimum(start + steps, len(frames) - 1)]
        return Draw(
            frame_indices={"slow": fast[np.newaxis, :: self.alpha], "fast": fast[np.newaxis]}
        )
