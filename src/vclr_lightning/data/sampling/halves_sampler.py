"""The sampler of SeCo: a frame of one half of a video, and two of the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.sampling.frame_indices import check_clips, clip_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class HalvesSampler:
    """Draws an anchor frame x1 from one half of a video, and x2 and x3 from the other (SeCo).

    The first half has ``n // 2`` frames. A fair coin says which half is the anchor's; x2 and x3 are
    drawn independently, so they may be the same frame, and put into temporal order.

    Views: ``x1``, ``x1_again`` (the same frame, for its second augmentation), ``x2`` and ``x3``, of
    one clip each. Target: ``follows`` ``()``, 0 if x1 precedes both others, 1 if it follows both.

    Yao et al., "SeCo: exploring sequence supervision for unsupervised representation learning"
    (2021).

    Args:
        frames_per_clip: T, 1 for networks that see single pictures; a clip begins at its frame.
        stride: distance between the frames of a clip.
        rate: frames per second of a clip, instead of ``stride``.

    Raises:
        UserError: a number below 1.

    Example:
        >>> draw = HalvesSampler()(300, np.random.default_rng(1))
        >>> {name: int(indices[0, 0]) // 150 for name, indices in draw.frame_indices.items()}
        {'x1': 0, 'x1_again': 0, 'x2': 1, 'x3': 1}
        >>> int(draw.targets["follows"])
        0
    """

    targets: ClassVar[tuple[str, ...]] = ("follows",)
    min_frames: ClassVar[int] = 2

    frames_per_clip: int = 1
    stride: int = 1
    rate: float | None = None

    def __post_init__(self) -> None:
        check_clips(rate=self.rate, frames_per_clip=self.frames_per_clip, stride=self.stride)

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The four views."""
        spec = ViewSpec(clips=1, frames=self.frames_per_clip)
        return dict.fromkeys(("x1", "x1_again", "x2", "x3"), spec)

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
        """Draw from a video of ``num_frames`` frames (at least 2)."""
        half = num_frames // 2
        halves = ((0, half), (half, num_frames))
        follows = int(rng.integers(2))
        x1 = rng.integers(*halves[follows], size=1)
        x2, x3 = np.sort(rng.integers(*halves[1 - follows], size=2))
        starts: dict[str, NDArray[np.int64]] = {
            "x1": x1,
            "x1_again": x1,
            "x2": np.array([x2]),
            "x3": np.array([x3]),
        }
        at: dict[str, Any] = {"stride": self.stride, "rate": self.rate, "times": times}
        return Draw(
            frame_indices={
                name: clip_indices(start, frames=self.frames_per_clip, num_frames=num_frames, **at)
                for name, start in starts.items()
            },
            targets={"follows": np.asarray(follows, dtype=np.int64)},
        )
