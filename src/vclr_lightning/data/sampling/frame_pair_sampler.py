"""The sampler of pairs of frames: MoCo v2 on video frames, and VINCE."""

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
class FramePairSampler:
    """Draws pairs of frames, a query and a key each, from a few candidate frames of a video.

    The candidates are one frame of each of ``candidates`` equal parts of the video, drawn anew each
    time. Each query and each key is one of them, drawn independently and with replacement: a pair
    is twice the same frame with chance 1 / ``candidates``, and there is no temporal order.

    One candidate and one pair is MoCo v2 on video: a random frame, twice augmented. Four candidates
    and four pairs is VINCE (Gordon et al. 2020), whose data set stores four frames per video: of
    those, as of any video of as many frames, the candidates are all.

    Views: ``queries`` and ``keys``, ``pairs`` clips each.

    Args:
        candidates: frames of the video to draw from, at least 1. Shorter videos are not used.
        pairs: queries, and keys, at least 1.
        frames_per_clip: T, 1 for networks that see single pictures; a clip begins at its frame.
        stride: distance between the frames of a clip.
        rate: frames per second of a clip, instead of ``stride``.

    Raises:
        UserError: a number below 1.

    Example:
        >>> import numpy as np
        >>> draw = FramePairSampler()(300, np.random.default_rng(0))
        >>> bool((draw.frame_indices["queries"] == draw.frame_indices["keys"]).all())
        True
    """

    candidates: int = 1
    pairs: int = 1
    frames_per_clip: int = 1
    stride: int = 1
    rate: float | None = None

    def __post_init__(self) -> None:
        names = ("candidates", "pairs", "frames_per_clip", "stride")
        check_clips(rate=self.rate, **{name: getattr(self, name) for name in names})

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """Both views."""
        spec = ViewSpec(clips=self.pairs, frames=self.frames_per_clip)
        return {"queries": spec, "keys": spec}

    @property
    def min_frames(self) -> int:
        """Frames of the shortest video that can be used."""
        return self.candidates

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
        """Draw from a video of ``num_frames`` frames (at least ``candidates``)."""
        bounds = segment_bounds(num_frames, self.candidates)
        candidates = rng.integers(bounds[:, 0], bounds[:, 1])
        drawn = candidates[rng.integers(self.candidates, size=(2, self.pairs))]
        queries, keys = (
            clip_indices(
                starts,
                frames=self.frames_per_clip,
                num_frames=num_frames,
                stride=self.stride,
                rate=self.rate,
                times=times,
            )
            for starts in drawn
        )
        return Draw(frame_indices={"queries": queries, "keys": keys})
