"""The sampler of training with labels: one frame or clip of each segment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.sampling.frame_indices import (
    check_clips,
    clip_indices,
    segment_bounds,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class SegmentSampler:
    """Draws one frame (or clip start) of each segment, uniformly (TSN).

    View: ``segments``, S clips in temporal order.

    Args:
        num_segments: S, at least 1.
        frames_per_clip: T, 1 for networks that see single pictures.
        stride: distance between the frames of a clip.
        rate: frames per second of a clip, instead of ``stride``.

    Raises:
        UserError: a number below 1.

    Example:
        >>> import numpy as np
        >>> draw = SegmentSampler(num_segments=3)(300, np.random.default_rng(0))
        >>> draw.frame_indices["segments"].shape
        (3, 1)
    """

    num_segments: int = 8
    frames_per_clip: int = 1
    stride: int = 1
    rate: float | None = None

    def __post_init__(self) -> None:
        names = ("num_segments", "frames_per_clip", "stride")
        check_clips(rate=self.rate, **{name: getattr(self, name) for name in names})

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The one view."""
        spec = ViewSpec(clips=self.num_segments, frames=self.frames_per_clip)
        return {"segments": spec}

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
        bounds = segment_bounds(num_frames, self.num_segments)
        starts = rng.integers(bounds[:, 0], bounds[:, 1])
        indices = clip_indices(
            starts,
            frames=self.frames_per_clip,
            num_frames=num_frames,
            stride=self.stride,
            rate=self.rate,
            times=times,
        )
        return Draw(frame_indices={"segments": indices})
