"""Windows of successive clips: one at random, or all of a video at regular distances."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.sampling.clip_sampler import ClipSampler
from vclr_lightning.data.sampling.frame_indices import check_clips

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pad = Literal["front", "end"]


def window_starts(num_frames: int, *, span: int, every: int) -> NDArray[np.int64]:
    """Return 0, ``every``, twice that and so on, as long as ``span`` frames follow; at least 0.

    Example:
        >>> window_starts(62, span=32, every=15).tolist(), window_starts(8, span=32, every=15)
        ([0, 15, 30], array([0]))
    """
    return np.arange(0, max(0, num_frames - span) + 1, every, dtype=np.int64)


def padded_steps(
    start: int, num_frames: int, *, steps: int, stride: int, pad: Pad
) -> NDArray[np.int64]:
    """Return ``steps`` frames at a stride from ``start``, with the missing ones repeated.

    Args:
        start: the first frame.
        num_frames: of the video.
        steps: number of frames.
        stride: distance between them.
        pad: what repeats where the video ends too early: ``"front"``: the first frame, before the
            others; ``"end"``: the last one, after them.

    Shape: returns ``(steps,)``

    Example:
        >>> [padded_steps(0, 3, steps=5, stride=1, pad=pad).tolist() for pad in ("front", "end")]
        [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]
    """
    there = np.arange(start, min(num_frames, start + steps * stride), stride, dtype=np.int64)
    missing = steps - len(there)
    return np.pad(there, (missing, 0) if pad == "front" else (0, missing), mode="edge")


@dataclass(frozen=True, kw_only=True)
class _Windows(ClipSampler, ABC):
    """Base of windows: ``num_segments`` clips, each going on where the one before it ends."""

    num_segments: int = 1
    frames_per_clip: int = 32
    pad: Pad = "front"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_clips(rate=None, num_segments=self.num_segments)
        if self.pad not in get_args(Pad):
            raise UserError(f"pad={self.pad!r} of a window must be front or end")

    @abstractmethod
    def _starts(self, frames: int, stride: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the first frame of each window."""

    def windows(
        self,
        num_frames: int,
        rng: np.random.Generator,
        *,
        times: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Return the frames of the windows, ``(m, num_segments, frames_per_clip)``."""
        frames, stride = self.timeline(num_frames, rng, times)
        count = self.num_segments * self.frames_per_clip
        found = [
            frames[padded_steps(start, len(frames), steps=count, stride=stride, pad=self.pad)]
            for start in self._starts(len(frames), stride, rng).tolist()
        ]
        return np.stack(found).reshape(-1, self.num_segments, self.frames_per_clip)


@dataclass(frozen=True, kw_only=True)
class RandomWindow(_Windows):
    """One window of a video, as CoCLR and DPC draw it in training with labels.

    With L = ``num_segments * frames_per_clip * stride``, the start is uniform among 0 to
    ``num_frames - L - 1``, so that the last frame is never used; of videos of L frames or fewer, 0.

    View: ``segments``, ``num_segments`` clips that follow one another.

    Args:
        num_segments: S, clips of a window.
        frames_per_clip: T, frames of a clip.
        stride: frames in a step.
        rate: frames per second, instead of ``stride``; see :class:`~.clip_sampler.ClipSampler`.
        pad: see :func:`padded_steps`.
        min_frames: shorter videos are left out.
        seed: of the window that represents a video in an evaluation; training has its own draws.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> sampler = RandomWindow(num_segments=2, frames_per_clip=3)
        >>> sampler(4, np.random.default_rng(0)).frame_indices["segments"].tolist()
        [[0, 0, 0], [1, 2, 3]]
    """

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The one view."""
        return {"segments": ViewSpec(clips=self.num_segments, frames=self.frames_per_clip)}

    def _starts(self, frames: int, stride: int, rng: np.random.Generator) -> NDArray[np.int64]:
        free = frames - self.num_segments * self.frames_per_clip * stride
        return rng.integers(max(1, free), size=1)

    def __call__(
        self,
        num_frames: int,
        rng: np.random.Generator,
        *,
        times: NDArray[np.float64] | None = None,
    ) -> Draw:
        """Draw from a video of ``num_frames`` frames (at least 1)."""
        return Draw(frame_indices={"segments": self.windows(num_frames, rng, times=times)[0]})


@dataclass(frozen=True, kw_only=True)
class SlidingWindows(_Windows):
    """All windows of a video that begin ``every`` steps apart, as CoCLR and DPC test.

    The first one begins at the first frame, the last one ends at the last frame or before. A video
    that is too short has one.

    Args:
        num_segments: S, clips of a window.
        frames_per_clip: T, frames of a clip.
        stride: frames in a step.
        rate: frames per second, instead of ``stride``; see :class:`~.clip_sampler.ClipSampler`.
        every: steps from the beginning of a window to that of the next; ``None``:
            ``num_segments * frames_per_clip // 2 - 1``, which is 15 for CoCLR's 32 frames.
        pad: see :func:`padded_steps`.
        min_frames: shorter videos are left out.
        seed: of where the first window begins at a ``rate``, within its first step.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> windows = SlidingWindows(num_segments=2, frames_per_clip=2, stride=2, every=2)
        >>> windows.windows(12, np.random.default_rng(0))[:, :, 0].tolist()
        [[0, 4], [4, 8]]
    """

    every: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every is None:
            half = self.num_segments * self.frames_per_clip // 2 - 1
            object.__setattr__(self, "every", max(1, half))
        check_clips(rate=None, every=self.every or 0)

    def _starts(self, frames: int, stride: int, rng: np.random.Generator) -> NDArray[np.int64]:
        span = (self.num_segments * self.frames_per_clip - 1) * stride + 1
        return window_starts(frames, span=span, every=(self.every or 1) * stride)
