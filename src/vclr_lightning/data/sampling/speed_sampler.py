"""The sampler of a clip at normal speed and one that is sped up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.sampling.frame_indices import check_clips, clip_indices, possible_starts

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class SpeedSampler:
    """Draws two clips of one part of a video, at normal speed and sped up.

    Benaim et al., "SpeedNet: learning the speediness in videos", CVPR 2020, Section 3. A clip's
    factor f is drawn uniformly, and after each of its frames others are skipped, each with chance
    ``1 - 1 / f``, so that it is f times as fast on average, and not exactly: a regular step would
    betray itself. The normal clip lies within the time of the sped-up one.

    View: ``clips``, normal and sped up. Target: ``sped_up``, 0 and 1, of each clip.

    Args:
        frames_per_clip: T.
        stride: frames in a step of normal speed.
        rate: frames per second, instead of ``stride``.
        normal, sped_up: smallest and largest factor, at least 1.
        share: sharing key by which both are augmented together; ``None``: each by itself.
        min_frames: shorter videos are left out. In videos that are too short for a clip, the last
            frame repeats.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> draw = SpeedSampler(frames_per_clip=4)(100, np.random.default_rng(0))
        >>> draw.frame_indices["clips"].shape, draw.targets["sped_up"].tolist()
        ((2, 4), [0, 1])
    """

    frames_per_clip: int = 64
    stride: int = 1
    rate: float | None = None
    normal: tuple[float, float] = (1.0, 1.2)
    sped_up: tuple[float, float] = (1.7, 2.2)
    share: str | None = None
    min_frames: int = 1

    targets = ("sped_up",)

    def __post_init__(self) -> None:
        check_clips(rate=self.rate, frames_per_clip=self.frames_per_clip, stride=self.stride)
        for name in ("normal", "sped_up"):
            factors = tuple(float(value) for value in getattr(self, name))
            if len(factors) != 2 or not 1 <= factors[0] <= factors[1] < np.inf:
                raise UserError(f"{name}={factors} must be two factors of at least 1, in order")
            object.__setattr__(self, name, factors)

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The one view."""
        return {"clips": ViewSpec(clips=2, frames=self.frames_per_clip, share=self.share)}

    @property
    def needs_times(self) -> bool:
        """Whether times of presentation are needed: with ``rate``."""
        return self.rate is not None

    def __call__(
        self,
        num_frames: int,
        rng: np.random.Generator,
        *,
        times: NDArray[np.float64] | None = None,
    ) -> Draw:
        """Draw from a video of ``num_frames`` frames (at least 1)."""
        slow, fast = (self._draw_steps(factors, rng) for factors in (self.normal, self.sped_up))
        slow += rng.integers(max(0, fast[-1] - slow[-1]) + 1)
        steps = np.stack([slow, fast])
        last = int(steps.max())
        at: dict[str, Any] = {"stride": self.stride, "rate": self.rate, "times": times}
        start = rng.integers(possible_starts(num_frames, steps=last, **at), size=1)
        every = clip_indices(start, frames=last + 1, num_frames=num_frames, **at)[0]
        return Draw(
            frame_indices={"clips": every[steps]},
            targets={"sped_up": np.arange(2, dtype=np.int64)},
        )

    def _draw_steps(
        self, factors: tuple[float, float], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw the steps of a clip's frames from its start, ``(T,)``."""
        factor = rng.uniform(*factors)
        gaps = rng.geometric(1 / factor, size=self.frames_per_clip - 1)
        return np.concatenate([[0], np.cumsum(gaps)]).astype(np.int64)
