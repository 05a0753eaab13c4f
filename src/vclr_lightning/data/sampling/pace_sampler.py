"""The sampler of pace prediction: a clip at one of several paces, and which one it is."""

from __future__ import annotations

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
class PaceSampler(ClipSampler):
    """Draws a clip at pace p, uniform among 1 to ``paces``: every p-th step of the video.

    Wang, Jiao, Liu, "Self-supervised video representation learning by pace prediction", ECCV 2020.
    The start is uniform among all frames, the last one included, whatever the pace. Where a clip
    would leave the video it restarts at its **first frame**, as often as needed. Such jumps are
    common in short videos, and more of them betray a faster pace.

    View: ``clip``. Target: ``pace``, the pace less one.

    Args:
        frames_per_clip: T, frames of a clip.
        paces: number of paces.
        stride: frames in a step, of pace 1.
        rate: frames per second of pace 1, instead of ``stride``; see :class:`ClipSampler`.
        min_frames: shorter videos are left out.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> draw = PaceSampler(frames_per_clip=6)(8, np.random.default_rng(1))
        >>> draw.frame_indices["clip"].tolist(), draw.targets["pace"].tolist()
        ([[4, 6, 0, 2, 4, 6]], 1)
    """

    paces: int = 4

    targets = ("pace",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.paces < 2:
            raise UserError(f"paces={self.paces} must be at least 2")

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        """The one view."""
        return {"clip": ViewSpec(clips=1, frames=self.frames_per_clip)}

    def __call__(
        self,
        num_frames: int,
        rng: np.random.Generator,
        *,
        times: NDArray[np.float64] | None = None,
    ) -> Draw:
        """Draw from a video of ``num_frames`` frames (at least 1)."""
        frames, stride = self.timeline(num_frames, rng, times)
        label = int(rng.integers(self.paces))
        step = stride * (label + 1)
        rest = np.arange(int(rng.integers(len(frames))), len(frames), step)
        whole = np.arange(0, len(frames), step)
        rounds = -(-max(0, self.frames_per_clip - len(rest)) // len(whole))
        clip = np.concatenate([rest, np.tile(whole, rounds)])[: self.frames_per_clip]
        return Draw(
            frame_indices={"clip": frames[clip][np.newaxis]},
            targets={"pace": np.asarray(label, dtype=np.int64)},
        )
