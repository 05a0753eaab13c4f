"""What the samplers of clips of one video share: length, distance between frames, checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.sampling.frame_indices import check_clips

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDING = 1e-6  # seconds


@dataclass(frozen=True, kw_only=True)
class ClipSampler:
    """Base of samplers whose clips step through a video.

    With ``stride``, a step is that many frames. With ``rate``, it is ``1 / rate`` seconds: the
    samplers then see the frames on screen at such times, from a random one in the first step on, as
    if these were the video.

    Args:
        frames_per_clip: T, frames of a clip.
        stride: frames in a step.
        rate: frames per second, instead of ``stride``.
        min_frames: shorter videos are left out.

    Raises:
        UserError: a value is out of range.
    """

    frames_per_clip: int = 16
    stride: int = 1
    rate: float | None = None
    min_frames: int = 1

    def __post_init__(self) -> None:
        names = ("frames_per_clip", "stride", "min_frames")
        check_clips(rate=self.rate, **{name: getattr(self, name) for name in names})

    @property
    def needs_times(self) -> bool:
        """Whether times of presentation are needed: with ``rate``."""
        return self.rate is not None

    def timeline(
        self,
        num_frames: int,
        rng: np.random.Generator,
        times: NDArray[np.float64] | None,
        *,
        parts: int = 1,
    ) -> tuple[NDArray[np.int64], int]:
        """Return the frames that clips can step through, ``(n,)``, and how far a step goes.

        Args:
            num_frames: frames of the video.
            rng: draws where a timeline at a rate begins.
            times: when each frame is shown, with ``rate``.
            parts: what a step of the sampler is divided into.

        Example:
            >>> times, rng = np.arange(9) / 30, np.random.default_rng(0)
            >>> frames, step = ClipSampler(rate=15).timeline(9, rng, times)
            >>> frames.tolist(), step
            ([1, 3, 5, 7], 1)
        """
        if self.rate is None:
            return np.arange(num_frames, dtype=np.int64), self.stride // parts
        if times is None:
            raise UserError(f"{type(self).__name__} with rate={self.rate} needs times=")
        rate = self.rate * parts
        begun = times[0] + rng.random() / rate
        count = 1 + max(0, int((times[-1] - begun) * rate + _ROUNDING))
        at = begun + np.arange(count) / rate
        shown = np.searchsorted(times, at + _ROUNDING, side="right") - 1
        return shown.astype(np.int64), 1
